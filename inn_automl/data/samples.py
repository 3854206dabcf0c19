"""The result of every loader, and the checks that all values and labels go through."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.core.memory import available_bytes
from inn_automl.data import limits

if TYPE_CHECKING:
    from inn_automl.data.cache.shards import ShardedArray
    from inn_automl.data.preprocessing import Preprocessing

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

MEMORY_BYTES = 2**28
"""Samples are kept in memory up to this many bytes; beyond, they are read from disk."""

BLOCK_VALUES = 2**22
"""Values that one numpy pass converts or sums at a time, so that float64 copies stay small (32
MiB).
"""


@dataclass(frozen=True, eq=False)
class RawSamples:
    """A dataset as read, before it is split.

    Attributes:
        x: (N, C, H, W) or (N, C, L), uint8 or float32, finite.
        labels: (N,) strings, the names of the classes as the dataset has them; None where there
            are `targets`.
        given: sample indices by split. Samples that the dataset does not assign to a split are
            under `"train"`.
        empty_classes: classes that the dataset names but has no training samples of.
        notes: one sentence for each thing that loading decided or changed.
        sample_rate_hz: of audio; None for anything else.
        targets: (N, K) float32 numbers of a regression, or (N, C, s H, s W) images of x's type,
            finite; None for classification.
        groups: (N,) names of what must stay in one split; None where there are none.
        weights: (N,) float32 of the samples in training; None for equal ones.
        preprocessing: geometry of images; None for signals.
        moments: (N, C, 2) float64, mean and mean squared deviation of each channel of a sample;
            None where they are not known yet.
        digests: (N, 16) uint8 of the files that samples were read from; None for arrays.
        content_hash: of x, where it is not to be read whole.
    """

    x: np.ndarray | ShardedArray
    labels: np.ndarray | None
    given: Mapping[Split, np.ndarray]
    empty_classes: frozenset[str] = field(default=frozenset())
    notes: tuple[str, ...] = ()
    sample_rate_hz: int | None = None
    targets: np.ndarray | None = None
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    preprocessing: Preprocessing | None = None
    moments: np.ndarray | None = None
    digests: np.ndarray | None = None
    content_hash: str | None = None


def blocks(x: np.ndarray | ShardedArray, num_rows: int | None = None) -> Iterator[slice]:
    """Slices along the first dimension of `x`, or of `num_rows` rows of it, that hold about
    `BLOCK_VALUES` values each.
    """
    rows = max(1, BLOCK_VALUES // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x) if num_rows is None else num_rows, rows):
        yield slice(start, start + rows)


def plain_values(x: np.ndarray, what: str) -> np.ndarray:
    """Turns an array of numbers into uint8 (from uint8 and bool) or float32 (from all other
    integers and floats).

    Args:
        x: (N, ...) values.
        what: name of the array in messages.

    Raises:
        DatasetFormatError: not real numbers, a value that is NaN or infinite, or one beyond the
            range of float32.
    """
    if x.dtype.kind not in "biuf":
        raise DatasetFormatError(
            f"{what} holds {x.dtype} values: store real numbers (uint8 or float32 for the least "
            f"memory)."
        )
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype == np.bool_:
        return np.ascontiguousarray(x).view(np.uint8)
    plain = np.empty(x.shape, np.float32)
    for block in blocks(x):
        with np.errstate(over="ignore"):
            plain[block] = x[block]
        finite = np.isfinite(plain[block])
        if not finite.all():
            place = tuple(int(i) for i in np.argwhere(~finite)[0])
            value = x[block][place]
            index = block.start + place[0]
            if np.isfinite(value):
                raise DatasetFormatError(
                    f"{what} holds {value!s} in sample {index}, beyond the range of float32: "
                    f"rescale the values."
                )
            raise DatasetFormatError(
                f"{what} holds NaN or infinite values, first {value!s} in sample {index}: "
                "remove those samples or fill the values in."
            )
    return plain


def class_labels(y: np.ndarray, what: str) -> np.ndarray:
    """Turns integer or string labels into strings.

    Args:
        y: (N,) or (N, 1) integers, booleans, strings or UTF-8 bytes.
        what: name of the array in messages.

    Returns:
        (N,) strings.

    Raises:
        DatasetFormatError: another shape or type, or an empty label.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DatasetFormatError(
            f"{what} has shape {shape_text(y.shape)}: store one label per sample, shape N "
            "(of one-hot rows, the position of the one: y.argmax(1))."
        )
    if y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError:
            raise DatasetFormatError(
                f"{what} holds bytes that are not UTF-8: store labels as strings."
            ) from None
    if y.dtype.kind in "biu":
        return y.astype(np.str_)
    if y.dtype.kind != "U":
        raise DatasetFormatError(
            f"{what} holds {y.dtype} values: store labels as integers or strings."
        )
    if (y == "").any():
        index = int(np.argmax(y == ""))
        raise DatasetFormatError(
            f"{what} holds an empty label for sample {index}: name its class or remove it."
        )
    return y


def ordered(names: set[str]) -> tuple[str, ...]:
    """Class names in logit order: by number where all are integers, by code point otherwise."""
    if all(_is_integer(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def composed(name: str) -> str:
    """One spelling (NFC) for names that file systems store in different ones."""
    return unicodedata.normalize("NFC", name)


def check_size(num_bytes: int, what: str) -> None:
    """Raises DatasetFormatError when samples of `num_bytes` would not be loaded into memory."""
    if num_bytes > limits.MAX_DATASET_BYTES:
        raise DatasetFormatError(
            f"{what} would take {bytes_text(num_bytes)} in memory, more than the limit of "
            f"{bytes_text(limits.MAX_DATASET_BYTES)}: use fewer or smaller samples, or give them "
            "as files of images or as .npy, which are read from disk."
        )
    available = available_bytes()
    if available is not None and num_bytes > available:
        raise DatasetFormatError(
            f"{what} would take {bytes_text(num_bytes)} in memory, but this machine has "
            f"{bytes_text(available)} left: end other programs, use fewer samples, or give them as "
            "files of images or as .npy, which are read from disk."
        )


def bytes_text(num_bytes: float) -> str:
    """A size for messages, e.g. `"1.5 GiB"`."""
    for unit in ("bytes", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.4g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} GiB"


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape for messages, e.g. `"100 x 3 x 32 x 32"`."""
    return " x ".join(str(size) for size in shape) if shape else "()"


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
