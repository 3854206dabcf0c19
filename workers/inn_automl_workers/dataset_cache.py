"""Datasets on this machine: fetched from the storage once, verified by their hash each time."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from inn_automl.core.errors import CorruptFileError
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.storage import sha256_of

MAX_BYTES = 50 * 2**30
"""Size of the cache beyond which the least recently used datasets are deleted."""


def fetch_dataset(url: str, sha256: str, filename: str, cache: Path) -> Path:
    """The path of a dataset's file, relative to `cache`: the same on every machine, as it is part
    of the job's spec.

    A file of a local storage is not copied, only linked.

    Raises:
        StorageError: it is missing or cannot be read.
        CorruptFileError: it is not what was uploaded.
    """
    parent, _, name = url.rpartition("/")
    store, relative = ObjectStore(parent), Path(sha256) / filename
    target = cache / relative
    if not _is_whole(target, sha256):
        target.parent.mkdir(parents=True, exist_ok=True)
        local = store.local_path(name)
        if local is None:
            store.get(name, target, sha256=sha256)
        else:
            if not _is_whole(local, sha256):
                raise CorruptFileError(
                    f"the dataset {url!r} is not what was uploaded: upload it again."
                )
            _link(target, local)
    os.utime(target.parent)
    _prune(cache, keep=target.parent)
    return relative


def _link(target: Path, local: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.symlink_to(local)
    os.replace(temporary, target)


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False


def _prune(cache: Path, *, keep: Path) -> None:
    """Whoever reads a file that is deleted here reads on."""
    with suppress(OSError):
        folders = sorted(
            (f for f in cache.iterdir() if f.is_dir()),
            key=lambda f: f.stat().st_mtime,
            reverse=True,
        )
        total = 0
        for folder in folders:
            total += sum(file.lstat().st_size for file in folder.iterdir())
            if total > MAX_BYTES and folder != keep:
                shutil.rmtree(folder, ignore_errors=True)
