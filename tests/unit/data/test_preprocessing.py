"""The geometry of images, by hand and against Pillow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError
from inn_automl.core.home import CACHE_DIR_VARIABLE
from inn_automl.core.spec import parse
from inn_automl.data import Preprocessing, headers, load_dataset, scan

Tree = Callable[[dict[str, bytes]], Path]
sides = st.integers(1, 3000)


def test_a_crop_stores_a_margin() -> None:
    made = Preprocessing.for_size((224, 224), mean=(0.5,), std=(0.25,))
    assert (made.input_size, made.stored_size) == ((224, 224), (256, 256))
    assert made.scaled_size((300, 400)) == (256, 341)
    assert (made.mean, made.std) == ((127.5,), (63.75,))
    x = np.arange(256 * 256).reshape(1, 256, 256)
    np.testing.assert_array_equal(made.evaluated(x), x[:, 16:240, 16:240])
    assert made.with_input_size((112, 168)).stored_size == (128, 192)
    assert Preprocessing.from_metadata(json.loads(json.dumps(made.metadata()))) == made


def test_a_letterbox_has_bars() -> None:
    made = Preprocessing.for_size((6, 8), resize="pad")
    assert made.stored_size == (6, 8)
    assert made.scaled_size((10, 40)) == (2, 8)
    framed = made.framed(np.ones((3, 2, 8), np.uint8))
    np.testing.assert_array_equal(framed[0, :, 0], [0, 0, 1, 1, 0, 0])
    assert Preprocessing.for_size((6, 8), resize="stretch").scaled_size((10, 40)) == (6, 8)


@given(st.tuples(sides, sides), st.tuples(st.integers(4, 512), st.integers(4, 512)))
def test_every_image_fits(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    for resize in ("crop", "pad", "stretch"):
        made = Preprocessing.for_size(wanted, resize=resize)  # type: ignore[arg-type]
        scaled = made.scaled_size(size)
        over = [a >= b for a, b in zip(scaled, made.stored_size, strict=True)]
        under = [a <= b for a, b in zip(scaled, made.stored_size, strict=True)]
        assert min(scaled) >= 1 and (all(over) if resize == "crop" else all(under))
        assert made.stored_size in (scaled, made.stored_size)
        if max(scaled) < 700:
            assert made.framed(np.zeros((1, *scaled), np.uint8)).shape[1:] == made.stored_size


def gradient(width: int, height: int) -> np.ndarray:
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_stored_images_are_pillows(make: Any, tree: Tree, resize: Any) -> None:
    files = {f"{name}/{i}.png": make.image(gradient(60 + i, 40)) for name in "ab" for i in range(5)}
    options = DataOptions(input_size=(28, 21), resize=resize)
    dataset = load_dataset(tree(files), options=options)
    assert dataset.input_shape == (3, 28, 21)
    image = Image.fromarray(gradient(60, 40))
    found = dataset.x[0].transpose(1, 2, 0)
    if resize == "crop":
        left = (48 - 24) // 2
        whole = np.asarray(image.resize((48, 32), Image.Resampling.BILINEAR))
        expected = whole[:, left : left + 24]
    elif resize == "pad":
        expected = np.zeros((28, 21, 3), np.uint8)
        expected[7:21] = np.asarray(image.resize((21, 14), Image.Resampling.BILINEAR))
    else:
        expected = np.asarray(image.resize((21, 28), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, expected)
    mean = dataset.x[np.sort(dataset.train)].mean(axis=(0, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(dataset.mean, mean, rtol=1e-6)


def test_large_jpegs_are_decoded_at_a_part_of_their_size(make: Any, tree: Tree) -> None:
    pixels = gradient(1600, 1200)
    files = {f"{c}/{i}.jpg": make.image(pixels, "JPEG", quality=95) for c in "ab" for i in range(3)}
    made = Preprocessing.for_size((56, 56))
    stored = load_dataset(tree(files), preprocessing=made).x[0]
    exact = made.framed(
        np.asarray(Image.fromarray(pixels).resize((85, 64), Image.Resampling.BILINEAR)).transpose(
            2, 0, 1
        )
    )
    np.testing.assert_allclose(stored.astype(int), exact, atol=4)


def test_a_scan_says_what_there_is(make: Any, tree: Tree) -> None:
    files = {f"{c}/{i}.png": make.png(i, size=(30 + i, 20)) for c in "ab" for i in range(5)}
    found = scan(tree(files))
    assert (found.kind, found.task, found.classes) == ("image", "classification", ("a", "b"))
    assert (found.num_samples, found.num_outputs, found.channels) == (10, 2, 1)
    assert found.image_size == (20, 32) and not found.has_one_size
    arrays = scan("mnist1d")
    assert (arrays.kind, arrays.channels, arrays.image_size) == ("signal", 1, None)
    assert arrays.default_preprocessing() is None


def test_arrays_are_resized_where_that_is_asked_for(npz: Callable[..., Path]) -> None:
    x = np.stack([gradient(16, 16)[..., :1].transpose(2, 0, 1)] * 20)
    path = npz(x=x, y=np.arange(20) % 2)
    made = Preprocessing.for_size((8, 8), resize="stretch", channels=3)
    dataset = load_dataset(path, preprocessing=made)
    assert dataset.input_shape == (3, 8, 8)
    expected = np.asarray(Image.fromarray(x[0, 0]).resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(dataset.x[7], np.stack([expected] * 3))
    pairs = npz(x=x, y=x.repeat(2, 2).repeat(2, 3))
    with pytest.raises(DatasetFormatError, match="their size cannot be changed"):
        load_dataset(pairs, preprocessing=made)
    two = npz(x=x.repeat(2, 1), y=np.arange(20) % 2)
    with pytest.raises(DatasetFormatError, match="have 2 channels, but the network takes 3"):
        load_dataset(two, preprocessing=made)


@pytest.mark.parametrize(
    ("given", "expected"), [(96, (96, 96)), ("64x48", (64, 48)), ("32", (32, 32)), ([8, 9], (8, 9))]
)
def test_sizes_are_read(given: Any, expected: tuple[int, int]) -> None:
    assert parse(DataOptions, {"input_size": given}, where="it").input_size == expected


@pytest.mark.parametrize("given", ["large", 2, [8], [8, 8, 8], True, 10**6])
def test_sizes_that_are_none(given: Any) -> None:
    with pytest.raises(ValueError, match="input_size"):
        parse(DataOptions, {"input_size": given}, where="it")


def test_headers_of_many_images_are_read_once(
    make: Any, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(headers, "REMEMBERED_FROM", 10)
    folder = tree({f"{c}/{i}.png": make.png(i, size=(9 + i, 8)) for c in "ab" for i in range(6)})
    first = scan(folder)
    with monkeypatch.context() as patch:
        patch.setattr(headers, "read_headers", None)
        assert list(scan(folder).headers) == list(first.headers)
    (folder / "a/3.png").write_bytes(make.png(size=(90, 8)))
    assert [one.width for one in scan(folder).headers][3] == 90
    (folder / "a/3.png").write_bytes(b"none")
    with pytest.raises(DatasetFormatError, match=r"a/3.png' .* cannot be read"):
        scan(folder)
