"""The model and the size of images that a job chooses, with the reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inn_automl.core.spec import JobSpec, parse
from inn_automl.core.storage import write_json
from inn_automl.data import scan
from inn_automl.models.zoo.timm_library import TimmLibrary
from inn_automl.pipeline import choosing
from inn_automl.pipeline.choosing import PHOTOGRAPH_MODEL, Choice, choose

NUM_EACH = 100


def write_images(folder: Path, height: int, width: int, *, mode: str = "RGB") -> Path:
    """Two classes of images whose sizes differ by up to 8 pixels."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(NUM_EACH):
            size = (width + index % 8, height + index % 8)
            Image.new(mode, size).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("photographs"), 300, 400)


@pytest.fixture(autouse=True)
def _weights_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimmLibrary, "has_weights", lambda self, name: True)


def speed(monkeypatch: pytest.MonkeyPatch, seconds: float | None) -> list[tuple[int, ...]]:
    """Sets the measured seconds of a sample; the shapes that are measured."""
    shapes: list[tuple[int, ...]] = []

    def measure(model: str, shape: tuple[int, ...], *others: object) -> float | None:
        shapes.append(shape)
        return seconds

    monkeypatch.setattr(choosing, "seconds_per_sample", measure)
    return shapes


def chosen(dataset: Path, folder: Path = Path("no-job"), **changes: object) -> Choice:
    budget = {"devices": [{"name": "one"}], "training": {"max_minutes": 5}}
    values = {"dataset": str(dataset), "budget": budget, **changes}
    spec: JobSpec = parse(JobSpec, values, where="the job")
    return choose(spec, scan(spec.dataset, spec.data), folder)


def test_photographs_start_from_a_pretrained_network(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = speed(monkeypatch, 1e-3)
    choice = chosen(photographs)
    assert choice.model == PHOTOGRAPH_MODEL and "photographs" in choice.notes[0]
    assert choice.preprocessing is not None
    assert choice.preprocessing.input_size == (224, 224)
    assert choice.preprocessing.stored_size == (256, 256)
    assert choice.preprocessing.mean == choice.preprocessing.std == (127.5,) * 3
    assert choice.preprocessing.interpolation == "bicubic"
    assert shapes == [(3, 96, 96)]


def test_photographs_without_weights_at_hand_get_a_family(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed(monkeypatch, 1e-3)
    monkeypatch.setattr(TimmLibrary, "has_weights", lambda self, name: False)
    choice = chosen(photographs)
    assert choice.model == "mobilenet"
    assert "neither cached here nor to be downloaded" in choice.notes[0]
    assert choice.preprocessing is not None and choice.preprocessing.mean is None


def test_small_and_grey_images_get_a_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed(monkeypatch, 1e-3)
    assert chosen(write_images(tmp_path / "small", 24, 24)).model == "convnet"
    assert chosen(write_images(tmp_path / "grey", 100, 100, mode="L")).model == "mobilenet"


@pytest.mark.parametrize(
    ("seconds", "side"),
    # 270 s of steps over 140 samples of 1.5 passes: 4 epochs at s seconds need (side / 96)^2 * s of
    # at most 0.3214 s.
    [(0.32, 96), (0.10, 160), (0.065, 208), (0.01, 224), (5.0, 96)],
)
def test_the_size_leaves_time_for_four_epochs(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, side: int
) -> None:
    speed(monkeypatch, seconds)
    choice = chosen(photographs)
    assert choice.preprocessing is not None
    assert choice.preprocessing.input_size == (side, side)
    assert any("not 224 x 224" in note for note in choice.notes) == (side != 224)


def test_the_size_of_the_user_and_a_fixed_one_stay(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = speed(monkeypatch, 5.0)
    choice = chosen(photographs, model="timm:resnet18", data={"input_size": 160, "resize": "pad"})
    assert choice.preprocessing is not None
    assert (choice.preprocessing.input_size, choice.preprocessing.resize) == ((160, 160), "pad")
    fixed = chosen(photographs, model="timm:vit_tiny_patch16_224").preprocessing
    assert fixed is not None and fixed.input_size == (224, 224)
    assert shapes == []


def test_without_weights_the_statistics_are_those_of_the_data(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed(monkeypatch, None)
    choice = chosen(photographs, model="timm:resnet18", weights="none")
    assert choice.preprocessing is not None and choice.preprocessing.mean is None


def test_arrays_of_one_size_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed(monkeypatch, 5.0)
    x = np.zeros((40, 3, 64, 72), np.uint8)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(40) % 2)
    choice = chosen(tmp_path / "x.npz", model="timm:resnet18")
    assert choice.preprocessing is not None
    assert choice.preprocessing.stored_size == choice.preprocessing.input_size == (64, 72)
    assert choice.preprocessing.mean == pytest.approx((123.675, 116.28, 103.53))


def test_a_job_that_is_resumed_chooses_nothing_anew(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed(monkeypatch, 0.10)
    first = chosen(photographs)
    assert first.preprocessing is not None
    budget = {"devices": [{"name": "one"}], "training": {"max_minutes": 5}}
    values = {"dataset": str(photographs), "budget": budget}
    record = {
        "spec": parse(JobSpec, values, where="the job").model_dump(mode="json"),
        "model": first.model,
        "preprocessing": first.preprocessing.metadata(),
        "choices": list(first.notes),
    }
    write_json(tmp_path / "job.json", record)
    shapes = speed(monkeypatch, 5.0)
    assert chosen(photographs, tmp_path) == first
    assert shapes == []


def test_super_resolution_and_signals_are_left_to_their_families() -> None:
    assert chosen(Path("mnist1d")) == Choice(None, None, ())
