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
from inn_automl.data.files import DatasetFile
from inn_automl.data.images import read_images

Tree = Callable[[dict[str, bytes]], Path]


def entries(*contents: bytes, suffix: str = "png") -> list[DatasetFile]:
    return [
        DatasetFile(("a", f"{i}.{suffix}"), lambda content=content: content)
        for i, content in enumerate(contents)
    ]  # type: ignore[misc]


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
    x, _ = read(make.image(deep), make.image(noise(8, 12, dtype=np.uint16)), make.image(deep))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[0, 0], deep)
    assert x.max() > 255
    with pytest.raises(
        DatasetFormatError, match=r"mixes images of 8 and 16 bits, e.g. 'a/0.png' and 'a/1.png'"
    ):
        read(make.image(deep), make.png())


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


def test_other_sizes_are_resized_to_the_most_common_one(make: Any) -> None:
    common = [make.png(10, size=(6, 4)) for _ in range(3)]
    x, notes = read(
        make.png(200, size=(60, 40)), *common, make.png(90, size=(2, 2)), make.png(90, size=(3, 2))
    )
    assert x.shape == (6, 1, 4, 6)
    assert x[:, 0, 0, 0].tolist() == [200, 10, 10, 10, 90, 90]
    assert notes == ("3 of 6 images were resized to 4 x 6 (height x width), the most common size.",)


def test_of_two_equally_common_sizes_the_larger_one_counts(make: Any) -> None:
    files = (
        make.png(size=(6, 4)),
        make.png(size=(7, 4)),
        make.png(size=(7, 4)),
        make.png(size=(6, 4)),
    )
    assert read(*files)[0].shape == read(*files[::-1])[0].shape == (4, 1, 4, 7)


def test_shrinking_is_antialiased(make: Any) -> None:
    stripes = np.zeros((32, 32), np.uint8)
    stripes[:, ::2] = 255
    x, _ = read(make.image(stripes), make.png(size=(4, 4)), make.png(size=(4, 4)))
    np.testing.assert_allclose(x[0, 0].astype(int), 127, atol=10)


def test_different_channel_counts(make: Any, tree: Tree) -> None:
    colour = make.png((1, 2, 3), mode="RGB")
    message = (
        r"'b/9.png' in '.*pets' has 3 channel\(s\) but 'a/0.png' has 1: "
        "convert all images to greyscale or all to RGB"
    )
    with pytest.raises(DatasetFormatError, match=message):
        load_dataset(tree(make.classes("a", "b") | {"b/9.png": colour}))


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
        match=r"'b/9.png' in .* cannot be read as a PNG or JPEG image \(.*replace",
    ) as e:
        load_dataset(tree(make.classes("a", "b") | {"b/9.png": spoiled}))
    assert " at 0x" not in str(e.value)


def test_another_format_under_a_png_name(make: Any) -> None:
    gif = make.image(noise(4, 6), "GIF")
    with pytest.raises(DatasetFormatError, match=r"\(its content is neither\)"):
        read(gif)
    jpeg = make.image(noise(4, 6), "JPEG")
    assert read(jpeg)[0].shape == (1, 1, 4, 6)


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
