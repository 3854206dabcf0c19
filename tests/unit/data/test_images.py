"""PNG and JPEG files to arrays."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data import limits, load_dataset
from inn_automl.data.files import BytesContent, DatasetFile
from inn_automl.data.images import read_images

Tree = Callable[[dict[str, bytes]], Path]


def entries(*contents: bytes, suffix: str = "png") -> list[DatasetFile]:
    return [
        DatasetFile(("a", f"{i}.{suffix}"), BytesContent(content))
        for i, content in enumerate(contents)
    ]


def read(*contents: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    return read_images(entries(*contents), "'pets'")


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def test_pixels_are_exact_and_channels_first(make: Any) -> None:
    grey, colour = noise(5, 7), noise(5, 7, 3)
    x, notes = read(make.image(grey), make.image(grey[::-1]))
    np.testing.assert_array_equal(x[:, 0], [grey, grey[::-1]])
    assert notes == ()
    x, _ = read(make.image(colour))
    assert (x.shape, x.dtype) == ((1, 3, 5, 7), np.uint8)
    np.testing.assert_array_equal(x[0], colour.transpose(2, 0, 1))


def test_alpha_is_dropped_and_noted(make: Any) -> None:
    colour = noise(5, 7, 4)
    x, notes = read(make.image(colour), make.image(colour[..., :3]))
    np.testing.assert_array_equal(x[0], x[1])
    assert notes == ("The transparency of 1 of 2 images was dropped.",)
    grey = noise(5, 7, 2)
    x, _ = read(make.image(grey), make.image(grey[..., 0]))
    np.testing.assert_array_equal(x[0], x[1])
    assert x.shape[1] == 1


def test_palettes_become_rgb(make: Any) -> None:
    colour = np.zeros((4, 6, 3), np.uint8)
    colour[:, ::2] = 200, 10, 30
    x, notes = read(
        make.image(colour),
        make.image(colour, mode="P"),
        make.image(colour, mode="P", transparency=0),
    )
    np.testing.assert_allclose(x[1].astype(int), x[0], atol=60)  # the web palette is coarse
    np.testing.assert_array_equal(x[2], x[1])
    assert notes == (
        "The transparency of 1 of 3 images was dropped.",
        "2 of 3 images with a palette became RGB.",
    )


def test_black_and_white(make: Any) -> None:
    x, _ = read(make.png(1, mode="1"), make.png(0, mode="1"))
    assert x[:, 0, 0, 0].tolist() == [255, 0]


def test_16_bit_greyscale_keeps_its_values(make: Any) -> None:
    deep = noise(4, 6, dtype=np.uint16)
    x, _ = read(make.image(deep), make.image(deep[::-1]))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[:, 0], [deep, deep[::-1]])
    assert x.max() > 255


def test_16_bits_beside_8_become_8(make: Any) -> None:
    deep = noise(4, 6, dtype=np.uint16)
    x, notes = read(make.image(deep), make.png())
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x[0, 0], np.rint(deep / 257))
    assert notes == ("1 of 2 images of 16 bits became ones of 8 bits.",)


def test_cmyk_jpegs_become_rgb() -> None:
    stream = io.BytesIO()
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(stream, "JPEG", quality=100)
    x, _ = read(stream.getvalue())
    np.testing.assert_allclose(x[0, :, 0, 0].astype(int), [255, 0, 0], atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_turned_upright(make: Any, orientation: int) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.T, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = make.image(
        np.ascontiguousarray(undo(upright)), "JPEG", exif=exif.tobytes(), quality=100
    )
    x, _ = read(stored)
    np.testing.assert_allclose(x[0, 0].astype(int), upright, atol=3)


def test_other_sizes_are_cut_to_the_size_of_most(make: Any, tree: Tree) -> None:
    files = make.classes("a", "b") | {
        "a/8.png": make.png(200, size=(60, 40)),
        "b/9.png": make.png(90, size=(2, 2)),
    }
    dataset = load_dataset(tree(files))
    assert dataset.x.shape == (10, 1, 4, 6)
    assert dataset.input_shape == (1, 4, 6)
    assert dataset.x[4, 0, 0, 0] == 200
    assert dataset.notes == (
        "2 of 10 images were resized, keeping their aspect, and cut around the centre, to 4 x 6 "
        "(height x width).",
    )


def test_images_of_many_sizes_become_squares(make: Any, tree: Tree) -> None:
    files = {
        f"{name}/{i}.png": make.png(i, size=(40 + i, 60 - i)) for name in "ab" for i in range(10)
    }
    dataset = load_dataset(tree(files))
    assert dataset.preprocessing is not None
    assert dataset.preprocessing.resize == "crop"
    assert dataset.input_shape == (1, 40, 40)
    assert dataset.x.shape == (20, 1, 46, 46)  # 40 of 0.875


def test_shrinking_is_antialiased(make: Any, tree: Tree) -> None:
    stripes = np.zeros((32, 32), np.uint8)
    stripes[:, ::2] = 255
    files = make.classes("a", "b", size=(4, 4)) | {"a/0.png": make.image(stripes)}
    np.testing.assert_allclose(load_dataset(tree(files)).x[0, 0].astype(int), 127, atol=10)


def test_grey_beside_colour_becomes_rgb(make: Any, tree: Tree) -> None:
    colour = make.png((1, 2, 3), mode="RGB")
    dataset = load_dataset(tree(make.classes("a", "b") | {"b/9.png": colour}))
    assert dataset.x.shape == (9, 3, 4, 6)
    np.testing.assert_array_equal(dataset.x[1, :, 0, 0], [1, 1, 1])
    np.testing.assert_array_equal(dataset.x[8, :, 0, 0], [1, 2, 3])
    assert dataset.notes == ("8 of 9 images became RGB.",)


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda png: b"",
        lambda png: png[: len(png) // 2],
        lambda png: png[:20],
        lambda png: b"no image at all",
        lambda png: png[:-30] + b"\0" * 18 + png[-12:],
        lambda png: b"RIFF\0\0\0\0WEBPVP8 ",
        lambda png: with_chunk(png, b"zTXt", b"k\0\0" + zlib.compress(bytes(2**21))),
    ],
)
def test_corrupt_images(make: Any, tree: Tree, spoil: Callable[[bytes], bytes]) -> None:
    spoiled = spoil(make.image(noise(16, 16)))
    with pytest.raises(
        DatasetFormatError,
        match=r"'b/9.png' in .* cannot be read as an image \(.*replace",
    ) as e:
        load_dataset(tree(make.classes("a", "b") | {"b/9.png": spoiled}))
    assert " at 0x" not in str(e.value)


@pytest.mark.parametrize("file_format", ["BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP"])
def test_formats_are_told_by_the_content(make: Any, file_format: str) -> None:
    grey = np.full((4, 6), 77, np.uint8)
    options = {"lossless": True} if file_format == "WEBP" else {}
    x, _ = read(make.image(grey, file_format, **options))
    np.testing.assert_allclose(x[0, 0].astype(int), grey, atol=1)


def test_an_image_of_too_many_pixels_is_not_decoded(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = bytearray(make.png(size=(6, 4)))
    huge[16:24] = struct.pack(">II", 9000, 8000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    monkeypatch.setattr(Image.Image, "convert", None)
    with pytest.raises(
        DatasetFormatError,
        match=r"'a/0.png' .* has 9000 x 8000 pixels, more than the limit of 67,108,864",
    ):
        read(bytes(huge))
    huge[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    with pytest.raises(DatasetFormatError, match="cannot be read"):
        read(bytes(huge))


def test_too_large_in_memory(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DATASET_BYTES", 100)
    with pytest.raises(
        DatasetFormatError,
        match=r"'pets' would take 120 bytes in memory, more than the limit of 100 bytes",
    ):
        read(*[make.png()] * 5)


def test_damaged_metadata_is_no_fault(make: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = bytearray(make.image(noise(8, 16), "JPEG", exif=exif.tobytes()))
    start = jpeg.find(b"Exif\0\0") + 6
    jpeg[start : start + 8] = b"\xff" * 8
    assert read(bytes(jpeg))[0].shape == (1, 1, 8, 16)


def test_warning_filters_are_left_as_they_were(make: Any) -> None:
    before = list(warnings.filters)
    read(make.png())
    assert list(warnings.filters) == before


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG"]), st.data())
def test_damage_anywhere_is_a_dataset_error_or_an_array(
    make: Any, file_format: str, data: st.DataObject
) -> None:
    content = bytearray(make.image(noise(8, 8, 3), file_format))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(DatasetFormatError):
        patch.setattr(limits, "MAX_IMAGE_PIXELS", 2**16)
        x, _ = read(bytes(content))
        assert (x.ndim, x.dtype) in ((4, np.uint8), (4, np.float32))
