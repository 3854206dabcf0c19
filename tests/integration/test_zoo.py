"""A job on a network of a user, from weights of a file: photographs of unequal size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from inn_automl.core.errors import InputError, SpecError, UnknownNameError
from inn_automl.core.result import JobResult
from inn_automl.core.storage import read_json
from inn_automl.export.bundle import read_bundle
from inn_automl.models import build
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.run import discretize_job, run_job

from .conftest import RecordingProgress, job_spec, measure_by_size

MODEL = "tests.integration.own_network:make"
BUDGET = {
    "devices": [{"name": "by-size"}],
    "training": {"max_minutes": 5, "max_epochs": 8, "trials": 1},
    "search": {"max_evaluations": 3, "batch_size": 3, "max_measurements": 10},
}
NUM_EACH, SIDE = 40, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of three photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name in ("astronaut", "coffee", "rocket"):
        (folder / name).mkdir()
        whole = getattr(photographs, name)()
        for index in range(NUM_EACH):
            height, width = rng.integers(80, 120, 2)
            top, left = rng.integers(0, 120, 2)
            crop = whole[top : top + height, left : left + width]
            Image.fromarray(crop).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the network with 7 classes, inside of a wrapper."""
    torch.manual_seed(0)
    tensors = build(MODEL, (3, SIDE, SIDE), 7).state_dict()
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"state_dict": {f"module.{name}": one for name, one in tensors.items()}}, path)
    return path


def run(folder: Path, out: Path, progress: RecordingProgress, **changes: object) -> JobResult:
    values = {"dataset": str(folder), "model": MODEL, "budget": BUDGET, **changes}
    return run_job(
        job_spec(data={"input_size": SIDE}, **values),
        out,
        backend=LocalBackend(cpus=1),
        measure=measure_by_size,
        progress=progress,
    )


@pytest.mark.slow
def test_a_job_starts_from_weights_of_a_file(folder: Path, weights: Path, tmp_path: Path) -> None:
    out, progress = tmp_path / "out", RecordingProgress()
    result = run(folder, out, progress, weights=str(weights))
    assert any("starts from the weights weights.pth" in note for note in progress.notes)
    assert any("its head (8.weight, 8.bias) is replaced" in note for note in progress.notes)
    assert any("before training, the full width has" in note for note in progress.notes)
    origin = result.job["weights"]
    assert 0 <= origin["metric_value"] <= 1
    assert (origin["source"], origin["licence"]) == ("weights.pth", "unknown: given by the user")
    assert result.job["architecture"]["model"] == MODEL
    preprocessing = result.job["dataset"]["preprocessing"]
    assert preprocessing["input_size"] == [SIDE, SIDE]
    front = result.devices[0].front
    assert front
    config = read_bundle(out / front[0].bundle)
    assert config.weights is not None and config.weights.licence == origin["licence"]
    assert config.family == MODEL
    assert run(folder, out, RecordingProgress(), weights=str(weights)) == result

    half = discretize_job(out, 0.5, tmp_path / "half.zip")
    assert read_bundle(half).weights == config.weights
    assert read_json(out / "job.json")["preprocessing"] == preprocessing


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "timm:test_resnt"}, UnknownNameError, "did you mean 'test_resnet"),
        ({"model": "timm:test_efficientnet", "weights": "FILE"}, InputError, "another network"),
        ({"weights": "nothing.pth"}, InputError, "cannot be read"),
        ({"model": "mobilenet", "weights": "auto"}, SpecError, "nothing offers weights"),
        ({"model": "no.package:make"}, SpecError, "cannot be imported"),
        ({"model": "timm:test_resnet", "dataset": "mnist1d"}, SpecError, "does not take samples"),
        ({"model": MODEL, "weights": "auto"}, InputError, "nothing offers weights"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_spent(
    folder: Path,
    weights: Path,
    tmp_path: Path,
    changes: dict[str, str],
    error: type[InputError],
    message: str,
) -> None:
    given = {key: str(weights) if value == "FILE" else value for key, value in changes.items()}
    with pytest.raises(error, match=message):
        run(folder, tmp_path / "out", RecordingProgress(), **given)
    assert not (tmp_path / "out").exists()
