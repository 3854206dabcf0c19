"""Datasets by URL: copied into the cache once, whole or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from inn_automl.core.errors import DatasetError, DatasetFormatError, DatasetNotFoundError
from inn_automl.core.home import cache_root
from inn_automl.core.locking import file_lock
from inn_automl.core.storage import replacing
from inn_automl.data.cache.folder import keep_folder, key_of, make_room
from inn_automl.data.samples import bytes_text, composed

CHUNK_BYTES = 2**20
TIMEOUT_S = 60.0
_SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")


def is_url(source: str) -> bool:
    """Whether a source is a URL, of any scheme that fsspec reads."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def fetch(url: str) -> Path:
    """The file or folder at a URL, in the cache: copied where it is not there, or has changed.

    `URL#sha256=HEX` has the file verified.

    Raises:
        DatasetNotFoundError: nothing is there.
        DatasetFormatError: it cannot be read, ends in the middle, or has another hash.
        StorageError: the cache has no room.
    """
    address, _, fragment = url.partition("#")
    expected = _SHA256.fullmatch(fragment)
    if fragment and expected is None:
        raise DatasetFormatError(
            f"{url!r} ends with #{fragment}: write #sha256= and the hash, or leave it out."
        )
    name = composed(PurePosixPath(unquote(urlsplit(address).path).rstrip("/")).name) or "dataset"
    is_http = address.startswith(("http://", "https://"))
    source: _Http | _Fsspec = _Http(address) if is_http else _Fsspec(address)
    root = cache_root()
    folder = root / key_of({"url": address, "version": source.version, "sha256": fragment})
    target = folder / name
    with file_lock(root / f"{folder.name}.lock", timeout_s=None):
        if not target.exists():
            make_room(root, source.num_bytes or 0, keep=folder, what=repr(address))
            source.copy(target)
            if expected is not None:
                _verify(target, expected[1].lower(), address)
        keep_folder(folder)
    return target


def _verify(target: Path, expected: str, address: str) -> None:
    if target.is_dir():
        return
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        target.unlink()
        raise DatasetFormatError(
            f"what lies at {address!r} hashes to {found}, not {expected}: correct the hash, or "
            "have the file put there again."
        )


def _receive(chunks: Iterator[bytes], target: Path, num_bytes: int | None, address: str) -> None:
    """Writes what comes, and sees that it is all that was announced."""
    received = 0
    with replacing(target, num_bytes=num_bytes) as temporary:
        with temporary.open("wb") as file:
            for chunk in chunks:
                received += len(chunk)
                file.write(chunk)
        if num_bytes is not None and received != num_bytes:
            raise _ended(address, received, num_bytes)


def _ended(address: str, received: int, num_bytes: int | None) -> DatasetError:
    of = f" of {bytes_text(num_bytes)}" if num_bytes is not None else ""
    return DatasetFormatError(
        f"{address!r} ended in the middle, after {bytes_text(received)}{of}: try again, or give "
        "the dataset as a file."
    )


class _Http:
    """A file that a web server gives."""

    def __init__(self, address: str) -> None:
        import httpx

        self.address = address
        try:
            with httpx.Client(follow_redirects=True, timeout=TIMEOUT_S) as client:
                found = client.head(address)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DatasetFormatError(
                f"{address!r} could not be reached ({error!s:.120}): try again, or correct it."
            ) from None
        if found.status_code in (404, 410):
            raise _missing(address)
        headers = found.headers if found.is_success else {}
        length = headers.get("content-length")
        self.num_bytes = int(length) if length and length.isdecimal() else None
        self.version = [headers.get("etag"), headers.get("last-modified"), self.num_bytes]

    def copy(self, target: Path) -> None:
        import httpx

        try:
            with (
                httpx.Client(follow_redirects=True, timeout=TIMEOUT_S) as client,
                client.stream(
                    "GET", self.address, headers={"Accept-Encoding": "identity"}
                ) as answer,
            ):
                if not answer.is_success:
                    raise DatasetNotFoundError(
                        f"{self.address!r} was answered with status {answer.status_code}: correct "
                        "the URL."
                    )
                length = answer.headers.get("content-length", "")
                num_bytes = int(length) if length.isdecimal() else None
                _receive(answer.iter_raw(CHUNK_BYTES), target, num_bytes, self.address)
        except httpx.RemoteProtocolError:
            raise _ended(self.address, 0, self.num_bytes) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DatasetFormatError(
                f"{self.address!r} could not be read ({type(error).__name__}): try again."
            ) from None


class _Fsspec:
    """A file or a folder of any other file system: `file`, `memory`, `s3`, ..."""

    def __init__(self, address: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise DatasetFormatError(
                f"reading {address!r} needs fsspec: pip install 'inn-automl[worker]'."
            ) from None
        self.address = address
        try:
            self.system, self.path = fsspec.url_to_fs(address)
            self.is_folder = self.system.isdir(self.path)
            files = self.system.find(self.path, detail=True) if self.is_folder else None
            self.files = files or {self.path: self.system.info(self.path)}
        except FileNotFoundError:
            raise _missing(address) from None
        except Exception as error:  # every file system raises its own
            raise _unreadable(address, error) from None
        sizes = [_size(info) for info in self.files.values()]
        known = [size for size in sizes if size is not None]
        self.num_bytes = sum(known) if len(known) == len(sizes) else None
        self.version = [[path, _version(info)] for path, info in sorted(self.files.items())]

    def copy(self, target: Path) -> None:
        if not self.is_folder:
            _receive(self._chunks(self.path), target, self.num_bytes, self.address)
            return
        top = self.path.rstrip("/") + "/"
        for path, info in self.files.items():
            relative = path.removeprefix(top)
            if ".." in PurePosixPath(relative).parts:
                raise DatasetFormatError(f"{self.address!r} holds {relative!r}: rename it.")
            beside = target.with_name(f"{target.name}.part")
            address = f"{self.address}/{relative}"
            _receive(self._chunks(path), beside / relative, _size(info), address)
        target.with_name(f"{target.name}.part").rename(target)

    def _chunks(self, path: str) -> Iterator[bytes]:
        try:
            with self.system.open(path, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except Exception as error:  # as above
            raise _unreadable(self.address, error) from None


def _size(info: dict[str, Any]) -> int | None:
    size = info.get("size")
    return size if isinstance(size, int) else None


def _version(info: dict[str, Any]) -> list[str]:
    keys = ("size", "ETag", "LastModified", "mtime", "created")
    return [str(info.get(key)) for key in keys]


def _missing(address: str) -> DatasetNotFoundError:
    return DatasetNotFoundError(f"there is nothing at {address!r}: correct the URL.")


def _unreadable(address: str, error: Exception) -> DatasetFormatError:
    return DatasetFormatError(
        f"{address!r} could not be read ({type(error).__name__}: {error!s:.120}): correct the URL, "
        "or try again."
    )
