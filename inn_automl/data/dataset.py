"""A dataset in memory: samples, classes, splits and statistics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from inn_automl.data.samples import SPLITS, Samples, Split, blocks, ordered
from inn_automl.data.splits import complete_splits
from inn_automl.errors import DatasetFormatError, DatasetTooSmallError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their classes and splits.

    Attributes:
        name: of the built-in dataset, or the file or folder name without its suffix.
        x: (N, C, H, W) images or (N, C, L) signals, uint8 or float32: the raw values of the dataset.
        y: (N,) int64, index into `classes`.
        classes: names in the order of the logits, as the dataset has them: by number where all are integers, by code
            point otherwise.
        train: int64 sample indices, in a seeded random order, so that any first n of them are a fair sample.
        validation: the same, for the search.
        test: the same, for the accuracy that is reported. The three are disjoint and cover all samples.
        mean: (C,) float32, of the training split's raw values.
        std: (C,) float32, likewise; 1 for a channel that is constant.
        fingerprint: SHA-256 of x, y, classes and splits, whatever the name and the order within a split.
        notes: one sentence for each thing that loading decided or changed, e.g. that images were resized.
        sample_rate_hz: of audio; None for anything else.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    fingerprint: str
    notes: tuple[str, ...] = ()
    sample_rate_hz: int | None = None

    @property
    def kind(self) -> Literal["image", "signal"]:
        """`"image"` for x of N x C x H x W, `"signal"` for N x C x L."""
        return "image" if self.x.ndim == 4 else "signal"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C, H, W) or (C, L)."""
        return tuple(self.x.shape[1:])

    @property
    def num_classes(self) -> int:
        """Number of classes, which is the number of logits."""
        return len(self.classes)

    def facts(self) -> dict[str, Any]:
        """What identifies and describes the dataset, ready for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "input_shape": list(self.input_shape),
            "dtype": str(self.x.dtype),
            "classes": list(self.classes),
            "num_samples": {split: len(getattr(self, split)) for split in SPLITS},
            "sample_rate_hz": self.sample_rate_hz,
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }


def assemble(name: str, samples: Samples, *, seed: int) -> Dataset:
    """Numbers the classes, makes the splits that are not given, and takes the statistics.

    Args:
        name: what the dataset is called in its facts and in messages.
        seed: of the splits; the same samples and seed give the same splits on every machine.

    Raises:
        DatasetFormatError: a class of the validation or test split that the training split does not have.
        DatasetTooSmallError: one class only, a class with fewer samples than the splits need, or an empty split.
    """
    classes, y = _number_classes(name, samples)
    splits = complete_splits(name, y, classes, samples.given, seed=seed)
    mean, std = _channel_statistics(samples.x, splits["train"])
    return Dataset(
        name=name,
        x=samples.x,
        y=y,
        classes=classes,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        mean=mean,
        std=std,
        fingerprint=_fingerprint(samples.x, y, classes, splits),
        notes=samples.notes,
        sample_rate_hz=samples.sample_rate_hz,
    )


def _number_classes(name: str, samples: Samples) -> tuple[tuple[str, ...], np.ndarray]:
    found, positions = np.unique(samples.labels, return_inverse=True)
    trained = {str(label) for label in np.unique(samples.labels[samples.given["train"]])}
    classes = ordered(trained | samples.empty_classes)
    for split in SPLITS[1:]:
        if split in samples.given:
            unknown = {str(label) for label in samples.labels[samples.given[split]]} - set(classes)
            if unknown:
                raise DatasetFormatError(
                    f"the {split} split of {name!r} has the class {min(unknown)!r}, which the training split lacks: "
                    "add training samples of it or remove it."
                )
    if len(classes) < 2:
        have = f"one class only, {classes[0]!r}" if classes else "no training samples"
        raise DatasetTooSmallError(f"{name!r} has {have}: a classifier needs samples of at least two classes.")
    index = {label: i for i, label in enumerate(classes)}
    return classes, np.array([index[str(label)] for label in found], np.int64)[positions]


def _channel_statistics(x: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over the samples `train`, in two passes of float64."""
    num_values = len(train) * int(np.prod(x.shape[2:]))
    order = np.sort(train)  # memory order, and sums that do not depend on the seed's order
    flat = x.reshape(len(x), x.shape[1], -1)
    mean = np.zeros(x.shape[1])
    for block in blocks(flat[: len(order)]):
        mean += flat[order[block]].sum(axis=(0, 2), dtype=np.float64)
    mean /= num_values
    variance = np.zeros(x.shape[1])
    for block in blocks(flat[: len(order)]):
        variance += np.square(flat[order[block]] - mean[:, None]).sum(axis=(0, 2))
    std = np.sqrt(variance / num_values)
    # Below the resolution of float32 a deviation is rounding, and dividing by it would blow rounding up.
    constant = std <= np.maximum(np.abs(mean) * np.finfo(np.float32).eps, np.finfo(np.float32).tiny)
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)


def _fingerprint(x: np.ndarray, y: np.ndarray, classes: tuple[str, ...], splits: dict[Split, np.ndarray]) -> str:
    digest = hashlib.sha256()
    parts: dict[str, np.ndarray] = {"x": x, "y": y}
    parts.update((split, np.sort(indices)) for split, indices in splits.items())
    for key, array in parts.items():
        digest.update(f"{key}:{array.dtype}:{array.shape};".encode())
        digest.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).data)
    digest.update(repr(classes).encode())
    return digest.hexdigest()
