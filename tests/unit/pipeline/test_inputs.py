"""A bundle says how files become samples: what predicting reads is what training saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from inn_automl.core.data_options import DataOptions
from inn_automl.data import Dataset, load_dataset
from inn_automl.evaluation.raw_inputs import RawInputs
from inn_automl.pipeline.inputs import described_preprocessing
from inn_automl.serving.files import read_image
from inn_automl.serving.recordings import read_windows

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INN_AUTOML_CACHE_DIR", str(tmp_path / "cache"))


def photographs(folder: Path, *, dtype: type = np.uint8, suffix: str = ".png") -> list[Path]:
    """Two classes of eight images each, all of different sizes; in the order of the dataset."""
    paths = []
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(8):
            height, width = RNG.integers(30, 90, 2)
            shape = (height, width) if dtype is np.uint16 else (height, width, 3)
            pixels = RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
            paths.append(folder / label / f"{number}{suffix}")
            Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_are_read_as_in_training(tmp_path: Path, resize: str, suffix: str) -> None:
    paths = photographs(tmp_path / "animals", suffix=suffix)
    options = DataOptions.model_validate({"input_size": [24, 32], "resize": resize})
    dataset = load_dataset(tmp_path / "animals", options=options)
    image = described_preprocessing(dataset).image
    assert image is not None
    assert (image.channels, image.dtype, image.resize) == (3, "uint8", resize)
    assert image.input_size == (24, 32)
    for index, path in enumerate(paths):
        seen = RawInputs(dataset, np.array([index]))[0]
        assert np.array_equal(read_image(path, image), seen), path


def test_grey_of_16_bits_is_read_as_in_training(tmp_path: Path) -> None:
    paths = photographs(tmp_path / "depths", dtype=np.uint16)
    dataset = load_dataset(tmp_path / "depths", options=DataOptions(input_size=(24, 24)))
    image = described_preprocessing(dataset).image
    assert image is not None
    assert (image.channels, image.dtype) == (1, "float32")
    seen = RawInputs(dataset, np.array([3]))[0]
    assert np.array_equal(read_image(paths[3], image), seen)


def test_recordings_are_read_as_in_training(tmp_path: Path) -> None:
    paths = []
    for label in ("yes", "no"):
        (tmp_path / "words" / label).mkdir(parents=True)
    for label in ("no", "yes"):
        for number in range(8):
            paths.append(tmp_path / "words" / label / f"{number}.wav")
            length = 800 if number else 300
            soundfile.write(paths[-1], RNG.normal(0, 0.1, (length, 2)), 8000, subtype="FLOAT")
    dataset = load_dataset(tmp_path / "words")
    audio = described_preprocessing(dataset).audio
    assert audio is not None
    assert (audio.sample_rate_hz, audio.channels) == (8000, 1)
    assert (audio.window_samples, audio.hop_samples) == (800, 400)
    for index, path in enumerate(paths):
        (window,) = read_windows(path, audio)
        assert np.array_equal(window, dataset.x[index])


def arrays(path: Path, x: np.ndarray) -> Dataset:
    np.savez(path, x=x, y=np.arange(len(x)) % 2)
    return load_dataset(path)


def test_arrays_are_images_only_where_their_values_are_levels(tmp_path: Path) -> None:
    levels = RNG.integers(0, 256, (24, 3, 8, 8)).astype(np.uint8)
    for name, x, is_image in (
        ("levels", levels, True),
        ("sixteen", (levels // 16), False),
        ("floats", levels.astype(np.float32) / 255, False),
        ("two", levels[:, :2], False),
    ):
        described = described_preprocessing(arrays(tmp_path / f"{name}.npz", x))
        assert (described.image is not None) == is_image, name
        assert described.audio is None


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    x = RNG.integers(0, 256, (24, 3, 8, 8)).astype(np.uint8)
    dataset = arrays(tmp_path / "levels.npz", x)
    inputs = RawInputs(dataset, np.array([5, 2, 7]))
    assert len(inputs) == 3
    assert np.array_equal(inputs[1:], x[[2, 7]])
    assert np.array_equal(inputs.float32(), x[[5, 2, 7]].astype(np.float32))
