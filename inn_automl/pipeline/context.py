"""The context of a job: all that its stages read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from inn_automl.core.errors import InnAutomlError
from inn_automl.core.progress import Progress
from inn_automl.core.spec import DeviceBudget, JobSpec
from inn_automl.core.stage import Stage
from inn_automl.core.storage import reuse_files
from inn_automl.latency.benchmark import Measure
from inn_automl.latency.store import MeasurementCache
from inn_automl.models.initial_weights import InitialWeights
from inn_automl.pipeline.backend import Backend
from inn_automl.pipeline.folder import timed_stage
from inn_automl.pipeline.job_clock import JobClock
from inn_automl.tasks import Task


@dataclass(frozen=True)
class Tracking:
    """Settings of publishing a job to MLflow."""

    project: str = "inn_automl"
    """Name of the experiment."""
    job_id: str | None = None
    """Id that recognizes the job when it is published again; None: one that its folder keeps."""
    job_name: str | None = None
    """Name for people; None: dataset and family."""
    retry_deadline_s: float = 0.0
    """For how long a store that cannot be used is tried again."""
    first_pause_s: float = 1.0
    """Pause before the second try; each pause is twice as long as the one before."""
    longest_pause_s: float = 30.0


class UnavailableDevices:
    """The devices that a job goes on without, each with the reason."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._reasons

    def __len__(self) -> int:
        return len(self._reasons)

    def reason(self, name: str) -> str:
        """Why a device of this name cannot be measured."""
        return self._reasons[name]

    def add(self, name: str, reason: str) -> None:
        self._reasons[name] = reason

    def remove(self, name: str) -> None:
        """Counts on a device again; does nothing if it was never given up."""
        self._reasons.pop(name, None)


@dataclass(frozen=True)
class JobContext:
    """A running job, as every stage reads it.

    Attributes:
        folder: the job's folder; see `pipeline.folder`.
        task: the dataset with its objective and standardized splits.
        family: model family.
        backend: trains and evaluates.
        measure: measures latency.
    """

    spec: JobSpec
    folder: Path
    task: Task
    family: str
    backend: Backend
    measure: Measure
    progress: Progress
    tracking: Tracking = Tracking()
    measurement_cache: MeasurementCache | None = None
    """Measurements of earlier jobs on the same devices; None: every job measures again."""
    initial: InitialWeights | None = None
    """Weights that training starts from; None for fresh networks."""
    choices: tuple[str, ...] = ()
    """What was chosen for the user, with the reasons, as sentences."""
    parent: Path | None = None
    """Folder of the finished job that this one extends: it is only read."""
    unavailable_devices: UnavailableDevices = field(default_factory=UnavailableDevices)
    clock: JobClock = field(default_factory=JobClock)

    @contextmanager
    def tolerate_failure(
        self, device: DeviceBudget, *errors: type[InnAutomlError]
    ) -> Iterator[None]:
        """Goes on without a device if one of `errors` shows that it cannot be measured.

        Raises:
            InnAutomlError: it was the last device that was left.
        """
        try:
            yield
        except errors as error:
            self.unavailable_devices.add(device.name, str(error))
            if len(self.unavailable_devices) == len(self.spec.budget.devices):
                raise
            self.progress.note(
                f"{device.name} could not be measured: {error} The job goes on without it; once "
                "that is mended, extend the job by this device."
            )
        else:
            self.unavailable_devices.remove(device.name)

    def reuse_from_parent(self, *names: str) -> bool:
        """Copies files (relative to the folder) that are missing here from the parent, the last
        one last.

        Returns:
            Whether the last one is here.
        """
        return reuse_files(self.parent, self.folder, names)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Shows the stage, and counts the seconds that it takes."""
        self.progress.stage(stage)
        with timed_stage(self.folder, stage):
            yield
