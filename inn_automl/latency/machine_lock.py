"""One measurement at a time on this machine: two at once would time each other."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

LOCK_NAME = "inn-automl-measuring.lock"
_POLL_S = 0.25


@contextmanager
def machine_lock(on_wait: Callable[[], None], *, folder: Path | None = None) -> Iterator[None]:
    """Waits until no other agent measures here; the lock goes with the process, however it ends.

    Args:
        on_wait: called now and then while another one measures; what it raises ends the waiting.
        folder: of the lock file; None for the system's temporary one.
    """
    file = _open((folder or Path(tempfile.gettempdir())) / LOCK_NAME)
    try:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    logger.info("another agent measures on this machine: waiting until it is done")
                    told = True
                on_wait()
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    # Reading is enough to lock, and lets agents of several users share the file.
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        return file
