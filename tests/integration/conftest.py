"""A small real job, run once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from inn_automl.core.progress import SilentProgress
from inn_automl.core.result import FrontPoint, JobResult
from inn_automl.core.spec import DeviceBudget, JobSpec, parse
from inn_automl.latency.benchmark import LatencyMeasurement, measure
from inn_automl.latency.config import THOROUGH, BenchmarkConfig
from inn_automl.latency.measurement import read_measurements
from inn_automl.pipeline import publishing
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.run import run_job
from inn_automl.pipeline.tracking import track

BUDGET = {
    "devices": [
        {"name": "one-thread", "threads": 1, "max_latency_ms": 50.0},
        {"name": "small", "threads": 1, "max_params": 20_000, "granularity": 8},
    ],
    "training": {"max_minutes": 5, "max_epochs": 2, "trials": 2},
    "search": {"max_evaluations": 14, "batch_size": 4, "max_measurements": 14},
}


def job_spec(**changes: object) -> JobSpec:
    return parse(
        JobSpec,
        {"dataset": "digits", "model": "mlp", "budget": BUDGET, **changes},
        where="the test's job",
    )


def check_order(front: Sequence[FrontPoint]) -> None:
    """Metric values grow along a front, but for ties."""
    for position, point in enumerate(front):
        for slower in front[position + 1 :]:
            assert slower.metric_value > point.metric_value or slower.id in point.ties


class RecordingProgress(SilentProgress):
    """Remembers what a job said."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.fractions: list[float] = []
        self.notes: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def update(
        self, fraction: float, *, best: str | None = None, detail: str | None = None
    ) -> None:
        self.fractions.append(fraction)

    def note(self, message: str) -> None:
        self.notes.append(message)


def measure_quickly(
    models: Mapping[str, Path],
    device: DeviceBudget,
    *,
    config: BenchmarkConfig = THOROUGH,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, LatencyMeasurement]:
    """Few real samples: for tests to which their quality does not matter."""
    few = BenchmarkConfig(
        min_processes=2,
        max_processes=2,
        num_blocks=4,
        min_s=0.1,
        max_s=10.0,
        max_repeated=0,
        num_memory_runs=0,
    )
    return measure(models, device, config=few, on_progress=on_progress)


def measure_by_size(
    models: Mapping[str, Path],
    device: DeviceBudget,
    *,
    config: BenchmarkConfig = THOROUGH,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, LatencyMeasurement]:
    """A machine without noise: a microsecond for each thousand bytes of the file."""
    values = {
        name: {
            "samples_ms": [
                [[path.stat().st_size / 1e6 * drift] * 4] * 3 for drift in (0.99, 1.0, 1.01)
            ],
            "diagnostic": "",
            "environment": {"runtime": "by size", "reference_ms": 0.1},
            "memory": {"idle_bytes": 10**7, "peak_bytes": 10**7 + 10**6 + 3 * path.stat().st_size},
        }
        for name, path in models.items()
    }
    return read_measurements(values, device.percentile)


@dataclass(frozen=True)
class FinishedJob:
    spec: JobSpec
    folder: Path
    result: JobResult
    progress: RecordingProgress


@pytest.fixture(scope="session")
def finished_job(tmp_path_factory: pytest.TempPathFactory) -> FinishedJob:
    folder = tmp_path_factory.mktemp("job") / "out"
    spec, progress = job_spec(), RecordingProgress()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "track", track)  # in a module that is `untracked`, too
        result = run_job(
            spec, folder, backend=LocalBackend(cpus=1), measure=measure_quickly, progress=progress
        )
    return FinishedJob(spec, folder, result, progress)


@pytest.fixture(scope="module")
def untracked() -> Iterator[None]:
    """Jobs of a module that MLflow is not told of: figures take seconds, and `finished_job` has
    them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "track", lambda *_: None)
        yield
