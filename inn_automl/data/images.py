"""Image files to one array: in memory where all have one size, else resized into the cache."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from inn_automl.core.errors import DatasetError, DatasetFormatError
from inn_automl.data import limits
from inn_automl.data.cache.build import DIGEST_BYTES, MAX_THREADS, Produced, produced_in_memory
from inn_automl.data.faults import without_broken
from inn_automl.data.files import DatasetFile
from inn_automl.data.preprocessing import Preprocessing
from inn_automl.data.samples import check_size

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg"}
    | {".jpg", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".sgi", ".tga", ".tif"}
    | {".tiff", ".webp"}
)
"""Files that are images by their name. What they hold is found out from their content."""
NOT_DECODED = frozenset({"EPS", "WMF", "MPEG", "PSD", "FITS", "HDF5", "BUFR", "GRIB"})
"""Formats of Pillow that need other programs, or that are no images for people."""
GREY_MODES = frozenset({"1", "L", "LA", "La"})
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
EXIF_ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap height and width."""
FROM_16_TO_8_BITS = 1 / 257
DRAFT_FACTOR = 2
"""JPEGs are decoded at a half, a quarter or an eighth of their size where that leaves this many
times the pixels of a side that are needed: it takes a fraction of the time."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says of itself, before it is decoded."""

    height: int
    width: int
    channels: int
    is_deep: bool
    has_alpha: bool
    has_palette: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class ImageForm:
    """What images are decoded to.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        is_deep: whether grey values of 16 bits are kept, as float32; else all are bytes.
        preprocessing: brings them to one size; None for images that have it.
    """

    channels: int
    is_deep: bool
    preprocessing: Preprocessing | None = None

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.uint8]:
        return np.dtype(np.float32) if self.is_deep else np.dtype(np.uint8)

    def identity(self) -> list[Any]:
        """What decoded values depend on, ready for JSON."""
        import PIL

        given = self.preprocessing
        geometry = given and [*given.stored_size, given.resize, given.interpolation, given.fill]
        return [self.channels, self.is_deep, geometry, PIL.__version__]


def read_headers(
    entries: Sequence[DatasetFile], where: str
) -> tuple[list[ImageHeader | None], dict[int, str]]:
    """The headers of images, and the faults of those that have none, by position."""
    faults: dict[int, str] = {}

    def read(position: int) -> ImageHeader | None:
        try:
            return _header(entries[position], where)
        except DatasetError as error:
            faults[position] = str(error)
            return None

    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        headers = list(pool.map(read, range(len(entries))))
    return headers, dict(sorted(faults.items()))


def form_of(
    headers: Sequence[ImageHeader], preprocessing: Preprocessing, *, keeps_size: bool = False
) -> tuple[ImageForm, tuple[str, ...]]:
    """The one form of images with `headers`, and notes on what becomes of those of another.

    Grey and colour mixed become RGB; images of 16 bits (grey) beside others of 8, or before a
    network that was trained on bytes, become bytes.

    Args:
        keeps_size: whether images have the size already.
    """
    channels = max(header.channels for header in headers)
    wanted = preprocessing.channels
    num_deep = sum(header.is_deep for header in headers)
    is_deep = num_deep == len(headers) and preprocessing.mean is None
    notes = []
    num_alpha = sum(header.has_alpha for header in headers)
    num_palette = sum(header.has_palette for header in headers)
    num_other = sum(header.channels != (wanted or channels) for header in headers)
    if num_other:
        became = "RGB" if (wanted or channels) == 3 else "grey"
        notes.append(f"{num_other} of {len(headers)} images became {became}.")
    if num_deep and not is_deep:
        notes.append(f"{num_deep} of {len(headers)} images of 16 bits became ones of 8 bits.")
    if num_alpha:
        notes.append(f"The transparency of {num_alpha} of {len(headers)} images was dropped.")
    if num_palette:
        notes.append(f"{num_palette} of {len(headers)} images with a palette became RGB.")
    geometry = None if keeps_size else preprocessing
    return ImageForm(wanted or channels, is_deep, geometry), tuple(notes)


def common_size(headers: Sequence[ImageHeader]) -> tuple[tuple[int, int], int]:
    """The most common size, (height, width), the larger of two that are equally common; and how
    many images have it.
    """
    sizes = Counter(header.size for header in headers)
    size = max(sizes, key=lambda size: (sizes[size], size[0] * size[1], size))
    return size, sizes[size]


