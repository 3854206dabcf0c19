"""Points of the final fronts are tuned before they are published, and any widths of a finished job
on demand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inn_automl.core.errors import InputError
from inn_automl.data import load_dataset
from inn_automl.evaluation.onnx_precision import evaluate_file
from inn_automl.export import read_bundle
from inn_automl.export.archive import unpack
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.exporting import point_id
from inn_automl.pipeline.run import discretize_job, extend_job
from inn_automl.tasks import Task
from inn_automl.training.fine_tuning import FineTuningOutcome
from inn_automl.training.fine_tuning_request import FineTuningRequest
from inn_automl.training.trained import Trained

from .conftest import BUDGET, FinishedJob, RecordingProgress, check_order, job_spec, measure_by_size

SECONDS = 600.0
"""Far more than the few steps of these tests take on any machine."""
SEARCH = {
    "max_evaluations": 4,
    "batch_size": 4,
    "max_measurements": 14,
    "fine_tune_seconds": SECONDS,
}

pytestmark = pytest.mark.usefixtures("untracked")


class FineTuningOnly(LocalBackend):
    """Remembers what was tuned, and can be interrupted when so many models were."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        super().__init__(cpus=1)
        self._at = interrupted_at
        self.tuned: list[str] = []

    def fine_tune(
        self,
        trained: Trained,
        task: Task,
        requests: Sequence[FineTuningRequest],
        *,
        on_progress: Callable[[float], None],
    ) -> list[FineTuningOutcome]:
        open_requests = [request for request in requests if not request.is_done]
        for request in open_requests[: self._at]:
            super().fine_tune(trained, task, [request], on_progress=on_progress)
            self.tuned.append(request.path.name)
        if self._at is not None:
            raise KeyboardInterrupt
        return super().fine_tune(trained, task, requests, on_progress=on_progress)


@pytest.fixture(scope="module", autouse=True)
def _few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "inn_automl.training.fine_tuning._FineTuningRun.fitting_steps", lambda run, end_s: 60
        )
        yield


