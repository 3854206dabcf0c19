"""The search of one device, with all evaluations as that device sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inn_automl.width_search.active_learning import (
    MIN_ITERATION_SIZE,
    choose_to_measure,
    iteration_size,
)
from inn_automl.width_search.evaluated import Evaluated
from inn_automl.width_search.evaluations import Evaluation
from inn_automl.width_search.outcome import SearchedWidths
from inn_automl.width_search.pareto import Floats, hypervolume_history, pareto_front, ranked
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
            self._ranked([self.candidates[i] for i in feasible]),
        )
        return tuple(feasible[i] for i in front)

    @property
    def best(self) -> tuple[float, float] | None:
        """Predicted latency in milliseconds and metric value of the best feasible candidate."""
        found = [self.candidates[i] for i in self.feasible]
        if not found:
            return None
        best = max(found, key=lambda one: (one.metric_value, -one.loss, -one.prediction.latency_ms))
        return best.prediction.latency_ms, best.metric_value

    def add(self, evaluations: Sequence[Evaluation]) -> None:
        """Tells the study what was evaluated, for whichever device."""
        for one in evaluations:
            self.study.tell(one.widths, one.metric_value)
        self._batches += [one.batch for one in evaluations]
        self.candidates += self._predicted([(one.widths, one.evaluated) for one in evaluations])

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

    def num_to_measure(self, batch: int, done: float, *, is_last: bool) -> int:
        """How many widths an iteration of active learning is to measure now.

        Args:
            batch: number of finished batches.
            done: fraction of the search's evaluations that were made.
            is_last: whether the search would end now.
        """
        learning = self.study.device.active_learning
        return 0 if learning is None else iteration_size(learning, batch, done, is_last=is_last)

    def measure(self, batch: int, num: int, *, is_last: bool) -> int:
        """Runs an iteration of active learning, and returns how many widths it measured.

        Args:
            batch: number of finished batches.
            num: widths to measure at most.
            is_last: whether the search would end now.
        """
        learning = self.study.device.active_learning
        if learning is None:
            return 0
        widths = self.to_measure(num)
        if not widths or (len(widths) < MIN_ITERATION_SIZE and not is_last):
            return 0
        learning.measure(batch, widths)
        self.study.reopen()
        self.candidates = self._predicted([(c.widths, c.evaluated) for c in self.candidates])
        self.update_history(batch)
        return len(widths)

    def to_measure(self, num: int) -> list[dict[str, int]]:
        """Chooses at most `num` evaluated widths whose measurement is most informative."""
        device = self.study.device
        if device.active_learning is None or num < 1:
            return []
        found = [self.candidates[i] for i in self.feasible]
        chosen = choose_to_measure(
            np.array([one.prediction.latency_ms for one in found]),
            self._ranked(found),
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

    def rival(self, latency_ms: float) -> Evaluated | None:
        """The best evaluated candidate that is no slower; None if there is none."""
        found = [
            one
            for one in (self.candidates[i] for i in self.feasible)
            if one.prediction.latency_ms <= latency_ms
            and one.evaluated.samples is not None
            and not one.evaluated.is_partial
        ]
        return max((one.evaluated for one in found), key=_rank, default=None)

    def _ranked(self, found: Sequence[SearchedWidths]) -> Floats:
        return ranked([one.metric_value for one in found], [one.loss for one in found])

    def _predicted(self, known: Sequence[tuple[dict[str, int], Evaluated]]) -> list[SearchedWidths]:
        device = self.study.device
        predictions = device.predict([widths for widths, _ in known]) if known else []
        return [
            SearchedWidths(widths, evaluated, prediction, device.feasible(prediction))
            for (widths, evaluated), prediction in zip(known, predictions, strict=True)
        ]


def _rank(evaluated: Evaluated) -> tuple[float, float]:
    return evaluated.metric_value, -evaluated.loss
