"""The search of one device, with all evaluations as that device sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inn_automl.width_search.active_learning import (
    MIN_ITERATION_SIZE,
    choose_to_measure,
    iteration_size,
)
from inn_automl.width_search.evaluations import Evaluation
from inn_automl.width_search.outcome import SearchedWidths
from inn_automl.width_search.pareto import hypervolume_history, pareto_front
from inn_automl.width_search.study import WidthStudy


class DeviceView:
    """A study of one device, with predictions for all that was evaluated in the job.

    Args:
        study: of the device.

    Attributes:
        candidates: all evaluations, in their order, by the latest predictions.
        history: hypervolume of the feasible candidates after each finished batch, all by the
            latest predictions.
    """

    def __init__(self, study: WidthStudy) -> None:
        self.study = study
        self.candidates: list[SearchedWidths] = []
        self.history: list[float] = []
        self._batches: list[int] = []

    @property
    def name(self) -> str:
        """Name of the device."""
        return self.study.device.name

    @property
    def feasible(self) -> list[int]:
        """Indices of the candidates that are predicted to keep the bounds."""
        return [i for i, one in enumerate(self.candidates) if one.feasible]

    @property
    def front(self) -> tuple[int, ...]:
        """Indices of the feasible candidates that no other one dominates, fastest first."""
        feasible = self.feasible
        front = pareto_front(
            [self.candidates[i].prediction.latency_ms for i in feasible],
            [self.candidates[i].metric_value for i in feasible],
        )
        return tuple(feasible[i] for i in front)

    @property
    def best(self) -> tuple[float, float] | None:
        """Predicted latency in milliseconds and metric value of the best feasible candidate."""
        found = [self.candidates[i] for i in self.feasible]
        if not found:
            return None
        best = max(found, key=lambda one: (one.metric_value, -one.prediction.latency_ms))
        return best.prediction.latency_ms, best.metric_value

    def add(self, evaluations: Sequence[Evaluation]) -> None:
        """Tells the study what was evaluated, for whichever device."""
        for one in evaluations:
            self.study.tell(one.widths, one.metric_value)
        self._batches += [one.batch for one in evaluations]
        self.candidates += self._predicted([(one.widths, one.metric_value) for one in evaluations])

    def update_history(self, num_batches: int) -> None:
        """Computes the hypervolume after each of the finished batches."""
        found = [self.candidates[i] for i in self.feasible]
        self.history = hypervolume_history(
            [one.prediction.latency_ms for one in found],
            [one.metric_value for one in found],
            [self._batches[i] for i in self.feasible],
            num_batches,
            self.study.reference_point,
        )

    def measure(self, batch: int, done: float, *, is_last: bool) -> bool:
        """Runs an iteration of active learning if one is due; whether anything was measured.

        Args:
            batch: number of finished batches.
            done: fraction of the search's evaluations that were made.
            is_last: whether the search would end now.
        """
        learning = self.study.device.active_learning
        if learning is None:
            return False
        widths = self.to_measure(iteration_size(learning, batch, done, is_last=is_last))
        if not widths or (len(widths) < MIN_ITERATION_SIZE and not is_last):
            return False
        learning.measure(batch, widths)
        self.study.reopen()
        self.candidates = self._predicted([(c.widths, c.metric_value) for c in self.candidates])
        self.update_history(batch)
        return True

    def to_measure(self, num: int) -> list[dict[str, int]]:
        """Chooses at most `num` evaluated widths whose measurement is most informative."""
        device = self.study.device
        if device.active_learning is None or num < 1:
            return []
        found = [self.candidates[i] for i in self.feasible]
        chosen = choose_to_measure(
            np.array([one.prediction.latency_ms for one in found]),
            np.array([one.metric_value for one in found]),
            [device.active_learning.is_measured(one.widths) for one in found],
            num,
            margin=device.active_learning.margin,
            max_latency_ms=device.bounds.max_latency_ms,
        )
        return [found[i].widths for i in chosen]

    def measured_sentence(self) -> str:
        """Says how many widths of the front are measured; empty if none can be."""
        learning, front = self.study.device.active_learning, self.front
        if learning is None or not front:
            return ""
        num = sum(learning.is_measured(self.candidates[i].widths) for i in front)
        if num == len(front):
            return f" All {num} widths of its front are measured."
        limit = "" if learning.num_left else ": no more measurements are allowed"
        return f" {num} of the {len(front)} widths of its front are measured{limit}."

    def _predicted(self, known: Sequence[tuple[dict[str, int], float]]) -> list[SearchedWidths]:
        device = self.study.device
        predictions = device.predict([widths for widths, _ in known]) if known else []
        return [
            SearchedWidths(widths, metric_value, prediction, device.feasible(prediction))
            for (widths, metric_value), prediction in zip(known, predictions, strict=True)
        ]