@pytest.fixture(scope="module")
def job(finished_job: FinishedJob, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An extension that tunes, interrupted after the first model."""
    folder, progress = tmp_path_factory.mktemp("tuning") / "out", RecordingProgress()
    device = {"name": "board"}
    spec = job_spec(budget={**BUDGET, "devices": [device], "search": SEARCH})
    first, second = FineTuningOnly(interrupted_at=1), FineTuningOnly()
    with pytest.raises(KeyboardInterrupt):
        extend_job(spec, finished_job.folder, folder, backend=first, measure=measure_by_size)
    kept = {path.name: path.read_bytes() for path in (folder / "fine_tuning").iterdir()}
    result = extend_job(
        spec,
        finished_job.folder,
        folder,
        backend=second,
        measure=measure_by_size,
        progress=progress,
    )
    return {
        "spec": spec,
        "folder": folder,
        "result": result,
        "kept": kept,
        "notes": progress.notes,
        "stages": progress.stages,
        "first": first.tuned,
    }


def test_tuned_points_say_what_they_gained(job: dict[str, Any]) -> None:
    (device,) = job["result"].devices
    tuned = [point for point in device.front if point.fine_tuning]
    assert tuned, "two epochs of training leave much to gain"
    for point in device.front:
        seconds = SECONDS if point.fine_tuning else 0.0
        assert point.id == point_id(point.widths, point.precision, fine_tune_seconds=seconds)
        config = read_bundle(job["folder"] / point.bundle)
        assert (config.id, config.fine_tuning, config.metric.validation) == (
            point.id,
            point.fine_tuning,
            point.metric_value,
        )
    for point in tuned:
        assert point.fine_tuning.loss_after < point.fine_tuning.loss_before
        assert point.fine_tuning.steps > 0 and point.fine_tuning.seconds > 0
    assert device.recommended in {point.id for point in device.front}
    check_order(device.front)
    assert job["stages"][-3:] == ["measuring", "fine_tuning", "publishing"]
    (note,) = [one for one in job["notes"] if "lowered the validation loss" in one]
    assert "percentage points" in note


def test_the_bundle_holds_the_tuned_model(job: dict[str, Any], tmp_path: Path) -> None:
    dataset, (device,) = load_dataset("digits"), job["result"].devices
    optimism = job["result"].job["optimism"]
    for point in device.front:
        found_by_choice = point.metric_value + optimism
        (tmp_path / "model.onnx").write_bytes(
            unpack((job["folder"] / point.bundle).read_bytes())["model.onnx"]
        )
        for split, told in (("validation", found_by_choice), ("test", point.test_metric_value)):
            found = evaluate_file(tmp_path / "model.onnx", Task.from_dataset(dataset), split)
            # A tie between logits may fall either way in another batch.
            assert found.value == pytest.approx(told, abs=1.5 / found.num_samples)


def test_the_latency_is_that_of_the_same_shapes(job: dict[str, Any]) -> None:
    measured = json.loads((job["folder"] / "measuring" / "board.json").read_text())["latency_ms"]
    (device,) = job["result"].devices
    for point in device.front:
        assert (
            point.latency_ms.model_dump(mode="json")
            == measured[point_id(point.widths, point.precision)]
        )


def test_a_resumed_job_does_not_tune_twice(job: dict[str, Any]) -> None:
    assert len(job["first"]) == 1
    assert {f"{job['first'][0]}.json"} <= job["kept"].keys()
    for name, content in job["kept"].items():
        assert (job["folder"] / "fine_tuning" / name).read_bytes() == content


def test_an_extension_takes_over_what_was_tuned(job: dict[str, Any], tmp_path: Path) -> None:
    backend = FineTuningOnly(interrupted_at=0)
    device = {"name": "board", "max_latency_ms": 100.0}
    spec = job_spec(budget={**BUDGET, "devices": [device], "search": SEARCH})
    with pytest.raises(KeyboardInterrupt):
        extend_job(spec, job["folder"], tmp_path / "out", backend=backend, measure=measure_by_size)
    names = {path.name for path in (tmp_path / "out" / "fine_tuning").iterdir()}
    assert names and names <= {path.name for path in (job["folder"] / "fine_tuning").iterdir()}


def test_any_widths_are_tuned_on_demand(finished_job: FinishedJob, tmp_path: Path) -> None:
    plain = read_bundle(discretize_job(finished_job.folder, 0.25, tmp_path))
    path = discretize_job(finished_job.folder, 0.25, tmp_path, fine_tune_seconds=SECONDS)
    tuned = read_bundle(path)
    assert path == tmp_path / f"{point_id(plain.widths, fine_tune_seconds=SECONDS)}.zip"
    assert tuned.fine_tuning
    # The optimism of choosing is taken off models that were chosen alone.
    optimism = finished_job.result.job["optimism"]
    chosen = {point.id for device in finished_job.result.devices for point in device.front}
    assert tuned.fine_tuning.metric_value_before == pytest.approx(
        plain.metric.validation + (optimism if plain.id in chosen else 0.0)
    )
    assert tuned.files["weights.safetensors"] != plain.files["weights.safetensors"]
    same = {"widths", "params", "macs", "classes", "build", "preprocessing"}
    assert tuned.model_dump(include=same) == plain.model_dump(include=same)
    for seconds in (-1.0, 3601.0, float("nan")):
        with pytest.raises(InputError, match="more than 0, at most 3600 s"):
            discretize_job(finished_job.folder, 0.25, tmp_path, fine_tune_seconds=seconds)


def test_nothing_is_tuned_unless_it_is_asked_for(finished_job: FinishedJob) -> None:
    assert "fine_tuning" not in finished_job.progress.stages
    assert all(
        point.fine_tuning is None
        for device in finished_job.result.devices
        for point in device.front
    )
    assert not (finished_job.folder / "fine_tuning").exists()
