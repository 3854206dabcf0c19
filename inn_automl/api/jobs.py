"""Jobs: what is submitted, and what is seen of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from inn_automl.api.base import Name, UtcTime, WireModel
from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import DeviceResult
from inn_automl.core.spec import DeviceBudget, FineTuneSeconds, JobSpec, Precision, SearchBudget
from inn_automl.core.stage import Stage


class JobState(StrEnum):
    QUEUED = "queued"
    TRAINING = "training"
    SEARCHING = "searching"
    MEASURING = "measuring"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


RUNNING = (JobState.TRAINING, JobState.SEARCHING, JobState.MEASURING, JobState.PUBLISHING)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobKind(StrEnum):
    """Kind of a job: a whole one; an extension of a finished job to other devices or bounds; the
    discretization of one more model.
    """

    SEARCH = "search"
    EXTEND = "extend"
    DISCRETIZE = "discretize"


Priority = Annotated[int, Field(ge=-100, le=100)]


class SubmitJob(WireModel):
    """A job to run: the spec of `inn-automl run`, whose dataset is a built-in one or a dataset of
    the project.
    """

    spec: JobSpec
    name: Name | None = None
    priority: Priority = 0
    """Rank in the project's queue: the job with the higher priority starts first."""


class ExtendJob(WireModel):
    """Other devices or bounds for a finished job's network: searched and measured, not trained."""

    devices: Annotated[tuple[DeviceBudget, ...], Field(min_length=1)]
    search: SearchBudget = SearchBudget()
    name: Name | None = None
    priority: Priority = 0


class DiscretizeJob(WireModel):
    """One more model of a finished job's network: `widths` by group, or one `ratio` for all
    groups.
    """

    widths: dict[str, Annotated[int, Field(gt=0)]] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    precision: Precision = DEFAULT
    fine_tune_seconds: FineTuneSeconds = 0.0
    """Seconds for which the model is fine-tuned on the training samples before it is exported."""

    @model_validator(mode="after")
    def _one_of_both(self) -> DiscretizeJob:
        if (self.widths is None) == (self.ratio is None):
            raise ValueError("give either widths or ratio")
        return self


class JobProgress(WireModel):
    """Progress of the running stage."""

    stage: Stage
    """Finer than the state."""
    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    seconds_left: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Seconds until the stage ends; null while too little was done to say."""
    best: str | None = None
    detail: str | None = None


class JobCost(WireModel):
    """Resources that the job used so far, over all its attempts."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    """Seconds times processors (GPUs) that were held."""


class JobError(WireModel):
    """Reason why a job failed."""

    code: str
    detail: str
    """Names the error, the value and a hint."""


class Job(WireModel):
    id: str
    name: Name | None
    kind: JobKind
    parent_id: str | None
    """The finished job that this one extends or discretizes."""
    state: JobState
    priority: int
    spec: JobSpec
    widths: DiscretizeJob | None = None
    progress: JobProgress | None
    cost: JobCost
    error: JobError | None
    attempt: int
    """Number of times that the job was started."""
    max_attempts: int
    notes: list[str]
    mlflow_url: str | None = None
    """URL of the fronts in MLflow's UI; null before they are there."""
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None


class JobSummary(WireModel):
    """A job in a list."""

    id: str
    name: Name | None
    kind: JobKind
    parent_id: str | None
    state: JobState
    dataset: str
    devices: list[str]
    stage: Stage | None
    fraction: float
    created_at: UtcTime
    finished_at: UtcTime | None


class JobEvent(WireModel):
    """Something that happened to a job; the id orders them and is what `Last-Event-ID` takes."""

    id: int
    kind: Literal["state", "progress", "note", "error", "result"]
    data: dict[str, Any]
    at: UtcTime


class Fronts(WireModel):
    """All fronts of a job, as in its result.json."""

    job_id: str
    devices: list[DeviceResult]


class DeviceComparison(WireModel):
    """One device's fronts of two jobs against one reference point."""

    device: str
    reference: tuple[float, float]
    """Latency in milliseconds and metric value, in the metric of the fronts."""
    hypervolume: dict[str, float]
    """Hypervolume by job id."""
    better: str | None
    """Id of the job with the larger hypervolume; null where they are equal."""
    fronts: dict[str, DeviceResult]


class Comparison(WireModel):
    jobs: tuple[str, str]
    devices: list[DeviceComparison]
    """Devices that both jobs have, by name."""
    only_in: dict[str, list[str]]
    """Devices that one job has alone, by job id."""
