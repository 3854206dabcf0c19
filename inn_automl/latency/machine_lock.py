"""One measurement at a time on this machine: two at once would time each other."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from inn_automl.core.locking import file_lock

logger = logging.getLogger(__name__)

LOCK_NAME = "inn-automl-measuring.lock"
_POLL_S = 0.25


@contextmanager
def machine_lock(on_wait: Callable[[], None], *, folder: Path | None = None) -> Iterator[None]:
    """Holds the lock of this machine; waits until no other agent measures here.

    The lock ends with its process, however that ends.

    Args:
        on_wait: called now and then while another one measures; what it raises ends the waiting.
        folder: of the lock file; None for the system's temporary one.

    Raises:
        StorageError: the lock file cannot be opened.
    """
    path = (folder or Path(tempfile.gettempdir())) / LOCK_NAME
    is_waiting = False
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(file_lock(path, for_all_users=True))
                break
            except TimeoutError:
                if not is_waiting:
                    logger.info("another agent measures on this machine: waiting until it is done")
                is_waiting = True
                on_wait()
                time.sleep(_POLL_S)
        yield
