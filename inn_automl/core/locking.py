"""One lock on a file for processes that share a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from inn_automl.core.errors import StorageError


@contextmanager
def file_lock(
    path: Path, *, timeout_s: float | None = 0.0, for_all_users: bool = False
) -> Iterator[None]:
    """Holds the lock on `path`, a file of its own, during the block.

    The lock ends with its process, however that ends; the file stays.

    Args:
        timeout_s: how long to wait while somebody else holds it; None: forever.
        for_all_users: whether processes of other users may lock the file, too.

    Raises:
        TimeoutError: somebody else holds it.
        StorageError: the file cannot be written.
    """
    # filelock takes a negative timeout for waiting forever.
    mode = 0o666 if for_all_users else 0o644
    lock = FileLock(path, timeout=-1.0 if timeout_s is None else timeout_s, mode=mode)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise TimeoutError(f"another process holds {str(path)!r}.") from None
    except OSError as error:
        raise StorageError(
            f"{str(path)!r} cannot be locked ({error.strerror or error}): choose a folder that can "
            "be written to."
        ) from error
    try:
        yield
    finally:
        lock.release()
