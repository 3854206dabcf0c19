"""The folder of a job on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from inn_automl.core.errors import BackendError
from inn_automl.core.locking import file_lock
from inn_automl.core.object_store import ObjectStore
from inn_automl_workers.mirror import Mirror


@contextmanager
def open_folder(
    url: str, name: str, *, pushed: bool, scratch: Path | None
) -> Iterator[tuple[Path, Mirror | None]]:
    """Gives the folder at the URL: itself if it is on this machine, else a copy.

    Args:
        name: begins the name of the copy.
        pushed: whether changes of the copy are taken to the URL.
        scratch: where the copy is made; None: the system's temporary folder.

    Raises:
        StorageError: the storage is away, or there is no room here.
    """
    store = ObjectStore(url)
    local = store.local_path("job.json")
    if local is not None:
        if pushed:
            local.parent.mkdir(parents=True, exist_ok=True)
        yield local.parent, None
        return
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=scratch) as copy:
        mirror = Mirror(store, Path(copy))
        mirror.pull()
        with mirror.pushing() if pushed else nullcontext():
            yield Path(copy), mirror


def wait_for_folder(folder: Path, timeout_s: float) -> None:
    """Waits until no other process works in the folder: a run that lost its lease needs a moment.

    Raises:
        BackendError: the other process does not end.
        StorageError: the folder cannot be written.
    """
    try:
        with file_lock(folder / ".lock", timeout_s=timeout_s):
            pass
    except TimeoutError:
        raise BackendError(
            f"an earlier run still works in {str(folder)!r} after {timeout_s:g} s: stop it."
        ) from None
