"""A job within `max_minutes`, and what it shows of classes, ties and optimism."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inn_automl.cli.summary import classes_table, front_table
from inn_automl.core.spec import JobSpec, parse
from inn_automl.export import read_bundle
from inn_automl.latency.config import THOROUGH
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.job_clock import AFTER_MEASURING, AFTER_SEARCHING, JobClock
from inn_automl.pipeline.measuring import MIN_EXPORT_S
from inn_automl.pipeline.run import run_job
from inn_automl.tasks import Score, Task
from inn_automl.training.trained import Trained

from .conftest import BUDGET, RecordingProgress, measure_by_size

SECONDS = 40.0


class Ticking(LocalBackend):
    """Counts evaluations, each of which takes a second of the job's time."""

    num_evaluated = 0

    def evaluate(
        self, trained: Trained, task: Task, batch: Sequence[Any], *, split: str, **race: Any
    ) -> list[Score]:
        self.num_evaluated += len(batch) if split == "validation" else 0
        return super().evaluate(trained, task, batch, split=split, **race)


def test_a_job_ends_in_its_time_with_a_whole_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, progress = Ticking(), RecordingProgress()

    def seconds_left(clock: JobClock, kept_fraction: float = 0.0) -> float:
        if kept_fraction == AFTER_SEARCHING:
            return SECONDS - backend.num_evaluated
        return THOROUGH.max_s + 7 * MIN_EXPORT_S if kept_fraction == AFTER_MEASURING else 1e6

    monkeypatch.setattr(JobClock, "seconds_left", seconds_left)
    budget = {
        **BUDGET,
        "devices": BUDGET["devices"][:1],  # type: ignore[index]
        "max_minutes": 1,
        "search": {"max_evaluations": 100_000, "patience": 100_000, "batch_size": 4},
    }
    values = {"dataset": "digits", "model": "mlp", "budget": budget, "metric": "balanced_accuracy"}
    spec = parse(JobSpec, values, where="the job")
    result = run_job(spec, tmp_path, backend=backend, measure=measure_by_size, progress=progress)
    assert 30 <= backend.num_evaluated <= 34
    device = result.devices[0]
    assert device.search_stopped.startswith("The time for the search is spent")
    assert any("max_minutes leaves no time for 100000" in note for note in progress.notes)
    assert any("finalists of each device are measured, not 20" in note for note in progress.notes)
    assert device.metric == result.job["metric"] == "balanced_accuracy"
    assert result.job["optimism"] >= 0
    ids = [point.id for point in device.front]
    for point in device.front:
        table = point.test_classes
        assert table is not None and [one.name for one in table.classes] == list("0123456789")
        recalls = [one.recall for one in table.classes]
        assert sum(recalls) / 10 == pytest.approx(point.test_metric_value)
        config = read_bundle(tmp_path / point.bundle)
        assert config.test_classes == table
        assert config.metric.validation == point.metric_value
        assert point.loss is not None and point.loss > 0
        assert set(point.ties) <= set(ids) - {point.id}
    assert ("ties" in front_table(device)) == any(point.ties for point in device.front)
    assert "on the test split, classes" in classes_table(device)
    assert (tmp_path / "figures" / device.name / "classes.png").stat().st_size > 1000


def test_the_time_of_a_job_counts_over_its_starts() -> None:
    clock = JobClock(10.0)
    assert clock.is_limited and clock.seconds_left() == pytest.approx(600, abs=5)
    assert clock.seconds_left(0.5) == pytest.approx(300, abs=5)
    clock.resume(500.0)
    assert clock.seconds_left() == pytest.approx(100, abs=5)
    assert clock.seconds_left(0.5) < 0
    assert JobClock().seconds_left(0.5) == float("inf")
