"""The main job from a dataset to bundles, in one process."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inn_automl.core.errors import (
    ImpossibleBudgetError,
    JobDirectoryError,
    MeasurementError,
    SpecError,
)
from inn_automl.core.result import FrontPoint, JobResult
from inn_automl.data import load_dataset
from inn_automl.export import read_bundle
from inn_automl.pipeline.backend import LocalBackend, Report, TrainingRequest
from inn_automl.pipeline.run import run_job
from inn_automl.tasks import Score, Task
from inn_automl.training.trained import Trained

from .conftest import (
    BUDGET,
    FinishedJob,
    RecordingProgress,
    check_order,
    job_spec,
    measure_by_size,
    measure_quickly,
)

SEARCH: dict[str, int] = BUDGET["search"]  # type: ignore[assignment]
ONE_TRIAL = {**BUDGET, "training": {"max_minutes": 5, "max_epochs": 2, "trials": 1}}
"""For what is refused: each architecture that is tried is exported."""


class Stopping(LocalBackend):
    """Interrupts the job at the n-th call of evaluate, or after the first epoch."""

    def __init__(self, *, at_evaluation: int | None = None, in_training: bool = False) -> None:
        super().__init__(cpus=1)
        self._at, self._in_training = at_evaluation, in_training
        self.num_evaluated = 0
        self.num_calls = 0

    def train(self, task: TrainingRequest, report: Report) -> list[Trained]:
        def stop(trial: int, epoch: Any) -> None:
            report(trial, epoch)
            if self._in_training:
                raise KeyboardInterrupt

        return super().train(task, stop)

    def evaluate(
        self, trained: Trained, task: Task, batch: Sequence[Any], *, split: str, **race: Any
    ) -> list[Score]:
        if self.num_calls == self._at:
            raise KeyboardInterrupt
        self.num_calls += 1
        self.num_evaluated += len(batch)
        return super().evaluate(trained, task, batch, split=split, **race)


def test_result_keeps_its_contract(finished_job: FinishedJob) -> None:
    written = json.loads((finished_job.folder / "result.json").read_text())
    assert JobResult.model_validate(written) == finished_job.result
    assert [d["name"] for d in written["devices"]] == ["one-thread", "small"]
    for device in written["devices"]:
        front = device["front"]
        latency = [p["latency_ms"]["p95"] for p in front]
        assert front
        assert latency == sorted(latency)
        check_order([FrontPoint.model_validate(point) for point in front])
        assert device["recommended"] in {p["id"] for p in front}
        assert device["hypervolume"] == sorted(device["hypervolume"])
        for point in front:
            low, high = point["test_metric_value_ci"]
            assert 0 <= low <= point["test_metric_value"] <= high <= 1
            assert (
                point["latency_ms"]["p50"]
                <= point["latency_ms"]["p95"]
                <= point["latency_ms"]["p99"]
            )
            assert (finished_job.folder / point["bundle"]).stat().st_size > point["size_bytes"]
    assert finished_job.progress.stages == [
        "checking",
        "training",
        "profiling",
        "searching",
        "measuring",
        "publishing",
    ]
    assert all(0 <= fraction <= 1 for fraction in finished_job.progress.fractions)


def test_bounds_and_granularity_hold_on_every_recommended_model(finished_job: FinishedJob) -> None:
    device = finished_job.result.devices[1]
    recommended = next(p for p in device.front if p.id == device.recommended)
    assert recommended.params <= 20_000
    full = {name: width for p in device.front for name, width in p.widths.items()}
    assert all(width % 8 == 0 or width == full[name] for name, width in recommended.widths.items())


def test_bundle_needs_no_code_of_ours(finished_job: FinishedJob, tmp_path: Path) -> None:
    device = finished_job.result.devices[0]
    point = next(p for p in device.front if p.id == device.recommended)
    dataset = load_dataset("digits")
    np.savez(
        tmp_path / "test.npz",
        x=dataset.x[dataset.test].astype(np.float32),
        y=dataset.y[dataset.test],
    )
    code = """
