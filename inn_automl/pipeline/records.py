"""Records that the stages of a job hand on.

Each stage takes the record of the one before and returns its own:

plan -> PlannedTrials -> check -> PlannedTrials -> train -> TrainedTrials
     -> profile -> ProfiledDevices -> search -> SearchedDevices
     -> measure -> MeasuredDevices -> fine_tune -> MeasuredDevices -> publish -> JobResult
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inn_automl.core.precision import DEFAULT

if TYPE_CHECKING:
    from inn_automl.core.result import (
        Candidate,
        CostModelErrors,
        FineTuning,
        Granularity,
        LatencySummary,
        LayerTime,
    )
    from inn_automl.core.sample_scores import SampleScores
    from inn_automl.core.spec import DeviceBudget
    from inn_automl.latency.measurement import PeakMemory
    from inn_automl.pipeline.device_latency import DeviceLatency
    from inn_automl.pipeline.exporting import ExportedModel, ModelExporter
    from inn_automl.pipeline.memory import Predict
    from inn_automl.training.recipe import TrialSpec
    from inn_automl.training.trained import Trained


@dataclass(frozen=True)
class PlannedTrials:
    """The training candidates that compete."""

    trials: tuple[TrialSpec, ...]


@dataclass(frozen=True)
class TrainedTrials:
    """The trained candidates, best first; only the best one's network is sure to be there."""

    trials: tuple[Trained, ...]
    exporter: ModelExporter
    """Exports models of the best one's network."""

    @property
    def best(self) -> Trained:
        """The trial whose network the job searches."""
        return self.trials[0]


@dataclass(frozen=True)
class ProfiledDevice:
    """A device whose cost model is fitted."""

    latency: DeviceLatency
    predict: Predict
    """Costs of widths, with memory where the device bounds it."""

    @property
    def budget(self) -> DeviceBudget:
        """The device and its bounds."""
        return self.latency.budget


@dataclass(frozen=True)
class ProfiledDevices:
    """The devices of a job that could be profiled."""

    trained: TrainedTrials
    devices: tuple[ProfiledDevice, ...]


@dataclass(frozen=True)
class SearchedDevice:
    """A device after the search; latencies are predicted."""

    budget: DeviceBudget
    candidates: tuple[Candidate, ...]
    """All widths that were evaluated for any device, with this device's predicted latency."""
    feasible: tuple[bool, ...]
    """Whether each candidate is predicted to keep this device's bounds."""
    cost_model_errors: CostModelErrors
    reference_ms: float
    """Latency of the reference model while the cost model was fitted; 0 if it is not known."""
    num_measured: int
    granularity: Granularity | None
    hypervolume: tuple[float, ...]
    reference_point: tuple[float, float]
    stopped: str
    """Why the search ended, as a sentence."""
    samples: tuple[SampleScores | None, ...] = field(default=(), repr=False)
    """What the validation samples say of each candidate."""


@dataclass(frozen=True)
class SearchedDevices:
    """The devices of a job after the search."""

    trained: TrainedTrials
    devices: tuple[SearchedDevice, ...]
    optimism: float = 0.0
    """By how much validation flatters what was chosen by it; the candidates are without it."""
    evaluation_s: float = 0.0
    """Seconds that building and evaluating a candidate took."""


@dataclass(frozen=True)
class MeasuredModel:
    """An exported model as it was measured on one device."""

    exported: ExportedModel
    metric_value: float
    params: int
    macs: int
    latency_ms: LatencySummary
    memory: PeakMemory | None
    """None where the device does not tell."""
    fine_tuning: FineTuning | None = None
    """A fine-tuned model has an id of its own, and the latency of the one it was made from."""
    loss: float | None = None
    samples: SampleScores | None = field(default=None, repr=False)
    """What the validation samples say of it."""
    ties: tuple[str, ...] = ()
    """Ids of the models on the same front that it cannot be told apart from."""

    @property
    def id(self) -> str:
        return self.exported.id

    @property
    def widths(self) -> dict[str, int]:
        return self.exported.widths

    @property
    def precision(self) -> str:
        return self.exported.precision

    @property
    def size_bytes(self) -> int:
        return self.exported.size_bytes

    @property
    def peak_memory_bytes(self) -> int | None:
        """Memory that the model adds to a process."""
        return None if self.memory is None else self.memory.added_bytes

    @property
    def process_memory_bytes(self) -> int | None:
        """Memory of the whole process."""
        return None if self.memory is None else self.memory.peak_bytes

    @property
    def is_as_searched(self) -> bool:
        """Whether the model is what a backend evaluates at its widths."""
        return self.precision == DEFAULT and self.fine_tuning is None

    def has_shapes_of(self, other: MeasuredModel) -> bool:
        """Whether both have the same widths and precision, and so the same latency."""
        return (self.widths, self.precision) == (other.widths, other.precision)


@dataclass(frozen=True)
class MeasuredDevice:
    """A device with its measured finalists, and the front that they make."""

    searched: SearchedDevice
    finalists: tuple[MeasuredModel, ...]
    front: tuple[MeasuredModel, ...]
    recommended: str | None
    recommendation: str
    environment: dict[str, Any] = field(repr=False)
    layers: tuple[LayerTime, ...] = ()
    """Layers of the recommended model."""

    @property
    def budget(self) -> DeviceBudget:
        """The device and its bounds."""
        return self.searched.budget

    @property
    def recommended_model(self) -> MeasuredModel | None:
        """The model to recommend; None if none keeps the bounds."""
        models = (*self.front, *self.finalists)
        return next((model for model in models if model.id == self.recommended), None)


@dataclass(frozen=True)
class MeasuredDevices:
    """The devices of a job that could be measured."""

    trained: TrainedTrials
    devices: tuple[MeasuredDevice, ...]
    optimism: float = 0.0
    """By how much validation flatters what was chosen by it; metric values are without it."""

    @property
    def front_points(self) -> dict[str, MeasuredModel]:
        """The models of all fronts by id; each once, as measured on the last of its devices."""
        return {model.id: model for device in self.devices for model in device.front}
