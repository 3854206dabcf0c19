"""Datasets from .npz files: checked by the headers of their arrays before any is expanded; nothing
is unpickled.
"""

from __future__ import annotations

import functools
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from inn_automl.core.errors import DatasetError, DatasetFormatError, UnknownNameError
from inn_automl.core.metric import TaskKind
from inn_automl.data.samples import (
    RawSamples,
    Split,
    check_size,
    class_labels,
    plain_values,
    shape_text,
)
from inn_automl.data.targets import looks_like_classes, number_targets

SPLIT_OF_SUFFIX: dict[str, Split] = {
    "": "train",
    "_train": "train",
    "_validation": "validation",
    "_val": "validation",
    "_test": "test",
}
KEYS = ("kind", *(f"{letter}{suffix}" for suffix in SPLIT_OF_SUFFIX for letter in "xy"))
KINDS = ("image", "signal")

IMAGE_MAX_ASPECT = 2
"""Three-dimensional x is images when the longer of its last two sizes is at most this many times
the shorter.
"""
IMAGE_MIN_SIZE = 4
"""... and the shorter at least this."""
COLOUR_CHANNELS = (1, 3, 4)
"""Last sizes of a four-dimensional x that make it look like images with their channels last."""

_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
_HEADERTARGET_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_npz(path: Path) -> RawSamples:
    """Reads samples and labels from an .npz file.

    Keys: `x` and `y`, or splits as `x_train`, `y_train`, `x_validation` (or `x_val`),
    `y_validation`, `x_test`, `y_test`; `x` beside given validation or test splits is the training
    split.

    - x: N x C x H x W (images), N x C x L (signals), N x H x W (images of one channel) or N x L
      (signals of one channel). Three dimensions are images when the last two sizes are at least 4
      and no more than a factor of 2 apart, else signals. uint8 and bool stay bytes, everything
      else becomes float32.
    - y: N integers or strings (classification): the names of the classes are the labels
      themselves. N or N x K floating point numbers: the targets of a regression. N x C x sH x sW
      or N x sH x sW images of x's type, s times as large: the targets of super-resolution.
    - `kind` (optional): `"image"` or `"signal"`, a string that settles how x is read.

    Raises:
        DatasetFormatError: an unreadable file, unknown keys, pickled arrays, a wrong shape or
            type, x and y of different lengths, values that are not finite, or more than the size
            limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return read_members(_members(archive, path), path)
    except DatasetError:
        raise
    except MemoryError:
        raise DatasetFormatError(
            f"{str(path)!r} does not fit into memory: use fewer or smaller samples."
        ) from None
    except _UNREADABLE as error:
        raise DatasetFormatError(
            f"{str(path)!r} cannot be read as an .npz file ({error}): write it with "
            f"numpy.savez(path, x=x, y=y)."
        ) from None


@dataclass(frozen=True)
class ArrayMember:
    """One array of a dataset, known by its header."""

    what: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        return self.dtype.kind == "f"


Pairs = dict[Split, tuple[ArrayMember, ArrayMember]]
"""x and y of each split."""


def read_members(members: dict[str, ArrayMember], path: Path) -> RawSamples:
    """The samples of arrays by their keys, which are those of an .npz file; all in memory.

    Raises:
        DatasetFormatError: as `load_npz`.
    """
    kind = kind_of(members, path)
    pairs = pairs_of(members, path)
    check_size(sum(x.num_bytes + y.num_bytes for x, y in pairs.values()), repr(str(path)))

    task = task_of(pairs, kind)
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    given: dict[Split, np.ndarray] = {}
    start = 0
    for split, (x, y) in pairs.items():
        ys.append(TARGET_READERS[task](y.read(), y.what))
        xs.append(plain_values(x.read(), x.what))
        given[split] = np.arange(start, start + x.shape[0])
        start += x.shape[0]
        if len(ys[-1]) != x.shape[0]:
            raise DatasetFormatError(
                f"{x.what} has {x.shape[0]} samples but {y.what} has {len(ys[-1])}: give one label "
                f"per sample."
            )
        if ys[-1].shape[1:] != ys[0].shape[1:]:
            raise DatasetFormatError(
                f"{y.what} has targets of shape {shape_text(ys[-1].shape[1:])} but "
                f"{pairs['train'][1].what} of "
                f"{shape_text(ys[0].shape[1:])}: bring them to one shape."
            )
        if xs[-1].dtype != xs[0].dtype:
            raise DatasetFormatError(
                f"{path.name!r} mixes {_stored(xs[0])} and {_stored(xs[-1])} values between its "
                f"splits: "
                "store every x in the same type and scale."
            )
    values, targets = (made[0] if len(made) == 1 else np.concatenate(made) for made in (xs, ys))
    return assembled(
        task, values, targets, kind, given, *(member.what for member in pairs["train"])
    )


def assembled(
    task: TaskKind,
    x: np.ndarray,
    y: np.ndarray,
    kind: str | None,
    given: dict[Split, np.ndarray],
    x_what: str,
    y_what: str,
) -> RawSamples:
    """The samples of arrays that were checked."""
    x, notes = with_channels(x, "image" if task == "super-resolution" else kind, x_what)
    if task == "classification":
        return RawSamples(x=x, labels=y, given=given, notes=notes)
    if task == "super-resolution":
        y, _ = with_channels(y, "image", y_what)
        if y.dtype != x.dtype:
            raise DatasetFormatError(
                f"{x_what} holds {_stored(x)} values but {y_what} {_stored(y)} ones: store the "
                f"images of a pair in the "
                "same type and scale."
            )
    elif looks_like_classes(y):
        notes += (
            f"{y_what} holds floating point numbers and was read as targets of a regression, "
            f"though all are whole "
            "numbers of few kinds; store classes as integers or strings.",
        )
    return RawSamples(x=x, labels=None, targets=y, given=given, notes=notes)


TARGET_READERS = {
    "classification": class_labels,
    "regression": number_targets,
    "super-resolution": plain_values,
}


def task_of(pairs: Pairs, kind: str | None) -> TaskKind:
    """The kind of task that targets imply, by their headers."""
    tasks: dict[Split, TaskKind] = {split: _task_of(x, y) for split, (x, y) in pairs.items()}
    first = tasks["train"]
    for split, task in tasks.items():
        if task != first:
            raise DatasetFormatError(
                f"{pairs['train'][1].what} asks for {first} but {pairs[split][1].what} for {task}: "
                f"store the targets "
                "of all splits alike."
            )
    if first == "super-resolution" and kind == "signal":
        raise DatasetFormatError(
            f"{pairs['train'][1].what} has shape {shape_text(pairs['train'][1].shape)}, targets of "
            f"super-resolution, "
            "which takes images and not signals: leave kind out, or store N or N x K numbers."
        )
    return first


def _task_of(x: ArrayMember, y: ArrayMember) -> TaskKind:
    if len(y.shape) >= 3 and len(x.shape) == len(y.shape):
        return "super-resolution"
    return "regression" if y.is_float and len(y.shape) in (1, 2) else "classification"


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, ArrayMember]:
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    unknown = sorted(infos.keys() - set(KEYS))
    if unknown:
        nearest = UnknownNameError("key", unknown[0], KEYS)
        listed = ", ".join(repr(key) for key in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
        raise DatasetFormatError(f"{str(path)!r} has keys that are not read, {listed}; {nearest}")
    members = {}
    for key, info in infos.items():
        what = f"{key} of {path.name!r}"
        with archive.open(info) as stream:
            shape, dtype = header_of(stream, what)
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes > info.file_size:
            raise DatasetFormatError(
                f"{what} is cut short: its header says {shape_text(shape)} but there is less data: "
                f"write it again."
            )
        members[key] = ArrayMember(what, shape, dtype, functools.partial(_array, archive, info))
    return members


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def header_of(stream: IO[bytes], what: str) -> tuple[tuple[int, ...], np.dtype]:
    reader = _HEADERTARGET_READERS.get(np.lib.format.read_magic(stream))
    if reader is None:
        raise DatasetFormatError(f"{what} is a structured array: store plain numbers or strings.")
    shape, _, dtype = reader(stream)
    if dtype.hasobject:
        raise DatasetFormatError(
            f"{what} is pickled (an array of Python objects), which is never loaded: "
            "store plain numbers or strings, e.g. numpy.stack(x) or y.astype(str)."
        )
    return shape, dtype


def kind_of(members: dict[str, ArrayMember], path: Path) -> str | None:
    member = members.pop("kind", None)
    if member is None:
        return None
    value = member.read() if member.num_bytes < 1024 else np.empty(0)
    kind = (
        str(value.astype(np.str_).item()) if value.size == 1 and value.dtype.kind in "US" else None
    )
    if kind not in KINDS:
        raise DatasetFormatError(
            f"kind of {path.name!r} is {kind!r}: store 'image' or 'signal', or leave it out."
        )
    return kind


def pairs_of(members: dict[str, ArrayMember], path: Path) -> Pairs:
    """x and y of each split, in agreement by their headers."""
    pairs: Pairs = {}
    for suffix, split in SPLIT_OF_SUFFIX.items():
        x, y = members.get(f"x{suffix}"), members.get(f"y{suffix}")
        if x is None and y is None:
            continue
        if x is None or y is None:
            lacks = f"x{suffix}" if x is None else f"y{suffix}"
            raise DatasetFormatError(
                f"{str(path)!r} lacks {lacks!r}: store samples as x{suffix}, labels as y{suffix}."
            )
        if split in pairs:
            raise DatasetFormatError(
                f"{str(path)!r} gives the {split} split twice, once as x{suffix}: keep one of them."
            )
        pairs[split] = x, y
    if "train" not in pairs:
        raise DatasetFormatError(
            f"{str(path)!r} has no training samples: store x and y, or x_train and y_train."
        )
    first = pairs["train"][0]
    for x, y in pairs.values():
        if len(x.shape) not in (2, 3, 4) or 0 in x.shape[1:]:
            raise DatasetFormatError(
                f"{x.what} has shape {shape_text(x.shape)}: "
                "store N x C x H x W or N x H x W (images), or N x C x L or N x L (signals)."
            )
        if y.shape and y.shape[0] != x.shape[0]:
            raise DatasetFormatError(
                f"{x.what} has {x.shape[0]} samples but {y.what} has {y.shape[0]}: give one label "
                f"per sample."
            )
        if x.shape[1:] != first.shape[1:]:
            raise DatasetFormatError(
                f"{x.what} has samples of shape {shape_text(x.shape[1:])} but {first.what} of "
                f"{shape_text(first.shape[1:])}: bring them to one shape."
            )
    return pairs


def with_channels(x: np.ndarray, kind: str | None, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Brings x to N x C x H x W or N x C x L; the note says how an ambiguous shape was read."""
    allowed = {2: ("signal",), 3: KINDS, 4: ("image",)}[x.ndim]
    if kind is not None and kind not in allowed:
        raise DatasetFormatError(
            f"{what} has shape {shape_text(x.shape)}, which cannot be of kind {kind!r}: "
            "store N x C x H x W or N x H x W for images, N x C x L or N x L for signals."
        )
    if x.ndim == 2:
        return x[:, None], ()
    if x.ndim == 4:
        _, first, height, last = x.shape
        if (
            kind is None
            and last in COLOUR_CHANNELS
            and first not in COLOUR_CHANNELS
            and min(first, height) >= 8
        ):
            raise DatasetFormatError(
                f"{what} has shape {shape_text(x.shape)}, which looks like channels last: "
                "store x.transpose(0, 3, 1, 2), or add kind='image' to the file if it is N x C x H "
                "x W."
            )
        return x, ()
    shorter, longer = sorted(x.shape[1:])
    if kind == "image" or (
        kind is None and shorter >= IMAGE_MIN_SIZE and longer <= IMAGE_MAX_ASPECT * shorter
    ):
        return x[:, None], _read_as("images of one channel, N x H x W", "signal", kind, what)
    if kind is None and x.shape[1] > x.shape[2] and x.shape[1] >= 8:
        raise DatasetFormatError(
            f"{what} has shape {shape_text(x.shape)}, which looks like signals with channels last: "
            f"store "
            "x.transpose(0, 2, 1), or add kind='signal' to the file if it is N x C x L."
        )
    return x, _read_as("signals, N x C x L", "image", kind, what)


def _read_as(reading: str, other: str, kind: str | None, what: str) -> tuple[str, ...]:
    return (
        ()
        if kind
        else (
            f"{what} was read as {reading}; add kind={other!r} to the file to read it otherwise.",
        )
    )


def _stored(x: np.ndarray) -> str:
    return "uint8" if x.dtype == np.uint8 else "other (now float32)"
