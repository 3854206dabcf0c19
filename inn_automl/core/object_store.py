"""Files under an fsspec URL: a local folder or an S3 bucket. Written whole or not at all, and
verified when read.

Paths are relative to the store, with slashes. A local file is written under a temporary name and
moved; on S3 an object appears when its upload is complete, never a part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from inn_automl.core.errors import StorageError
from inn_automl.core.storage import receive, replacing

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """A file as it was written."""

    path: str
    sha256: str
    size_bytes: int


class ObjectStore:
    """The files under one URL.

    Args:
        url: `file:///folder`, a plain path, or `s3://bucket/prefix`; S3's keys and endpoint come
            from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL).

    Raises:
        StorageError: the scheme is unknown or its package is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._fs, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"the storage {url!r} cannot be used ({error}): give file:///FOLDER or "
                f"s3://BUCKET/PREFIX."
            ) from error
        self._root = str(root).rstrip("/")

    @property
    def is_local(self) -> bool:
        return isinstance(self._fs, LocalFileSystem)

    def local_path(self, path: str) -> Path | None:
        """Path of a file on this machine's disk; None for a store that is not a folder."""
        return Path(self._full(path)) if self.is_local else None

    def child(self, path: str) -> ObjectStore:
        """The store of a folder in this one."""
        _check(path)
        return ObjectStore(f"{self.url}/{path}")

    @contextmanager
    def writing(self, path: str) -> Iterator[Writer]:
        """A file to be written piece by piece; it appears when the block ends, and not at all if
        it raises.

        Raises:
            StorageError: no room, no permission, or the store is away.
        """
        full = self._full(path)
        try:
            if self.is_local:
                with replacing(Path(full)) as temporary, open(temporary, "wb") as file:
                    yield Writer(file)
            else:
                file = self._fs.open(full, "wb")
                try:
                    yield Writer(file)
                except BaseException:
                    file.discard()
                    file.closed = True  # or its destructor would flush a buffer that is gone
                    raise
                file.close()
        except OSError as error:
            raise StorageError(
                f"{path!r} could not be written to {self.url!r} ({_reason(error)})."
            ) from error

    def put(self, path: str, source: Path) -> StoredFile:
        """Copies a file of this machine into the store.

        Raises:
            StorageError: it could not be read or written.
        """
        with open(source, "rb") as file, self.writing(path) as writer:
            while chunk := file.read(CHUNK_BYTES):
                writer.write(chunk)
        return StoredFile(path, writer.sha256, writer.size_bytes)

    def get(self, path: str, target: Path, *, sha256: str | None = None) -> None:
        """Copies a file of the store to this machine.

        Raises:
            StorageError: it is missing or could not be copied.
            CorruptFileError: it does not hash to `sha256`; nothing is left at `target`.
        """
        receive(target, self.chunks(path), sha256=sha256, what=f"{path!r} from {self.url!r}")

    def chunks(self, path: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of a file from `start` up to `end` (exclusive; None for all), piece by piece.

        Raises:
            StorageError: it is missing or cannot be read.
        """
        try:
            with self._fs.open(self._full(path), "rb") as file:
                file.seek(start)
                left = None if end is None else end - start
                while left is None or left > 0:
                    chunk = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
                    if not chunk:
                        break
                    left = None if left is None else left - len(chunk)
                    yield chunk
        except OSError as error:
            raise StorageError(
                f"{path!r} cannot be read from {self.url!r} ({_reason(error)})."
            ) from error

    def read(self, path: str) -> bytes:
        """All bytes of a small file.

        Raises:
            StorageError: it is missing or cannot be read.
        """
        return b"".join(self.chunks(path))

    def write(self, path: str, data: bytes) -> StoredFile:
        """Writes a small file.

        Raises:
            StorageError: it could not be written.
        """
        with self.writing(path) as writer:
            writer.write(data)
        return StoredFile(path, writer.sha256, writer.size_bytes)

    def exists(self, path: str) -> bool:
        return self._run(lambda: bool(self._fs.exists(self._full(path))))

    def size_bytes(self, path: str) -> int:
        """Raises:
        StorageError: it is missing.
        """
        return self._run(lambda: int(self._fs.size(self._full(path))))

    def files(self, folder: str = "") -> dict[str, int]:
        """Sizes in bytes of all files under a folder, by path relative to the store; temporary
        ones left out.
        """
        root = self._full(folder) if folder else self._root
        found = self._run(lambda: self._fs.find(root, detail=True) if self._fs.exists(root) else {})
        cut = len(self._root) + 1
        return {
            name[cut:]: int(info["size"])
            for name, info in found.items()
            if PurePosixPath(name).suffix != ".part"
        }

    def delete(self, path: str) -> None:
        """Deletes a file or a folder with all that is in it; what is not there is as good as
        deleted.
        """
        full = self._full(path)
        self._run(lambda: self._fs.rm(full, recursive=True) if self._fs.exists(full) else None)

    def _full(self, path: str) -> str:
        _check(path)
        return f"{self._root}/{path}"

    def _run(self, action: Any) -> Any:
        try:
            self._fs.invalidate_cache()
            return action()
        except OSError as error:
            raise StorageError(f"the storage {self.url!r} failed ({_reason(error)}).") from error


class Writer:
    """Counts and hashes what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _check(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise StorageError(
            f"{path!r} is no path inside of the storage: give a relative one without '..'."
        )


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
