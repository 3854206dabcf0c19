"""A job in its folder: what every stage reads, and where it leaves what it found.

DIR/job.json                 the spec that the folder belongs to, and the seconds that each stage
took DIR/training/trial-N/        plan, checkpoint, saved network of each training candidate
DIR/search/                  measured widths of the initial design, evaluations, Optuna's journal
DIR/measuring/DEVICE.json    measured finalists DIR/tuning/                  weights of tuned front
points, and what they gained DIR/models/  DIR/bundles/    ONNX files and bundles of the fronts
DIR/inn.zip                  the trained network DIR/elastic.zip              all front points in
one file, for `ElasticModel` DIR/published.json           where MLflow has the job DIR/result.json
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inn_automl.core.errors import InnAutomlError, JobDirectoryError, StorageError
from inn_automl.core.locking import file_lock
from inn_automl.core.progress import Progress
from inn_automl.core.spec import DeviceBudget, JobSpec
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_atomically, write_json
from inn_automl.data import Dataset
from inn_automl.latency.benchmark import Measure
from inn_automl.latency.store import MeasurementCache
from inn_automl.pipeline.backend import Backend

LOCK_FILE = ".lock"
JOB_FILE, FORMAT = "job.json", 2
"""What a folder belongs to, and the format of folders: a folder of another one is refused."""


@dataclass(frozen=True)
class Tracking:
    """How a job is published to MLflow."""

    project: str = "inn_automl"
    """Name of the experiment."""
    job_id: str | None = None
    """What the job is recognized by when it is published again; None: an id that its folder keeps."""
    job_name: str | None = None
    """What people call it; None: dataset and family."""
    patience_s: float = 0.0
    """For how long a store that cannot be used is tried again."""


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
    """A job that runs now: what every stage reads."""

    spec: JobSpec
    folder: Path
    dataset: Dataset
    family: str
    backend: Backend
    measure: Measure
    progress: Progress
    tracking: Tracking = Tracking()
    measurement_cache: MeasurementCache | None = None
    """Measurements of earlier jobs on the same devices; None: every job measures again."""
    parent: Path | None = None
    """Folder of the finished job that this one extends: it is only read."""
    unavailable_devices: UnavailableDevices = field(default_factory=UnavailableDevices)

    @contextmanager
    def tolerate_failure(
        self, device: DeviceBudget, *faults: type[InnAutomlError]
    ) -> Iterator[None]:
        """Goes on without a device where one of `faults` shows that it cannot be measured.

        Raises:
            InnAutomlError: it was the last device that was left.
        """
        try:
            yield
        except faults as error:
            self.unavailable_devices.add(device.name, str(error))
            if len(self.unavailable_devices) == len(self.spec.budget.devices):
                raise
            self.progress.note(
                f"{device.name} could not be measured: {error} The job goes on without it; once "
                f"that is mended, extend "
                "the job by this device."
            )
        else:
            self.unavailable_devices.remove(device.name)

    def reuse_from_parent(self, *names: str) -> bool:
        """Copies files (relative to the folder) that are missing here from the parent, the last
        one last.

        Returns:
            Whether the last one is here.
        """
        if (
            not (self.folder / names[-1]).exists()
            and self.parent
            and (self.parent / names[-1]).exists()
        ):
            for name in names:
                write_atomically(self.folder / name, (self.parent / name).read_bytes())
        return (self.folder / names[-1]).exists()

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Shows the stage and adds the time it takes to `job.json`, however it ends."""
        self.progress.stage(name)
        started_at = time.monotonic()
        try:
            yield
        finally:
            record = read_json(self.folder / JOB_FILE)
            seconds = record.setdefault("seconds", {})
            seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - started_at, 3)
            write_json(self.folder / JOB_FILE, record)

    def seconds(self) -> dict[str, float]:
        """Seconds that each stage took so far, over all starts of the job."""
        found: dict[str, float] = read_json(self.folder / JOB_FILE).get("seconds", {})
        return found


def read_job_file(folder: Path) -> dict[str, Any]:
    """Reads `job.json`.

    Raises:
        JobDirectoryError: the folder has another format than this release's.
        CorruptFileError: it is not JSON.
    """
    record = read_json(folder / JOB_FILE)
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise JobDirectoryError(
            f"the job in {str(folder)!r} has format {found!r}, and this release reads format "
            f"{FORMAT}: give another --out, or use the release that wrote it."
        )
    return dict(record)


@contextmanager
def claim_folder(folder: Path, spec: JobSpec, facts: dict[str, Any]) -> Iterator[None]:
    """Makes the folder this job's own while it runs.

    Args:
        facts: what else the result depends on (the dataset's fingerprint): must be as they were
            when a job is resumed.

    Raises:
        JobDirectoryError: the folder cannot be used, belongs to another job, or this job is
            running already.
    """
    if (folder / JOB_FILE).exists():
        read_job_file(folder)  # a folder of another format stays untouched
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / LOCK_FILE))
        except TimeoutError:
            raise JobDirectoryError(
                f"another process is running the job in {str(folder)!r}: wait for it, or give "
                f"another --out."
            ) from None
        except StorageError as error:
            raise JobDirectoryError(
                f"the folder {str(folder)!r} cannot be written: give --out a folder that can."
            ) from error
        _check_same_job(folder, spec, facts)
        yield


def _check_same_job(folder: Path, spec: JobSpec, facts: dict[str, Any]) -> None:
    mine = {"format": FORMAT, "spec": spec.model_dump(mode="json"), **facts}
    path = folder / JOB_FILE
    if not path.exists():
        own = {"error.log", "log.txt"}  # of a run that failed before it had claimed the folder
        others = [
            e.name for e in folder.iterdir() if not e.name.startswith(".") and e.name not in own
        ]
        if others:
            raise JobDirectoryError(
                f"the folder {str(folder)!r} holds other files ({sorted(others)[0]}): give --out a "
                f"new or empty one."
            )
        write_json(path, mine)
        return
    theirs = read_job_file(folder)
    for key, value in mine.items():
        if theirs.get(key) != value:
            what = _first_difference(key, theirs.get(key), value)
            raise JobDirectoryError(
                f"the folder {str(folder)!r} belongs to another job ({what}): give another --out, "
                "or the same dataset, budget, model and seed to resume."
            )


def _first_difference(key: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in now:
            if before.get(name) != now[name]:
                return _first_difference(f"{key}.{name}", before.get(name), now[name])
    return f"{key.removeprefix('spec.')} was {before!r:.80}, is {now!r:.80}"