def producer(
    entries: Sequence[DatasetFile], form: ImageForm, where: str
) -> Callable[[int], Produced]:
    """Decodes the image at a position to (C, H, W) of `form`."""

    def produce(position: int) -> Produced:
        content = entries[position].read()
        digest = hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
        return Produced(_decode(entries[position], content, form, where), digest)

    return produce


def read_images(entries: Sequence[DatasetFile], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Images of one size in memory, (N, C, H, W), and notes on what was changed.

    Raises:
        DatasetFormatError: broken images, or more than fits into memory.
    """
    headers, faults = read_headers(entries, where)
    without_broken(faults, len(entries), 0.0, where)
    known = [header for header in headers if header is not None]
    size = known[0].size
    form, notes = form_of(known, Preprocessing.identity(size), keeps_size=True)
    shape = (len(entries), form.channels, *size)
    check_size(int(np.prod(shape, dtype=object)) * form.dtype.itemsize, where)
    with quiet_pillow():
        produce = producer(entries, form, where)
        x, _, faults = produced_in_memory(produce, shape, form.dtype)
    without_broken(faults, len(entries), 0.0, where)
    return x, notes


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keeps Pillow's warnings off the screen, in all threads."""
    with warnings.catch_warnings():
        # Pillow warns of harmless faults in metadata; what cannot be decoded raises.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def num_threads() -> int:
    """Threads that read and decode."""
    return min(MAX_THREADS, len(os.sched_getaffinity(0)))


@functools.cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.OPEN if name not in NOT_DECODED)


def _header(entry: DatasetFile, where: str) -> ImageHeader:
    """Reads the properties of an image without decoding it."""
    from PIL import Image

    formats = _formats()
    try:
        with entry.content.open() as stream, Image.open(stream, formats=formats) as image:
            width, height = image.size
            if _orientation(image) in SIDEWAYS:
                width, height = height, width
            mode, has_transparency = image.mode, "transparency" in image.info
    except DatasetError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        _raise_damaged(entry, where, error)
    if width * height > limits.MAX_IMAGE_PIXELS:
        raise DatasetFormatError(
            f"{entry.path!r} in {where} has {width} x {height} pixels, more than the limit of "
            f"{limits.MAX_IMAGE_PIXELS:,}: shrink it."
        )
    return ImageHeader(
        height=height,
        width=width,
        channels=1 if mode in GREY_MODES | DEEP_MODES else 3,
        is_deep=mode in DEEP_MODES,
        has_alpha=mode in ALPHA_MODES or has_transparency,
        has_palette=mode in ("P", "PA"),
    )


def _decode(entry: DatasetFile, content: bytes, form: ImageForm, where: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            if form.preprocessing is not None:
                _draft(image, form.preprocessing)
            plain = _plain(_upright(image), form)
            if form.preprocessing is not None:
                plain = _resized(plain, form.preprocessing)
            pixels = np.asarray(plain)
    except Exception as error:  # as above
        _raise_damaged(entry, where, error)
    x = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if len(x) != form.channels:
        x = np.repeat(x, form.channels, axis=0)
    return x if form.preprocessing is None else form.preprocessing.framed(x)


def _draft(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Has a JPEG that is much too large decoded at a part of its size."""
    width, height = image.size
    if _orientation(image) in SIDEWAYS:
        scaled_width, scaled_height = preprocessing.scaled_size((width, height))
    else:
        scaled_height, scaled_width = preprocessing.scaled_size((height, width))
    image.draft(None, (DRAFT_FACTOR * scaled_width, DRAFT_FACTOR * scaled_height))


def _plain(image: Image.Image, form: ImageForm) -> Image.Image:
    if form.is_deep:
        return image.convert("F")
    if image.mode in DEEP_MODES:
        # Straight to bytes, Pillow would clip what is above 255.
        from PIL import Image

        values = np.asarray(image.convert("F")) * np.float32(FROM_16_TO_8_BITS)
        image = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    return image.convert("L" if form.channels == 1 else "RGB")


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    from PIL import Image

    height, width = preprocessing.scaled_size((image.height, image.width))
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])


def _raise_damaged(entry: DatasetFile, where: str, error: Exception) -> NoReturn:
    from PIL import UnidentifiedImageError

    # Pillow's own message for this one is the address of a buffer.
    reason = (
        "its content is none"
        if isinstance(error, UnidentifiedImageError)
        else " ".join(str(error).split())
    )
    raise DatasetFormatError(
        f"{entry.path!r} in {where} cannot be read as an image "
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
