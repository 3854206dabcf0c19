"""Files to and from the service: hashed before they go up, verified when they came down."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from inn_automl.client.transport import Backoff, Transport
from inn_automl.core.errors import (
    CorruptFileError,
    DatasetFormatError,
    DatasetNotFoundError,
    InnAutomlError,
    RangeError,
    StorageError,
)

CHUNK_BYTES = 1 << 20
ZIP_DATE = (1980, 1, 1, 0, 0, 0)

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes that are done and how many there are, None where that is not known."""


@dataclass(frozen=True)
class DownloadedFile:
    path: Path
    sha256: str
    size_bytes: int


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    transport: Transport,
    address: str,
    path: Path,
    *,
    params: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> DownloadedFile:
    """Writes what is at `address` to `path`, which appears whole and verified or not at all. A
    download that was cut goes on where it broke.

    Raises:
        RefusedError: there is nothing of that name.
        ConnectionLostError: the connection broke too often.
        CorruptFileError: the content does not match its hash.
        StorageError: the file could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w+b") as file:
                etag = _fetch(transport, address, file, params, on_progress)
                file.flush()
                os.fsync(file.fileno())
                size_bytes = file.tell()
            found = sha256_of(temporary)
            if etag and found != etag:
                raise CorruptFileError(
                    f"what came for {str(path)!r} hashes to {found}, the server says {etag}: "
                    f"download it again."
                )
            temporary.chmod(0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{str(path)!r} could not be written ({error.strerror or error}): choose another file, "
            f"or free some room."
        ) from error
    return DownloadedFile(path, found, size_bytes)


def _fetch(
    transport: Transport,
    address: str,
    file: IO[bytes],
    params: Mapping[str, Any] | None,
    on_progress: OnProgress,
) -> str | None:
    """Fills the file, over as many requests as it takes; returns the content's hash as the server
    tells it.
    """
    backoff, etag = Backoff(transport.patience_s), ""
    while True:
        done = file.tell()
        headers = {"Range": f"bytes={done}-", "If-Range": etag} if done and etag else {}
        headers["Accept-Encoding"] = "identity"
        try:
            with transport.stream(address, params=params, headers=headers) as response:
                # it is another file by now, or ranges are not served
                if response.status_code != 206 and done:
                    file.seek(0)
                    file.truncate()
                    done = 0
                etag = response.headers.get("ETag", "")
                total = _total(response, done)
                on_progress(done, total)
                for chunk in response.iter_bytes():  # as they come: a cut loses nothing
                    file.write(chunk)
                    backoff.succeeded()
                    on_progress(file.tell(), total)
            return etag.removeprefix("W/").strip('"') or None
        except httpx.TransportError as error:
            if not backoff.wait():
                raise transport.lost(error) from error
        except RangeError:
            if not done:
                raise
            file.seek(0)  # it is a shorter file by now
            file.truncate()
            etag = ""
        except InnAutomlError as error:
            if error.status is None or (error.status < 500 and error.status != 429):
                raise
            if not backoff.wait():
                raise


def _total(response: httpx.Response, done: int) -> int | None:
    with suppress(KeyError, ValueError):
        return done + int(response.headers["Content-Length"])
    return None
