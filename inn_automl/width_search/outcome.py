"""Progress and outcome of a width search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inn_automl.width_search.device import Prediction
from inn_automl.width_search.evaluated import Evaluated
from inn_automl.width_search.evaluations import Evaluation

Stopped = Literal["budget", "time", "stalled", "exhausted", "interrupted"]


@dataclass(frozen=True)
class SearchProgress:
    """The state of a search after a batch or an iteration of measurements.

    Attributes:
        batch: number of the latest batch, counted from 0.
        device: the device whose search proposed it.
        num_evaluations: without those that were inherited from another search.
        num_measured: by device, widths that were measured in the search.
        hypervolume: by device, in metric values times milliseconds.
        best: by device, predicted latency in milliseconds and metric value of its best feasible
            candidate.
    """

    batch: int
    device: str
    num_evaluations: int
    max_evaluations: int
    hypervolume: dict[str, float]
    best: dict[str, tuple[float, float] | None]
    num_measured: dict[str, int]


@dataclass(frozen=True)
class SearchedWidths:
    """An evaluated candidate as one device sees it."""

    widths: dict[str, int]
    evaluated: Evaluated
    prediction: Prediction
    feasible: bool

    @property
    def metric_value(self) -> float:
        """On the validation split."""
        return self.evaluated.metric_value

    @property
    def loss(self) -> float:
        """Of a proper score on the validation split."""
        return self.evaluated.loss


@dataclass(frozen=True)
class DeviceOutcome:
    """The outcome of a search for one device.

    Attributes:
        candidates: everything evaluated in the job, in that order.
        front: indices of the feasible candidates that no other feasible one dominates, sorted by
            predicted latency.
        hypervolume: of the feasible candidates, after each batch of the job, all by the latest
            predictions.
        reference_point: latency in milliseconds and metric value that hypervolume is measured
            from.
        stopped: why no more was evaluated for this device.
        reason: the same as a sentence.
    """

    name: str
    candidates: tuple[SearchedWidths, ...]
    front: tuple[int, ...]
    hypervolume: tuple[float, ...]
    reference_point: tuple[float, float]
    stopped: Stopped
    reason: str


@dataclass(frozen=True)
class SearchOutcome:
    """The outcome of a search, and why it stopped."""

    evaluations: tuple[Evaluation, ...]
    devices: tuple[DeviceOutcome, ...]
    stopped: Stopped
    reason: str
