"""Stopping rule of a search: it ends when more evaluations would not help.

The rule follows Ax's `ImprovementGlobalStoppingStrategy`: the improvement of the last `window`
batches, as a fraction of the hypervolume before them, is compared with a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_IMPROVEMENT = 1e-3
"""Relative growth of hypervolume below which a search stalls."""


@dataclass(frozen=True)
class HypervolumeStopping:
    """Stops a search if no device's hypervolume improves over a window of batches.

    Args:
        patience: batches without improvement that are tolerated.
        num_devices: devices of the search; each gets at least one batch in the window.
        min_improvement: relative growth of hypervolume over the window that counts.
    """

    patience: int
    num_devices: int = 1
    min_improvement: float = MIN_IMPROVEMENT

    @property
    def window(self) -> int:
        """Number of batches that are looked at."""
        return max(self.patience, self.num_devices)

    def should_stop(self, histories: Sequence[Sequence[float]]) -> bool:
        """Return whether the search has stalled.

        Args:
            histories: of each device, its hypervolume after every batch so far.
        """
        if any(len(history) <= self.window for history in histories):
            return False
        return all(
            history[-1] <= history[-1 - self.window] * (1.0 + self.min_improvement)
            for history in histories
        )

    def __str__(self) -> str:
        return f"Hypervolume grew by less than {self.min_improvement:.1%} in {self.window} batches"
