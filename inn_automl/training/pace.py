"""How far a training has come by the clock, so that its schedule ends with its time, however fast
the machine turns out to be.
"""

from __future__ import annotations

import time

from inn_automl.training.distributed import broadcast_value


class Pace:
    """The share of a training's time that has passed.

    Args:
        deadline_s: `time.monotonic()` at which the time is over, validation included.
        spent_s: seconds that earlier processes trained, before this one.
    """

    def __init__(self, deadline_s: float, spent_s: float = 0.0) -> None:
        self._deadline_s, self._spent_s = deadline_s, spent_s
        self._started_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds that all processes have trained, one after the other."""
        return self._spent_s + time.monotonic() - self._started_at

    def progress(self, reserved_s: float) -> float:
        """The share that has passed, from 0 to 1, where it is over; the same in all processes that
        train together.

        Args:
            reserved_s: seconds before the deadline that are kept for the last validation.
        """
        now = time.monotonic()
        done_s = self._spent_s + now - self._started_at
        left_s = self._deadline_s - reserved_s - now
        return broadcast_value(done_s / (done_s + left_s) if left_s > 0 else 1.0)
