"""PNG and JPEG files to one array."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data import limits
from inn_automl.data.files import DatasetFile
from inn_automl.data.samples import check_size

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG")
GREY_MODES = frozenset({"1", "L", "LA", "La"})
DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
EXIF_ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap height and width."""


@dataclass(frozen=True)
class _Header:
    height: int
    width: int
    channels: int
    is_deep: bool
    has_alpha: bool
    has_palette: bool


def read_images(entries: Sequence[DatasetFile], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes images to N x C x H x W, with C = 1 (greyscale) or 3 (RGB).

    - Images of another size than the most common one (the larger of two that are equally common)
      are resized to it, bilinearly with antialiasing; their aspect may change.
    - Alpha is dropped: colours stay as stored. Palette and CMYK images become RGB; black and white
      ones 0 and 255.
    - Greyscale of 16 bits keeps its values and becomes float32; everything else is uint8.
    - JPEGs are turned upright as their EXIF orientation says.

    Args:
        entries: PNG or JPEG files by suffix; the content must be one of the two as well.
        where: name of the dataset in messages.

    Returns:
        The array and notes on what was changed.

    Raises:
        DatasetFormatError: a damaged image, different channel counts or bit depths, or a size
            beyond the limits.
    """
    with warnings.catch_warnings():
        # Pillow warns of harmless faults in metadata; what cannot be decoded raises.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        headers = [_header(entry, where) for entry in entries]
        _check_agreement(entries, headers, where)
        sizes = Counter((header.height, header.width) for header in headers)
        height, width = max(sizes, key=lambda size: (sizes[size], size[0] * size[1], size))
        first = headers[0]
        dtype = np.dtype(np.float32 if first.is_deep else np.uint8)
        shape = (len(entries), first.channels, height, width)
        check_size(int(np.prod(shape, dtype=object)) * dtype.itemsize, where)
        x = np.empty(shape, dtype)
        for i, entry in enumerate(entries):
            x[i] = _decode(entry, first, (width, height), where)
    return x, _notes(headers, sizes[height, width], height, width)


def image_size(entry: DatasetFile, where: str) -> tuple[int, int]:
    """Height and width of a PNG or JPEG file as `read_images` decodes it.

    Raises:
        DatasetFormatError: a damaged image, or one beyond the limits.
    """
    header = _header(entry, where)
    return header.height, header.width


def _header(entry: DatasetFile, where: str) -> _Header:
    """Reads the properties of an image without decoding it."""
    from PIL import Image

    content = entry.read()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if _orientation(image) in SIDEWAYS:
                width, height = height, width
            mode, has_transparency = image.mode, "transparency" in image.info
    except Exception as error:  # Pillow raises a dozen types for damaged files
        _raise_damaged(entry, where, error)
    if width * height > limits.MAX_IMAGE_PIXELS:
        raise DatasetFormatError(
            f"{entry.path!r} in {where} has {width} x {height} pixels, more than the limit of "
            f"{limits.MAX_IMAGE_PIXELS:,}: shrink it."
        )
    return _Header(
        height=height,
        width=width,
        channels=1 if mode in GREY_MODES | DEEP_MODES else 3,
        is_deep=mode in DEEP_MODES,
        has_alpha=mode in ALPHA_MODES or has_transparency,
        has_palette=mode in ("P", "PA"),
    )


def _decode(entry: DatasetFile, header: _Header, size: tuple[int, int], where: str) -> np.ndarray:
    """Decodes one image to (C, H, W) of the given (width, height)."""
    from PIL import Image

    content = entry.read()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            upright = _upright(image)
            if header.is_deep:
                plain = upright.convert("F")
            elif header.channels == 1:
                plain = upright.convert("L")
            else:
                plain = upright.convert("RGB")
            if plain.size != size:
                plain = plain.resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(plain)
    except Exception as error:  # as above
        _raise_damaged(entry, where, error)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _raise_damaged(entry: DatasetFile, where: str, error: Exception) -> NoReturn:
    from PIL import UnidentifiedImageError

    # Pillow's own message for this one is the address of a buffer.
    reason = (
        "its content is neither"
        if isinstance(error, UnidentifiedImageError)
        else " ".join(str(error).split())
    )
    raise DatasetFormatError(
        f"{entry.path!r} in {where} cannot be read as a PNG or JPEG image "
        f"({reason or type(error).__name__:.120}): replace or remove it."
    ) from None


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG":
        return 1  # reading its EXIF would decode the image
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata does not make the pixels wrong
        return 1


def _upright(image: Image.Image) -> Image.Image:
    from PIL.Image import Transpose

    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _check_agreement(
    entries: Sequence[DatasetFile], headers: Sequence[_Header], where: str
) -> None:
    first = headers[0]
    for entry, header in zip(entries, headers, strict=True):
        if header.channels != first.channels:
            raise DatasetFormatError(
                f"{entry.path!r} in {where} has {header.channels} channel(s) but "
                f"{entries[0].path!r} has "
                f"{first.channels}: convert all images to greyscale or all to RGB."
            )
        if header.is_deep != first.is_deep:
            raise DatasetFormatError(
                f"{where} mixes images of 8 and 16 bits, e.g. {entries[0].path!r} and "
                f"{entry.path!r}: "
                "convert them to one depth."
            )


def _notes(headers: Sequence[_Header], num_common: int, height: int, width: int) -> tuple[str, ...]:
    total = len(headers)
    num_alpha = sum(header.has_alpha for header in headers)
    num_palette = sum(header.has_palette for header in headers)
    notes = []
    if num_common < total:
        notes.append(
            f"{total - num_common} of {total} images were resized to {height} x {width} (height x "
            f"width), "
            "the most common size."
        )
    if num_alpha:
        notes.append(f"The transparency of {num_alpha} of {total} images was dropped.")
    if num_palette:
        notes.append(f"{num_palette} of {total} images with a palette became RGB.")
    return tuple(notes)