import io, json, sys, zipfile
import numpy as np, onnxruntime
with zipfile.ZipFile(sys.argv[1]) as bundle:
    config = json.loads(bundle.read("config.json"))
    session = onnxruntime.InferenceSession(bundle.read("model.onnx"))
test = np.load(sys.argv[2])
(logits,) = session.run(None, {session.get_inputs()[0].name: test["x"]})
found = [config["classes"][i] for i in logits.argmax(1)]
assert not any(name.startswith(("torch", "inn_automl")) for name in sys.modules)
print(np.mean([int(name) == label for name, label in zip(found, test["y"])]))
"""
    path = finished_job.folder / point.bundle
    found = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "test.npz")],
        capture_output=True,
        text=True,
        check=True,
    )
    # The very test split that the job reports on; a tie between logits may fall either way in
    # another batch.
    assert float(found.stdout) == pytest.approx(
        point.test_metric_value, abs=1.5 / len(dataset.test)
    )
    config = read_bundle(path)
    assert config.widths == point.widths
    assert config.latency["one-thread"].latency_ms == point.latency_ms


def test_finished_job_is_shown_again_without_any_work(finished_job: FinishedJob) -> None:
    backend = Stopping(at_evaluation=0, in_training=True)
    assert run_job(finished_job.spec, finished_job.folder, backend=backend) == finished_job.result


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"budget": {**BUDGET, "search": {**SEARCH, "max_evaluations": 15}}}, "max_evaluations"),
    ],
)
def test_folder_of_another_job_is_refused(
    finished_job: FinishedJob, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(JobDirectoryError, match=named):
        run_job(job_spec(**changes), finished_job.folder, backend=LocalBackend())


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(JobDirectoryError, match=r"thesis\.tex"):
        run_job(job_spec(), tmp_path, backend=LocalBackend())
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["thesis.tex"]


@pytest.mark.usefixtures("untracked")
def test_interrupted_job_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    spec, folders = job_spec(), (tmp_path / "whole", tmp_path / "resumed")
    uninterrupted = run_job(spec, folders[0], backend=LocalBackend(cpus=1), measure=measure_by_size)
    for backend in (Stopping(in_training=True), Stopping(at_evaluation=2)):
        with pytest.raises(KeyboardInterrupt):
            run_job(spec, folders[1], backend=backend, measure=measure_by_size)
    backend = Stopping()
    result = run_job(spec, folders[1], backend=backend, measure=measure_by_size)

    whole, resumed = (
        [(c["widths"], c["metric_value"]) for c in evaluations(folder)] for folder in folders
    )
    assert resumed == whole
    num_tested = len({p.id for d in result.devices for p in d.front})
    # two batches of four were there already
    assert backend.num_evaluated == len(whole) - 8 + num_tested
    for device, other in zip(result.devices, uninterrupted.devices, strict=True):
        assert [point.widths for point in device.front] == [point.widths for point in other.front]
        assert device.recommended == other.recommended


def evaluations(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "search" / "state" / "evaluations.jsonl").read_text().splitlines()
    return [value for line in lines if "metric_value" in (value := json.loads(line))]


@pytest.mark.parametrize(
    ("bound", "named"),
    [
        ({"max_latency_ms": 1e-6}, "ms at p95"),
        ({"max_params": 10}, "params"),
        ({"max_size_bytes": 100}, "bytes"),
    ],
)
def test_impossible_budget_is_refused_before_training(
    tmp_path: Path, bound: dict[str, float], named: str
) -> None:
    budget = {**ONE_TRIAL, "devices": [{"name": "tiny", **bound}]}
    backend = Stopping(in_training=True)
    with pytest.raises(ImpossibleBudgetError, match=named) as refusal:
        run_job(job_spec(budget=budget), tmp_path, backend=backend, measure=measure_quickly)
    assert "tiny" in str(refusal.value)
    assert not list(tmp_path.glob("training/trial-*"))


def test_impossible_memory_is_refused_before_training(tmp_path: Path) -> None:
    budget = {**ONE_TRIAL, "devices": [{"name": "tiny", "max_memory_bytes": 1000}]}
    backend = Stopping(in_training=True)
    with pytest.raises(
        ImpossibleBudgetError, match=r"'tiny'.*from 1,0\d\d,\d+ to [\d,]+ bytes of memory"
    ):
        run_job(job_spec(budget=budget), tmp_path, backend=backend, measure=measure_by_size)


def test_memory_that_a_device_does_not_tell_cannot_be_bounded(tmp_path: Path) -> None:
    def measure(*arguments: Any, **options: Any) -> Any:
        found = measure_by_size(*arguments, **options)
        return {name: dataclasses.replace(one, memory=None) for name, one in found.items()}

    budget = {**ONE_TRIAL, "devices": [{"name": "mute", "max_memory_bytes": 10**9}]}
    with pytest.raises(SpecError, match=r"'mute': max_memory_bytes.*leave the bound out"):
        run_job(
            job_spec(budget=budget), tmp_path, backend=Stopping(in_training=True), measure=measure
        )


@pytest.mark.usefixtures("untracked")
def test_memory_bound_is_kept_and_a_device_that_fails_is_gone_without(tmp_path: Path) -> None:
    """Of four devices one fails when it is profiled and one when its finalists are measured."""
    num_asked: dict[str, int] = {}

    def measure(models: Any, device: Any, **options: Any) -> Any:
        num_asked[device.name] = num_asked.get(device.name, 0) + 1
        if device.name == "never" or (device.name == "later" and num_asked["later"] > 1):
            raise MeasurementError(f"agent {device.name!r} was away.")
        return measure_by_size(models, device, **options)

    bound = 1_120_000
    devices = [
        {"name": "never"},
        {"name": "free"},
        {"name": "later"},
        {"name": "bound", "max_memory_bytes": bound},
    ]
    progress = RecordingProgress()
    few = {
        "devices": devices,
        "training": {"max_minutes": 5, "max_epochs": 1, "trials": 1},
        "search": {"max_evaluations": 6, "batch_size": 2, "max_measurements": 10},
    }
    result = run_job(
        job_spec(budget=few),
        tmp_path,
        backend=LocalBackend(cpus=1),
        measure=measure,
        progress=progress,
    )
    found = {device.name: device for device in result.devices}
    assert list(found) == ["never", "free", "later", "bound"]
    for name in ("never", "later"):
        lost = found[name]
        assert (lost.front, lost.recommended, lost.cost_model_errors) == ([], None, None)
        assert f"agent '{name}' was away." in lost.recommendation
        assert any(note.startswith(f"{name} could not be measured") for note in progress.notes)
    for point in (*found["free"].front, *found["bound"].front):
        assert point.peak_memory_bytes == 10**6 + 3 * point.size_bytes
        assert point.process_memory_bytes == 10**7 + point.peak_memory_bytes
    recommended = next(
        point for point in found["bound"].front if point.id == found["bound"].recommended
    )
    assert recommended.peak_memory_bytes is not None and recommended.peak_memory_bytes <= bound
    config = read_bundle(tmp_path / recommended.bundle)
    assert config.latency["bound"].peak_memory_bytes == recommended.peak_memory_bytes
    assert JobResult.model_validate(json.loads((tmp_path / "result.json").read_text())) == result


def test_a_job_fails_with_its_last_device(tmp_path: Path) -> None:
    def measure(models: Any, device: Any, **_: Any) -> Any:
        raise MeasurementError(f"agent {device.name!r} was away.")

    backend = Stopping(in_training=True)
    devices = [{"name": name, "max_latency_ms": 1.0} for name in "ab"]
    with pytest.raises(MeasurementError, match="agent 'b' was away"):
        run_job(
            job_spec(budget={**ONE_TRIAL, "devices": devices}),
            tmp_path,
            backend=backend,
            measure=measure,
        )


def test_family_that_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="signal"):
        run_job(job_spec(model="signal"), tmp_path / "out", backend=LocalBackend())
    assert not (tmp_path / "out").exists()
