"""The folder of a cache: its place, its size, and who uses what of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from inn_automl.core.errors import SpecError, StorageError
from inn_automl.core.home import CACHE_DIR_VARIABLE

CACHE_MAX_BYTES_VARIABLE = "INN_AUTOML_CACHE_MAX_BYTES"
FORMAT = 1
"""Of everything in the cache: another number makes other keys."""
SHARE_OF_DISK = 0.8
"""Bound on the cache where the user gives none: a share of what is free and what it holds."""
_IN_USE = "in-use"


def key_of(identity: Mapping[str, Any]) -> str:
    """The name of the folder for what `identity`, ready for JSON, determines."""
    text = json.dumps({"format": FORMAT, **identity}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npy"


class Lease:
    """Keeps a folder of the cache from being deleted while it lives, or its process does."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _IN_USE
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        weakref.finalize(self, os.close, self._file)
        # A file system without locks keeps nothing from being deleted, and serves all the same.
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def holds(self) -> bool:
        """Whether the folder was not deleted before this lease was taken."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except OSError:
            return False


_leases: weakref.WeakValueDictionary[Path, Lease] = weakref.WeakValueDictionary()
_leases_lock = threading.Lock()


def lease(folder: Path) -> Lease | None:
    """The process's lease on a folder; None where the folder cannot be written to."""
    with _leases_lock:
        found = _leases.get(folder)
        if found is None or not found.holds():
            try:
                found = Lease(folder)
            except OSError:
                return None
            _leases[folder] = found
        return found


_kept: set[Lease] = set()


def keep_folder(folder: Path) -> None:
    """Marks a folder as used, and keeps it from being deleted for as long as this process lives."""
    touch(folder)
    if (found := lease(folder)) is not None:
        _kept.add(found)


def make_room(root: Path, num_bytes: int, *, keep: Path, what: str) -> None:
    """Deletes the least recently used folders until `num_bytes` more fit.

    Args:
        root: of the cache.
        keep: a folder that stays, though nobody may use it yet.
        what: the dataset, for messages.

    Raises:
        StorageError: they do not fit, even so.
        SpecError: the bound in the environment is no number.
    """
    others = {folder: _size(folder) for folder in _by_use(root) if folder != keep}
    held, total = _size(keep), sum(others.values())
    free = _free_bytes(root)
    bound = _bound(total + held + free)
    missing = max(total + num_bytes - bound, num_bytes - held - free)
    for folder, size in others.items():
        if missing <= 0:
            return
        if _delete_unused(folder):
            missing -= size
    if missing > 0:
        raise StorageError(
            f"the decoded samples of {what} take {_gib(num_bytes)}, but the cache {str(root)!r} "
            f"has room for {_gib(max(0, num_bytes - missing))}: set {CACHE_DIR_VARIABLE} (or "
            f"--cache-dir) to a folder on a larger disk, raise {CACHE_MAX_BYTES_VARIABLE} if it is "
            "set, or choose a smaller input size."
        )


def touch(folder: Path) -> None:
    """Marks a folder as used now."""
    with suppress(OSError):
        os.utime(folder)


def _by_use(root: Path) -> list[Path]:
    """The folders of a cache, the least recently used first."""
    found = []
    with suppress(OSError):
        for folder in root.iterdir():
            with suppress(OSError):
                if folder.is_dir():
                    found.append((folder.stat().st_mtime_ns, folder))
    return [folder for _, folder in sorted(found)]


def _delete_unused(folder: Path) -> bool:
    try:
        file = os.open(folder / _IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _size(folder: Path) -> int:
    total = 0
    with suppress(OSError):
        for item in os.scandir(folder):
            with suppress(OSError):
                total += item.stat(follow_symlinks=False).st_size
    return total


def _free_bytes(root: Path) -> int:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(root).free
    except OSError as error:
        raise StorageError(
            f"the cache {str(root)!r} cannot be made ({error.strerror or error}): set "
            f"{CACHE_DIR_VARIABLE} to a folder that can be written to."
        ) from error


def _bound(available_bytes: int) -> int:
    given = os.environ.get(CACHE_MAX_BYTES_VARIABLE)
    if not given:
        return int(SHARE_OF_DISK * available_bytes)
    try:
        bound = int(float(given))
    except (ValueError, OverflowError):
        bound = -1
    if bound < 0:
        raise SpecError(
            f"{CACHE_MAX_BYTES_VARIABLE} = {given!r} is no number of bytes: give one like "
            "50000000000."
        )
    return bound


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
