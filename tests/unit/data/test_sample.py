"""Single samples of a dataset, as they were decoded."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inn_automl.data import load_dataset


def test_images_are_the_pixels_of_their_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = {
        name: rng.integers(256, size=(8, 6, 6, 3)).astype(np.uint8) for name in ("cat", "dog")
    }
    for name, images in pixels.items():
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "pets" / name / f"{i}.png")
    dataset = load_dataset(tmp_path / "pets")
    assert (len(dataset), dataset.input_shape, dataset.classes) == (16, (3, 6, 6), ("cat", "dog"))
    for i, name in ((0, "cat"), (7, "cat"), (8, "dog"), (15, "dog")):
        values, label = dataset.sample(i)
        assert label == name
        np.testing.assert_array_equal(values, pixels[name][i % 8].transpose(2, 0, 1))


def test_audio_is_the_waveform_of_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = {name: rng.integers(-9000, 9000, (6, 50)).astype("<i2") for name in ("a", "b")}
    for name, signals in written.items():
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for i, signal in enumerate(signals):
            with wave.open(str(tmp_path / "sounds" / name / f"{i}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, len(signal), "NONE", ""))
                file.writeframes(signal.tobytes())
    dataset = load_dataset(tmp_path / "sounds")
    assert (len(dataset), dataset.input_shape) == (12, (1, 50))
    values, label = dataset.sample(9)
    assert label == "b"
    np.testing.assert_allclose(values[0], written["b"][3] / 2**15, atol=1e-7)


def test_arrays_keep_their_order_and_labels_their_names(tmp_path: Path) -> None:
    x = np.arange(40 * 12, dtype=np.float64).reshape(40, 12)
    y = np.arange(40) % 2 * 5 + 3
    np.savez(tmp_path / "numbers.npz", x=x, y=y)
    dataset = load_dataset(tmp_path / "numbers.npz", 1)
    for i in (0, 1, 39):
        values, label = dataset.sample(i)
        assert label == str(y[i])
        np.testing.assert_array_equal(values, x[i : i + 1].astype(np.float32))
    values[:] = 0
    assert dataset.sample(39)[0].any()  # what is handed out is a copy


def test_targets_are_in_their_own_units(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 1, 10)).astype(np.float32)
    y = np.stack([1000 + x.sum((1, 2)), x[:, 0, 0] / 7], axis=1)
    np.savez(tmp_path / "targets.npz", x=x, y=y)
    dataset = load_dataset(tmp_path / "targets.npz")
    values, target = dataset.sample(4)
    np.testing.assert_array_equal(values, x[4])
    np.testing.assert_array_equal(target, y[4].astype(np.float32))


def test_target_images_belong_to_their_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(256, size=(12, 1, 5, 4)).astype(np.uint8)
    large = rng.integers(256, size=(12, 1, 10, 8)).astype(np.uint8)
    np.savez(tmp_path / "pairs.npz", x=small, y=large)
    dataset = load_dataset(tmp_path / "pairs.npz")
    values, target = dataset.sample(11)
    np.testing.assert_array_equal(values, small[11])
    np.testing.assert_array_equal(target, large[11])


@pytest.mark.parametrize("index", [-1, 40, 10_000])
def test_no_other_sample_is_made_up(tmp_path: Path, index: int) -> None:
    np.savez(tmp_path / "few.npz", x=np.ones((40, 12)), y=np.arange(40) % 2)
    with pytest.raises(IndexError, match="0 to 39"):
        load_dataset(tmp_path / "few.npz").sample(index)
