"""A thread that renews a lease while its holder works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from inn_automl.core.errors import InnAutomlError

logger = logging.getLogger(__name__)


class Heartbeats:
    """Sends heartbeats from a thread of its own while the block runs.

    Args:
        beat: sends one heartbeat.
        every_s: seconds between two.
        ends_on: errors of `beat` that end the heartbeats; `check` raises them. Others are logged.
    """

    def __init__(
        self,
        beat: Callable[[], None],
        every_s: float,
        *,
        ends_on: tuple[type[InnAutomlError], ...] = (),
    ) -> None:
        self._beat, self._every_s, self._ends_on = beat, every_s, ends_on
        self._wake, self._ended = threading.Event(), threading.Event()
        self._error: InnAutomlError | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def __enter__(self) -> Heartbeats:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float = 0.0) -> None:
        """Ends the heartbeats, and waits up to `timeout_s` for one that is being sent."""
        self._ended.set()
        self._wake.set()
        if timeout_s and self._thread.is_alive():
            self._thread.join(timeout=timeout_s)

    def wake(self) -> None:
        """Has the next heartbeat sent at once."""
        self._wake.set()

    def check(self) -> None:
        """Raises the error that ended the heartbeats, if one did."""
        if self._error is not None:
            raise self._error

    def pause(self, seconds: float) -> None:
        """Waits, but no longer than the heartbeats last; then as `check`."""
        self._ended.wait(seconds)
        self.check()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(self._every_s)
            self._wake.clear()
            if self._ended.is_set():
                return
            try:
                self._beat()
            except InnAutomlError as error:
                if isinstance(error, self._ends_on):
                    self._error = error
                    self._ended.set()
                else:
                    logger.warning("heartbeat not heard: %s", error)
