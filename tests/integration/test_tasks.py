"""Jobs of other tasks than classification, from real data to bundles."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.metrics import r2_score

from inn_automl.core.errors import SpecError
from inn_automl.core.result import FrontPoint, JobResult
from inn_automl.core.spec import JobSpec, parse
from inn_automl.data import Dataset, load_dataset
from inn_automl.export import load_inn, read_bundle
from inn_automl.export.verification import FP16_TOLERANCE
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.run import discretize_job, run_job
from inn_automl.serving import ElasticModel

from .conftest import RecordingProgress, check_order, measure_by_size

TILE = 32


def spec(dataset: Path, family: str | None, **training: object) -> JobSpec:
    budget = {
        "devices": [{"name": "here", "max_latency_ms": 50.0, "precisions": ["fp32", "int8"]}],
        "training": {"max_minutes": 5, "trials": 1, **training},
        "search": {
            "max_evaluations": 6,
            "batch_size": 3,
            "max_measurements": 12,
            "fine_tune_seconds": 1.0,
        },
    }
    return parse(
        JobSpec,
        {"dataset": str(dataset), "model": family, "budget": budget},
        where="the test's job",
    )


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    """What a bundle's model makes of raw samples, with no code of ours."""
    with zipfile.ZipFile(path) as bundle:
        session = onnxruntime.InferenceSession(
            bundle.read("model.onnx"), providers=["CPUExecutionProvider"]
        )
    (found,) = session.run(["output"], {"input": x.astype(np.float32)})
    return found


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    errors = np.square(np.clip(found, 0, 255).astype(np.float64) - wanted).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(errors, 255**2 * 1e-10))))


def check_front(result: JobResult, metric: str) -> list[FrontPoint]:
    (device,) = result.devices
    assert (device.metric, result.job["metric"]) == (metric, metric)
    assert device.front and device.recommended
    check_order(device.front)
    assert device.hypervolume == sorted(device.hypervolume) and device.hypervolume[-1] > 0
    for point in device.front:
        low, high = point.test_metric_value_ci
        assert low <= point.test_metric_value <= high
    assert "%" not in device.recommendation.replace("95 % interval", "")
    return device.front


def check_tuned(result: JobResult, folder: Path, notes: list[str], unit: str) -> None:
    tuned = [point for device in result.devices for point in device.front if point.fine_tuning]
    (note,) = [one for one in notes if "tuning lowered" in one]
    for point in tuned:
        assert point.fine_tuning is not None
        assert point.fine_tuning.loss_after < point.fine_tuning.loss_before
        assert read_bundle(folder / point.bundle).fine_tuning == point.fine_tuning
    assert not tuned or ("there went by" in note and note.endswith(f"{unit} on average"))


def check_half(folder: Path, path: Path) -> None:
    """Any widths, tuned and as float16."""
    config = read_bundle(discretize_job(folder, 0.5, path, precision="fp16", fine_tune_seconds=1.0))
    plain = read_bundle(discretize_job(folder, 0.5, path))
    assert (config.precision, config.verification.tolerance, config.verification.agreement) == (
        "fp16",
        FP16_TOLERANCE,
        None,
    )
    assert 1e-6 < config.verification.max_difference < FP16_TOLERANCE / 2
    assert config.metric.name == plain.metric.name
    if config.fine_tuning:
        assert config.fine_tuning.metric_value_before == plain.metric.validation
    else:
        assert config.metric.validation == pytest.approx(plain.metric.validation, abs=0.05)


def check_elastic(folder: Path, dataset: Dataset, front: list[FrontPoint]) -> None:
    model = ElasticModel(folder / "elastic.zip", device="here")
    x = dataset.x[dataset.test[:4]].astype(np.float32)
    for point in front:
        assert model.set_point(point.id).metric.validation == point.metric_value
        np.testing.assert_allclose(
            model.run(x), outputs(folder / point.bundle, x), rtol=1e-4, atol=1e-3
        )


