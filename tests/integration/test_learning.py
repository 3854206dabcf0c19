"""A job whose network has learned nothing ends before anything is searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inn_automl.cli.endings import FAILED, ending_of
from inn_automl.core.errors import NotLearnedError, TrainingError
from inn_automl.core.spec import JobSpec, parse
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.run import run_job

from .conftest import BUDGET, RecordingProgress, measure_by_size


class NotToTrain(LocalBackend):
    def train(self, *arguments: object) -> list[object]:  # type: ignore[override]
        raise AssertionError("trained again")


def npz(path: Path, y: np.ndarray) -> Path:
    """Noise with labels or targets that have nothing to do with it."""
    x = np.random.default_rng(0).normal(size=(len(y), 1, 24)).astype(np.float32)
    np.savez(path, x=x, y=y)
    return path


def spec(dataset: Path) -> JobSpec:
    values = {"dataset": str(dataset), "model": "mlp", "budget": BUDGET}
    return parse(JobSpec, values, where="the job")


def test_shuffled_labels_stop_the_job_before_the_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data, progress = npz(tmp_path / "noise.npz", rng.integers(0, 3, 600)), RecordingProgress()
    arguments = {"measure": measure_by_size, "progress": progress}
    with pytest.raises(NotLearnedError, match="learned nothing that can be told") as first:
        run_job(spec(data), tmp_path / "out", backend=LocalBackend(), **arguments)
    assert isinstance(first.value, TrainingError)
    message = str(first.value)
    for word in ("accuracy", "95 % interval", "labels", "training.max_minutes", "--weights"):
        assert word in message
    assert "searching" not in progress.stages and "profiling" not in progress.stages
    assert (tmp_path / "out" / "training" / "done.json").exists()
    assert list((tmp_path / "out" / "training").glob("trial-*/network/*"))
    ending = ending_of(first.value, tmp_path / "error.log")
    assert (ending.exit_code, ending.code) == (FAILED, "not_learned")
    with pytest.raises(NotLearnedError) as again:
        run_job(spec(data), tmp_path / "out", backend=NotToTrain(), **arguments)
    assert str(again.value) == message


def test_targets_that_nothing_explains_stop_the_job(tmp_path: Path) -> None:
    y = np.random.default_rng(1).normal(size=(300, 1)).astype(np.float32)
    data = npz(tmp_path / "noise.npz", y)
    with pytest.raises(NotLearnedError, match=r"the mean explains is 0\.0000"):
        run_job(spec(data), tmp_path / "out", backend=LocalBackend(), measure=measure_by_size)


def test_a_large_class_is_pointed_out(tmp_path: Path) -> None:
    labels = (np.random.default_rng(1).random(400) < 0.2).astype(np.int64)
    data = npz(tmp_path / "noise.npz", labels)
    with pytest.raises(NotLearnedError, match="--metric balanced_accuracy"):
        run_job(spec(data), tmp_path / "out", backend=LocalBackend(), measure=measure_by_size)
