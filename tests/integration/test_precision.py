"""Precision as a dimension of a job: int8 and fp16 files are evaluated, measured and bundled as
what they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from inn_automl.core.errors import ImpossibleBudgetError, SpecError, UnknownNameError
from inn_automl.core.result import DeviceResult, JobResult
from inn_automl.data import Dataset, load_dataset
from inn_automl.export import extract_bundle, read_bundle
from inn_automl.export.fp16 import float32_counterpart
from inn_automl.export.verification import FP16_TOLERANCE
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.exporting import point_id
from inn_automl.pipeline.run import discretize_job, extend_job
from inn_automl.serving import ElasticModel
from inn_automl.tasks import Task
from tests.integration.conftest import (
    BUDGET,
    FinishedJob,
    RecordingProgress,
    job_spec,
    measure_by_size,
)

BOTH: dict[str, Any] = {"name": "both", "precisions": ["fp32", "int8"]}
GPU: dict[str, Any] = {"name": "gpu", "runtime": "onnxruntime-cuda", "precisions": ["fp32", "fp16"]}
FLOATS: dict[str, Any] = {"name": "floats"}
SEARCH = {"max_evaluations": 8, "batch_size": 4, "max_measurements": 14}
NUM_INITIAL_WIDTHS = 8
"""Of so many measurements."""

pytestmark = pytest.mark.usefixtures("untracked")


def spec_of(*devices: dict[str, Any]) -> Any:
    return job_spec(budget={**BUDGET, "devices": list(devices), "search": SEARCH})


class Recording(LocalBackend):
    """Remembers which points were evaluated on which split."""

    def __init__(self) -> None:
        super().__init__(cpus=1)
        self.evaluated: dict[str, list[dict[str, int]]] = {"validation": [], "test": []}

    def evaluate(
        self, trained: Any, task: Task, batch: Sequence[Any], *, split: str, **race: Any
    ) -> Any:
        self.evaluated[split] += [dict(point) for point in batch]
        return super().evaluate(trained, task, batch, split=split, **race)


@pytest.fixture(scope="module")
def backend() -> Recording:
    return Recording()


@pytest.fixture(scope="module")
def job(
    finished_job: FinishedJob, tmp_path_factory: pytest.TempPathFactory, backend: Recording
) -> FinishedJob:
    """An extension of the fp32 job, whose training and accuracies it takes over."""
    folder, progress = tmp_path_factory.mktemp("precision") / "out", RecordingProgress()
    spec = spec_of(BOTH, FLOATS)
    result = extend_job(
        spec,
        finished_job.folder,
        folder,
        backend=backend,
        measure=measure_by_size,
        progress=progress,
    )
    return FinishedJob(spec, folder, result, progress)


def correct_fraction(path: Path, dataset: Dataset, indices: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(
        float32_counterpart(path.read_bytes()), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(["logits"], {"input": dataset.x[indices].astype(np.float32)})
    return float(np.mean(logits.argmax(1) == dataset.y[indices]))


def test_a_device_with_a_choice_finds_both_and_another_floats_only(job: FinishedJob) -> None:
    both, floats = job.result.devices
    assert "int8" in {point.precision for point in both.front} <= {"fp32", "int8"}
    assert {point.precision for point in floats.front} == {"fp32"}
    assert all(
        point.id == point_id(point.widths, point.precision)
        for point in [*both.front, *floats.front]
    )
    assert (
        JobResult.model_validate(json.loads((job.folder / "result.json").read_text())) == job.result
    )


def test_accuracies_are_those_of_the_quantized_file(job: FinishedJob, tmp_path: Path) -> None:
    dataset = load_dataset("digits")
    point = next(point for point in job.result.devices[0].front if point.precision == "int8")
    config = extract_bundle(job.folder / point.bundle, tmp_path)
    path = tmp_path / "model.onnx"
    assert config.precision == "int8"
    found = point.metric_value + job.result.job["optimism"]
    assert correct_fraction(path, dataset, dataset.validation) == pytest.approx(found)
    assert correct_fraction(path, dataset, dataset.test) == pytest.approx(point.test_metric_value)
    assert (
        config.metric.validation == point.metric_value
        and config.metric.test == point.test_metric_value
    )
    assert any(
        tensor.data_type == onnx.TensorProto.INT8 for tensor in onnx.load(path).graph.initializer
    )
    assert point.size_bytes == path.stat().st_size == config.files["model.onnx"].size_bytes
    assert 0 < config.verification.max_difference <= config.verification.tolerance
    assert config.verification.agreement is not None and 0.9 < config.verification.agreement <= 1
    assert config.latency["both"].latency_ms.p50 == pytest.approx(
        path.stat().st_size / 1e6, rel=0.02
    )


def test_floats_say_so_and_agree_with_torch_alone(job: FinishedJob) -> None:
    config = read_bundle(job.folder / job.result.devices[1].front[0].bundle)
    assert (config.precision, config.verification.agreement) == ("fp32", None)


def test_each_point_is_evaluated_once_for_all_devices(job: FinishedJob, backend: Recording) -> None:
    lines = [
        json.loads(line)
        for line in (job.folder / "search/state/evaluations.jsonl").read_text().splitlines()
    ]
    points = [
        json.dumps(line["widths"], sort_keys=True) for line in lines if "metric_value" in line
    ]
    assert len(points) == len(set(points))
    paid = backend.evaluated["validation"]
    assert len(paid) <= SEARCH["max_evaluations"]
    assert {point["precision"] for point in paid} == {8, 32}
    # what the fp32 job knew cost nothing
    assert len(points) == len(paid) + lines[0]["inherited"] > len(paid)
    assert all("precision" not in point for point in backend.evaluated["test"])


def test_each_precision_has_its_own_measurements_and_size(job: FinishedJob) -> None:
    files = {
        path.name: json.loads(path.read_text())
        for path in (job.folder / "search").glob("profiling-*.json")
    }
    first = {name for name in files if not name.endswith(("-cached.json", "-iterations.json"))}
    assert first == {
        "profiling-both.json",
        "profiling-both+int8.json",
        "profiling-floats.json",
    }
    whole, small = files["profiling-both.json"], files["profiling-both+int8.json"]
    assert [one["widths"] for one in whole] == [one["widths"] for one in small]
    assert len(small) == NUM_INITIAL_WIDTHS
    assert sum(one["size_bytes"] for one in small) < sum(one["size_bytes"] for one in whole)
    assert any("int8 takes" in note for note in job.progress.notes)


def test_a_precision_that_is_nowhere_faster_is_not_searched(
    finished_job: FinishedJob, tmp_path: Path
) -> None:
    def slow_int8(models: Any, device: Any, **options: Any) -> Any:
        found = measure_by_size(models, device, **options)
        if not all(".int8." in path.name for path in models.values()):
            return found
        floats = {
            name: path.with_name(path.name.replace(".int8", "")) for name, path in models.items()
        }
        return measure_by_size(floats, device, **options)

    backend, progress = Recording(), RecordingProgress()
    result = extend_job(
        spec_of(BOTH),
        finished_job.folder,
        tmp_path / "out",
        backend=backend,
        measure=slow_int8,
        progress=progress,
    )
    assert any("is not searched" in note for note in progress.notes)
    assert {point["precision"] for point in backend.evaluated["validation"]} == {32}
    assert {point.precision for point in result.devices[0].front} == {"fp32"}


def test_an_interrupted_search_goes_on_with_both(
    job: FinishedJob, finished_job: FinishedJob, tmp_path: Path
) -> None:
    class Stopping(Recording):
        num_calls = 0

        def evaluate(self, *arguments: Any, **options: Any) -> Any:
            self.num_calls += 1
            if self.num_calls == 2:
                raise KeyboardInterrupt
            return super().evaluate(*arguments, **options)

    folder, spec = tmp_path / "out", spec_of(BOTH, FLOATS)
    with pytest.raises(KeyboardInterrupt):
        extend_job(spec, finished_job.folder, folder, backend=Stopping(), measure=measure_by_size)
    result = extend_job(
        spec, finished_job.folder, folder, backend=LocalBackend(cpus=1), measure=measure_by_size
    )
    assert _shown(result.devices) == _shown(job.result.devices)


def test_discretize_makes_an_int8_bundle(finished_job: FinishedJob, tmp_path: Path) -> None:
    dataset = load_dataset("digits")
    path = discretize_job(finished_job.folder, 0.75, tmp_path, precision="int8")
    config = extract_bundle(path, tmp_path / "bundle")
    assert config.precision == "int8" and path.name == f"{point_id(config.widths, 'int8')}.zip"
    assert correct_fraction(tmp_path / "bundle/model.onnx", dataset, dataset.test) == pytest.approx(
        config.metric.test
    )
    assert config.verification.agreement is not None
    with pytest.raises(UnknownNameError, match="did you mean 'int8'"):
        discretize_job(finished_job.folder, 0.75, tmp_path, precision="int4")


def test_fp16_is_a_choice_where_a_gpu_runs_the_models(
    finished_job: FinishedJob, tmp_path: Path
) -> None:
    folder, dataset = tmp_path / "out", load_dataset("digits")
    result = extend_job(
        spec_of(GPU),
        finished_job.folder,
        folder,
        backend=LocalBackend(cpus=1),
        measure=measure_by_size,
    )
    (device,) = result.devices
    assert "fp16" in {point.precision for point in device.front} <= {"fp32", "fp16"}
    point = next(point for point in device.front if point.precision == "fp16")
    config = extract_bundle(folder / point.bundle, tmp_path / "bundle")
    path = tmp_path / "bundle/model.onnx"
    assert (config.precision, config.verification.tolerance) == ("fp16", FP16_TOLERANCE)
    assert 1e-5 < config.verification.max_difference < 0.01
    assert config.verification.agreement is not None and config.verification.agreement > 0.99
    found = point.metric_value + result.job["optimism"]
    assert correct_fraction(path, dataset, dataset.validation) == pytest.approx(found)
    assert correct_fraction(path, dataset, dataset.test) == pytest.approx(point.test_metric_value)
    model, samples = (
        ElasticModel(folder / "elastic.zip", device="gpu"),
        np.asarray(dataset.x[:8], np.float32),
    )
    model.set_point(point.id)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(
        model.run(samples), session.run(["logits"], {"input": samples})[0]
    )


def test_a_bound_that_only_int8_keeps_is_not_impossible(
    finished_job: FinishedJob, tmp_path: Path
) -> None:
    floats = json.loads((finished_job.folder / "search/profiling-one-thread.json").read_text())
    bound = round(0.9 * min(one["size_bytes"] for one in floats))
    with pytest.raises(ImpossibleBudgetError, match="max_size_bytes"):
        extend_job(
            spec_of({**FLOATS, "max_size_bytes": bound}),
            finished_job.folder,
            tmp_path / "floats",
            backend=LocalBackend(cpus=1),
            measure=measure_by_size,
        )
    result = extend_job(
        spec_of({**BOTH, "max_size_bytes": bound}),
        finished_job.folder,
        tmp_path / "both",
        backend=LocalBackend(cpus=1),
        measure=measure_by_size,
    )
    (device,) = result.devices
    best = next(point for point in device.front if point.id == device.recommended)
    assert best.precision == "int8" and best.size_bytes <= bound


def test_unknown_precisions_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown precision 'int88' in .*mean 'int8'"):
        spec_of({"name": "a", "precisions": ["int88"]})
    with pytest.raises(SpecError, match="at least 1"):
        spec_of({"name": "a", "precisions": []})


def test_a_runtime_that_cannot_run_it_is_named() -> None:
    with pytest.raises(SpecError, match=r"devices.*openvino.*fp32.*not 'int8'"):
        spec_of({**BOTH, "runtime": "openvino"})
    with pytest.raises(
        SpecError,
        match="'onnxruntime-cpu' computes in fp32 and int8, not 'fp16', which onnxruntime-cuda and "
        "onnxruntime-",
    ):
        spec_of({**GPU, "runtime": "onnxruntime-cpu"})


def test_an_elastic_model_holds_both(job: FinishedJob, tmp_path: Path) -> None:
    samples = np.asarray(load_dataset("digits").x[:8], np.float32)
    model = ElasticModel(job.folder / "elastic.zip", device="both")
    precisions = {point.id: point.precision for point in model.points}
    assert set(precisions.values()) == {"fp32", "int8"}
    point = next(point for point in job.result.devices[0].front if point.precision == "int8")
    assert precisions[point.id] == "int8"
    extract_bundle(job.folder / point.bundle, tmp_path)
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    model.set_point(point.id)
    np.testing.assert_array_equal(
        model.run(samples), session.run(["logits"], {"input": samples})[0]
    )


def _shown(devices: Sequence[DeviceResult]) -> list[Any]:
    return [
        [(point.id, point.metric_value, point.test_metric_value) for point in device.front]
        for device in devices
    ]