@pytest.mark.slow
def test_regression_from_images_to_bundles(tmp_path: Path) -> None:
    """Digits: how much ink there is, in thousands, and where its middle is."""
    x = load_digits().images.astype(np.uint8)
    ink = x.sum((1, 2), dtype=np.float64)
    middle = (x * np.arange(8)).sum((1, 2)) / ink
    np.savez(tmp_path / "ink.npz", x=x[:900], y=np.stack([5000 + 10 * ink, middle], 1)[:900])
    job, folder, progress = (
        spec(tmp_path / "ink.npz", "mlp", max_epochs=4),
        tmp_path / "out",
        RecordingProgress(),
    )
    result = run_job(
        job, folder, backend=LocalBackend(), measure=measure_by_size, progress=progress
    )
    front, dataset = check_front(result, "r2"), load_dataset(tmp_path / "ink.npz")
    assert front[-1].metric_value > 0.8
    for point in front:
        found = outputs(folder / point.bundle, dataset.x[dataset.test])
        assert r2_score(dataset.y[dataset.test], found) == pytest.approx(
            point.test_metric_value, abs=1e-3
        )
        config = read_bundle(folder / point.bundle)
        assert (config.task, config.classes) == ("regression", ())
        assert (config.metric.name, config.output.shape) == ("r2", (2,))
        rmse = np.sqrt(np.square(found - dataset.y[dataset.test]).mean(0))
        assert config.metric.test_rmse == pytest.approx(rmse, rel=0.01)
        assert config.verification.max_difference <= config.verification.tolerance
    check_elastic(folder, dataset, front)
    check_tuned(result, folder, progress.notes, "")
    check_half(folder, tmp_path / "half16.zip")
    other = read_bundle(discretize_job(folder, 0.5, tmp_path / "half.zip"))
    assert other.metric.test > 0.3 and other.output.name == "output"
    inn, network = load_inn(folder / "inn.zip")
    assert (
        inn.task == "regression"
        and inn.targets is not None
        and dataset.target_statistics is not None
    )
    assert inn.targets.mean == tuple(dataset.target_statistics[0].tolist())
    assert network.full_widths.keys() == front[0].widths.keys()
    assert not [note for note in progress.notes if "MLflow" in note]


@pytest.mark.slow
def test_super_resolution_from_a_folder_of_pairs_to_bundles(tmp_path: Path) -> None:
    """Tiles of a photograph, half as large."""
    photograph = load_sample_image("flower.jpg")[100:420, 100:500]
    for side in ("input", "target"):
        (tmp_path / "tiles" / side).mkdir(parents=True)
    for row in range(0, photograph.shape[0] - TILE + 1, TILE):
        for column in range(0, photograph.shape[1] - TILE + 1, TILE):
            tile = Image.fromarray(photograph[row : row + TILE, column : column + TILE])
            name = f"{row}-{column}.png"
            tile.save(tmp_path / "tiles" / "target" / name)
            tile.resize((TILE // 2, TILE // 2), Image.Resampling.BOX).save(
                tmp_path / "tiles" / "input" / name
            )
    job, folder, progress = (
        spec(tmp_path / "tiles", None, max_epochs=8),
        tmp_path / "out",
        RecordingProgress(),
    )
    result = run_job(
        job, folder, backend=LocalBackend(), measure=measure_by_size, progress=progress
    )
    assert result.job["model"] == "edsr"
    front, dataset = check_front(result, "psnr_db"), load_dataset(tmp_path / "tiles")
    for point in front:
        found = outputs(folder / point.bundle, dataset.x[dataset.test])
        assert found.shape == (len(dataset.test), 3, TILE, TILE)
        assert psnr(found, dataset.y[dataset.test]) == pytest.approx(
            point.test_metric_value, abs=0.02
        )
        config = read_bundle(folder / point.bundle)
        assert (config.task, config.build.scale, config.metric.unit) == (
            "super-resolution",
            2,
            "dB",
        )
    assert result.devices[0].reference_point[1] < front[-1].metric_value
    assert f"PSNR {front[-1].metric_value:.2f} dB" in result.devices[0].recommendation
    check_elastic(folder, dataset, front)
    check_tuned(result, folder, progress.notes, " dB")
    assert not [note for note in progress.notes if "MLflow" in note]
    written = json.loads((folder / "result.json").read_text())
    assert JobResult.model_validate(written) == result


def test_a_family_of_another_task_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(256, size=(20, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pairs.npz", x=x, y=x.repeat(2, 2).repeat(2, 3))
    with pytest.raises(SpecError, match="'convnet' does not serve super-resolution: use edsr"):
        run_job(spec(tmp_path / "pairs.npz", "convnet"), tmp_path / "out", backend=LocalBackend())
    assert not (tmp_path / "out").exists()
