"""A device as the search sees it: a search space, bounds, and predicted costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.precision import COORDINATE
from inn_automl.core.spec import DeviceBudget
from inn_automl.width_search.active_learning import ActiveLearning
from inn_automl.width_search.constraints import constraint_violations
from inn_automl.width_search.pareto import Floats
from inn_automl.width_search.space import Points, SearchSpace, Widths


@dataclass(frozen=True)
class Prediction:
    """Predicted costs of widths on a device.

    Attributes:
        latency_ms: in milliseconds, at the percentile of the device's bound.
        offered: whether the device offers the precision; other devices of a job may evaluate
            candidates in precisions that this one lacks.
        memory_bytes: None if no bound needs it.
    """

    latency_ms: float
    params: int
    macs: int
    size_bytes: int
    offered: bool = True
    memory_bytes: int | None = None


@dataclass(frozen=True)
class DeviceSearch:
    """A device as the search sees it.

    Args:
        name: unique in a job.
        space: the widths to search.
        bounds: of the models on this device.
        predict: returns the costs of each of the given widths.
        latency_margin: fraction by which predicted latency must stay below its bound, because the
            cost model errs.
        active_learning: measures widths during the search and then provides the margin; None if
            predictions are final.
    """

    name: str
    space: SearchSpace
    bounds: DeviceBudget
    predict: Callable[[Sequence[Widths]], Sequence[Prediction]]
    latency_margin: float = 0.0
    active_learning: ActiveLearning | None = None

    @property
    def margin(self) -> float:
        """Fraction by which predicted latency must currently stay below its bound."""
        return self.latency_margin if self.active_learning is None else self.active_learning.margin

    def constraint_violations(self, prediction: Prediction) -> dict[str, float]:
        """Computes the relative violation of each bound, with the margin on predicted latency.

        A precision that the device does not offer violates a constraint of its own; see also
        `constraints.constraint_violations`.
        """
        violations = constraint_violations(
            self.bounds,
            latency_ms=prediction.latency_ms * (1.0 + self.margin),
            params=prediction.params,
            macs=prediction.macs,
            size_bytes=prediction.size_bytes,
            memory_bytes=prediction.memory_bytes,
        )
        return violations if prediction.offered else {**violations, COORDINATE: 1.0}

    def feasible(self, prediction: Prediction) -> bool:
        """Return whether a prediction keeps every bound."""
        return all(violation <= 0 for violation in self.constraint_violations(prediction).values())

    def assess(self, points: Points) -> tuple[Floats, NDArray[np.bool_]]:
        """Predicts latency and feasibility.

        Args:
            points: (n, d).

        Returns:
            Latency in milliseconds (n,), and whether every bound holds (n,).
        """
        predictions = self.predict([self.space.from_key(point) for point in points.tolist()])
        return (
            np.array([prediction.latency_ms for prediction in predictions], dtype=np.float64),
            np.array([self.feasible(prediction) for prediction in predictions], dtype=bool),
        )
