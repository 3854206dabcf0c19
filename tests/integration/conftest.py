"""A small real job, run once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from inn_automl.backend import LocalBackend
from inn_automl.pipeline import run_job
from inn_automl.progress import SilentProgress
from inn_automl.result import JobResult
from inn_automl.spec import JobSpec, parse

BUDGET = {
    "devices": [
        {"name": "one-thread", "threads": 1, "max_latency_ms": 50.0},
        {"name": "small", "threads": 1, "max_params": 20_000, "granularity": 8},
    ],
    "training": {"max_minutes": 5, "max_epochs": 2, "trials": 2},
    "search": {"max_evaluations": 14, "batch_size": 4},
}


def job_spec(**changes: object) -> JobSpec:
    return parse(JobSpec, {"dataset": "digits", "family": "mlp", "budget": BUDGET, **changes}, where="the test's job")


class RecordingProgress(SilentProgress):
    """Remembers what a job said."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.fractions: list[float] = []
        self.notes: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def update(self, fraction: float, *, best: str | None = None, detail: str | None = None) -> None:
        self.fractions.append(fraction)

    def note(self, message: str) -> None:
        self.notes.append(message)


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
    result = run_job(spec, folder, backend=LocalBackend(cpus=1), progress=progress)
    return FinishedJob(spec, folder, result, progress)
