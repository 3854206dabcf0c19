"""A job on a vision transformer: whatever comes after the family takes it as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from safetensors.torch import load_file, save_file

from inn_automl.core.errors import MeasurementError
from inn_automl.core.result import JobResult
from inn_automl.core.storage import read_json
from inn_automl.data import load_dataset
from inn_automl.export import extract_bundle, read_bundle
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.run import run_job
from inn_automl.serving import ElasticModel
from inn_automl.training.trained import OUTCOME

from .conftest import RecordingProgress, job_spec, measure_by_size

BUDGET = {
    "devices": [{"name": "by-size", "precisions": ["fp32", "int8"]}],
    "training": {"max_minutes": 5, "max_epochs": 1, "trials": 1},
    "search": {"max_evaluations": 8, "batch_size": 4, "max_measurements": 10},
}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JobResult]:
    folder = tmp_path_factory.mktemp("vit") / "out"
    spec = job_spec(model="vit", budget=BUDGET)
    progress = RecordingProgress()
    result = run_job(
        spec, folder, backend=LocalBackend(cpus=1), measure=measure_by_size, progress=progress
    )
    return folder, result


def test_every_point_is_verified_and_served(job: tuple[Path, JobResult], tmp_path: Path) -> None:
    folder, result = job
    (device,) = result.devices
    assert {point.precision for point in device.front} <= {"fp32", "int8"} and device.front
    data = load_dataset("digits", seed=0)
    samples = np.asarray(data.x[data.test[:16]], np.float32)
    elastic = ElasticModel(folder / result.job["elastic"], device=device.name)
    for point in device.front:
        config = read_bundle(folder / point.bundle)
        assert config.verification.max_difference <= config.verification.tolerance
        assert any(name.endswith("attention.query") for name in config.widths)
        extract_bundle(folder / point.bundle, tmp_path / point.id)
        session = onnxruntime.InferenceSession(
            tmp_path / point.id / "model.onnx", providers=["CPUExecutionProvider"]
        )
        (expected,) = session.run(None, {"input": samples})
        elastic.set_point(point.id)
        np.testing.assert_allclose(
            elastic.run(samples), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )


def test_its_trained_weights_are_taken_without_training(
    job: tuple[Path, JobResult], tmp_path: Path
) -> None:
    """Up to the first measurement: what comes then, the job above has done."""

    def measure(*_: Any, **__: Any) -> Any:
        raise MeasurementError("no device here.")

    (saved,) = job[0].glob("training/*/network/control_points.safetensors")
    path = tmp_path / "weights.safetensors"
    tensors = {
        name.removeprefix("module."): t
        for name, t in load_file(saved).items()
        if name.startswith("module.")
    }
    save_file(tensors, path)
    budget = {**BUDGET, "devices": [{"name": "by-size"}]}
    with pytest.raises(MeasurementError, match="no device here"):
        run_job(
            job_spec(model="vit", budget=budget, weights=str(path)),
            tmp_path / "out",
            backend=LocalBackend(cpus=1),
            measure=measure,
            progress=RecordingProgress(),
        )
    (outcome,) = tmp_path.glob(f"out/training/*/{OUTCOME}")
    trained = read_json(outcome)
    assert (trained["stopped"], trained["architecture"]["depth"]) == ("pretrained", 3)
