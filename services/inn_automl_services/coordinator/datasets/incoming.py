"""Receives uploads: a folder for each, hashed while written, deleted if its process dies."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from inn_automl.core.errors import DatasetError, StorageError, TooLargeError
from inn_automl.core.locking import file_lock
from inn_automl.core.object_store import ObjectStore
from inn_automl_services.coordinator.settings import Settings

_PREFIX = "incoming-"


def incoming_folder(settings: Settings, store: ObjectStore) -> Path:
    """Folder that uploads are written to: on the disk of a local store, so that a checked upload is
    moved, not copied.
    """
    return (
        store.local_path("incoming")
        or (settings.scratch or Path(tempfile.gettempdir())) / "inn-automl-incoming"
    )


class Incoming:
    """A file that is being received."""

    def __init__(self, folder: Path, filename: str, *, limit_bytes: int) -> None:
        self.path, self._limit = folder / filename, limit_bytes
        self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Raises:
        TooLargeError: more bytes than the limit.
        StorageError: the disk is full.
        """
        self.size_bytes += len(chunk)
        if self.size_bytes > self._limit:
            raise TooLargeError(
                f"the dataset is larger than the limit of {self._limit:,} bytes: use fewer samples."
            )
        try:
            left = memoryview(chunk)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise StorageError(
                f"the upload could not be written ({error.strerror}): try again later."
            ) from error
        self._digest.update(chunk)

    def finish(self, sha256: str | None) -> str:
        """Closes the file; returns its hash.

        Raises:
            DatasetError: it is not the expected one.
        """
        os.fsync(self._file.fileno())
        self._file.close()
        found = self._digest.hexdigest()
        if sha256 is not None and found != sha256:
            raise DatasetError(
                f"the {self.size_bytes:,} bytes received hash to {found}, not {sha256}: send the "
                f"file again."
            )
        return found

    def close(self) -> None:
        self._file.close()


@contextmanager
def receiving(root: Path, filename: str, *, limit_bytes: int) -> Iterator[Incoming]:
    """A file in a folder of its own, which is deleted at the end.

    Raises:
        StorageError: the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_locked_folder(root))
        except OSError as error:
            raise StorageError(
                f"uploads cannot be written ({error.strerror or error}): try again later."
            ) from error
        incoming = Incoming(folder, filename, limit_bytes=limit_bytes)
        stack.callback(incoming.close)
        yield incoming


@contextmanager
def _locked_folder(root: Path) -> Iterator[Path]:
    """A new folder, locked while the block runs and deleted afterwards."""
    with ExitStack() as stack:
        # Nobody cleans between the making of the folder and its lock.
        with file_lock(root / ".lock", timeout_s=None):
            _clean(root)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(file_lock(folder / ".lock"))
        yield folder


def clean_abandoned(root: Path) -> int:
    """Deletes the uploads of processes that are gone, and returns how many: a lock ends with its
    process.
    """
    with file_lock(root / ".lock", timeout_s=None):
        return _clean(root)


def _clean(root: Path) -> int:
    num_deleted = 0
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(TimeoutError, StorageError), file_lock(folder / ".lock"):
            shutil.rmtree(folder, ignore_errors=True)
            num_deleted += 1
    return num_deleted
