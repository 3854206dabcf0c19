"""Files to and from the service: hashed before they go up, verified when they came down."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
from tenacity import AttemptManager

from inn_automl.core.errors import (
    CorruptFileError,
    DatasetFormatError,
    DatasetNotFoundError,
    RangeError,
)
from inn_automl.core.storage import replacing, sha256_of
from inn_automl.http.connection import Connection
from inn_automl.http.retries import restart

CHUNK_BYTES = 1 << 20
ALONE = frozenset({".csv", ".jsonl", ".npy", ".tsv"})
"""Files that are no dataset without those beside them."""
ZIP_DATE = (1980, 1, 1, 0, 0, 0)

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes that are done and how many there are, None where that is not known."""


@dataclass(frozen=True)
class DownloadedFile:
    path: Path
    sha256: str
    size_bytes: int


@contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """`path` itself, or for a folder a ZIP of it that is gone afterwards. The same files make the
    same ZIP.

    Raises:
        DatasetNotFoundError: there is nothing at the path.
        DatasetFormatError: it cannot be read.
    """
    if not path.exists():
        raise DatasetNotFoundError(f"there is no file or folder at {str(path)!r}: check the path.")
    try:
        if path.is_file():
            if path.suffix.casefold() in ALONE:
                raise DatasetFormatError(
                    f"{path.name!r} names files or belongs to others, which would not be uploaded "
                    "with it: give its folder (a manifest in it is called metadata.csv)."
                )
            path.open("rb").close()
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="inn-automl-upload-") as folder:
            packed = Path(folder) / f"{path.resolve().name}.zip"
            _pack(path, packed)
            yield packed
    except PermissionError as error:
        raise DatasetFormatError(
            f"{error.filename!r} cannot be read ({error.strerror}): allow it."
        ) from error


def _pack(folder: Path, packed: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # images and sounds are compressed already
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), ZIP_DATE)
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)


def read_chunks(path: Path, on_progress: OnProgress) -> Iterator[bytes]:
    """The file's content piece by piece."""
    size_bytes, done = path.stat().st_size, 0
    on_progress(0, size_bytes)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            done += len(chunk)
            on_progress(done, size_bytes)


def download(
    connection: Connection,
    address: str,
    path: Path,
    *,
    params: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> DownloadedFile:
    """Writes the content at `address` to `path`, which appears whole and verified or not at all.

    A download that was cut continues where it broke.

    Raises:
        NotFoundError: there is nothing of that name.
        ConnectionLostError: the connection broke too often.
        CorruptFileError: the content does not match its hash.
        StorageError: the file could not be written.
    """
    with replacing(path) as temporary:
        with temporary.open("w+b") as file:
            expected = _Transfer(connection, address, file, params, on_progress).run()
            size_bytes = file.tell()
        sha256 = sha256_of(temporary)
        if expected and sha256 != expected:
            raise CorruptFileError(
                f"the download for {str(path)!r} hashes to {sha256}, the server says {expected}: "
                f"download it again."
            )
    return DownloadedFile(path, sha256, size_bytes)


class _Transfer:
    """Fills a file over as many requests as it takes."""

    def __init__(
        self,
        connection: Connection,
        address: str,
        file: IO[bytes],
        params: Mapping[str, Any] | None,
        on_progress: OnProgress,
    ) -> None:
        self._connection, self._address, self._params = connection, address, params
        self._file, self._on_progress = file, on_progress
        self._etag = ""

    def run(self) -> str | None:
        """Reads until the end; returns the content's hash as the server tells it."""
        try:
            for attempt in self._connection.retry.retrying():
                with attempt:
                    try:
                        self._read(attempt)
                    except RangeError:
                        if not self._file.tell():
                            raise
                        self._begin_again()  # it is a shorter file by now
                        self._read(attempt)
        except httpx.TransportError as error:
            raise self._connection.lost(error) from error
        return self._etag.removeprefix("W/").strip('"') or None

    def _read(self, attempt: AttemptManager) -> None:
        done = self._file.tell()
        headers = {"Accept-Encoding": "identity"}
        if done and self._etag:
            headers |= {"Range": f"bytes={done}-", "If-Range": self._etag}
        stream = self._connection.stream(self._address, params=self._params, headers=headers)
        with stream as response:
            if response.status_code != 206 and done:
                # It is another file by now, or ranges are not served.
                self._begin_again()
                done = 0
            self._etag = response.headers.get("ETag", "")
            total = _total(response, done)
            self._on_progress(done, total)
            for chunk in response.iter_bytes():  # as they come: a cut loses nothing
                self._file.write(chunk)
                restart(attempt)
                self._on_progress(self._file.tell(), total)

    def _begin_again(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._etag = ""


def _total(response: httpx.Response, done: int) -> int | None:
    with suppress(KeyError, ValueError):
        return done + int(response.headers["Content-Length"])
    return None
