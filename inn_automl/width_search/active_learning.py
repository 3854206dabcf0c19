"""Active learning of the cost model: which widths to measure while a search goes on.

A cost model that was fitted on widths from all over the space predicts the front, a thin part of
it, no better than the rest. So the search measures what it has found in a few iterations and
refits the cost model. Once it ends, iterations go on until every point of the front is measured.
The widths to measure are those of largest expected effect on the front (see
`choice.rank_finalists`); B. Settles, "Active Learning Literature Survey", 2009, has the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from inn_automl.width_search.choice import rank_finalists
from inn_automl.width_search.pareto import Floats, Indices
from inn_automl.width_search.space import Widths

MIN_ITERATION_SIZE, MAX_ITERATION_SIZE = 4, 8
"""A measurement costs a start of processes, however few widths it is of: unless the search ends,
fewer are put off. More at once would be chosen by predictions that the first of them correct."""
EARLY_FRACTION = 0.6
"""Share of the measurements that may be made before the search ends; a front that is still moving
wastes them.
"""


class ActiveLearning(Protocol):
    """Measures widths on one device and has its predictions follow."""

    @property
    def margin(self) -> float:
        """Share by which a prediction may be off: half of the held-out widths are off by less."""
        ...

    @property
    def num_left(self) -> int:
        """Widths that may still be measured."""
        ...

    @property
    def num_made(self) -> int:
        """Widths that were measured while the search went on."""
        ...

    @property
    def last_batch(self) -> int:
        """Number of finished batches at the latest iteration; -1 before the first."""
        ...

    def is_measured(self, widths: Widths) -> bool:
        """Return whether latency at these widths is measured."""
        ...

    def measure(self, batch: int, widths: Sequence[Widths]) -> None:
        """Measures widths together after a number of finished batches, keeps what was found, and
        refits.
        """
        ...


def iteration_size(
    active_learning: ActiveLearning, batch: int, done: float, *, is_last: bool
) -> int:
    """Computes how many widths to measure now.

    Args:
        batch: finished batches; there is one iteration after each at most, until the search ends.
        done: fraction of the search's evaluations that are made.
        is_last: whether the search would end now.
    """
    if is_last:
        return min(active_learning.num_left, MAX_ITERATION_SIZE)
    if active_learning.last_batch >= batch:
        return 0
    planned = (
        EARLY_FRACTION * (active_learning.num_made + active_learning.num_left) * min(done, 1.0)
    )
    num = min(int(planned) - active_learning.num_made, active_learning.num_left, MAX_ITERATION_SIZE)
    return num if num >= MIN_ITERATION_SIZE else 0


def choose_to_measure(
    latency_ms: Floats,
    metric_value: Floats,
    is_measured: Sequence[bool],
    num: int,
    *,
    margin: float,
    max_latency_ms: float | None,
) -> Indices:
    """Chooses widths to measure: evaluated ones that may be on the true front, those first that say
    most about the cost model.

    Args:
        latency_ms: (n,), measured where it was, else predicted.
        metric_value: (n,).
        is_measured: (n,).
        num: at most this many.
        margin: fraction by which predictions may be off.

    Returns:
        Indices.
    """
    ranked = rank_finalists(
        latency_ms, metric_value, relative_error=margin, max_latency_ms=max_latency_ms
    )
    return np.array([i for i in ranked if not is_measured[i]][:num], dtype=np.intp)
