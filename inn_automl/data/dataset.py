"""A dataset in memory: samples with their classes or targets, splits and statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inn_automl.core.errors import DatasetFormatError, DatasetTooSmallError
from inn_automl.core.listing import abbreviate
from inn_automl.core.metric import TaskKind
from inn_automl.data.duplicates import duplicates_note
from inn_automl.data.preprocessing import Preprocessing
from inn_automl.data.samples import SPLITS, RawSamples, Split, ordered, shape_text
from inn_automl.data.splits import complete_splits
from inn_automl.data.statistics import channel_statistics, fingerprint_of

if TYPE_CHECKING:
    from inn_automl.data.cache.shards import ShardedArray

_MAX_CLASSES_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their classes or targets, and splits.

    Attributes:
        name: of the built-in dataset, or the file or folder name without its suffix.
        x: (N, C, H, W) images or (N, C, L) signals, uint8 or float32: the raw values of the
            dataset, in memory or in the shards of a cache. Images may be larger than
            `input_shape`: see `preprocessing`.
        y: of classification (N,) int64, index into `classes`; of regression (N, K) float32; of
            super-resolution (N, C, s H, s W), of x's type.
        classes: names in the order of the logits, as the dataset has them: by number where all are
            integers, by code point otherwise; empty for other tasks.
        train: int64 sample indices, in a seeded random order, so that any first n of them are a
            fair sample.
        validation: the same, for the search.
        test: the same, for the accuracy that is reported. The three are disjoint and cover all
            samples.
        mean: (C,) float32, of the training split's raw values.
        std: (C,) float32, likewise; 1 for a channel that is constant.
        fingerprint: SHA-256 of x, y, classes and splits; independent of the name and of
            the order within a split.
        task: kind of task: classification, regression or super-resolution.
        target_statistics: mean and standard deviation, float32, that targets are standardized by:
            (K,) of the training targets of a regression, (C,) the inputs' own of super-resolution;
            None for classification.
        peak: of super-resolution: 255 for bytes, the range of the training targets for other
            numbers.
        notes: one sentence for each thing that loading decided or changed, e.g. that images were
            resized.
        sample_rate_hz: of audio; None for anything else.
        preprocessing: how images were brought to what is stored in `x` and what the network takes
            of that; None for signals.
        groups: (N,) names of what must stay in one split; None where there are none.
        weights: (N,) float32, how often training draws a sample relative to others; None for all
            alike.
    """

    name: str
    x: np.ndarray | ShardedArray
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
    task: TaskKind = "classification"
    target_statistics: tuple[np.ndarray, np.ndarray] | None = None
    peak: float | None = None
    preprocessing: Preprocessing | None = None
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split))}" for split in SPLITS)
        if self.task == "classification":
            shown = abbreviate([repr(label) for label in self.classes], _MAX_CLASSES_SHOWN)
            outputs = f"{self.num_classes} classes: {shown}"
        else:
            outputs = f"output {shape_text(self.output_shape)}"
        return (
            f"Dataset({self.name!r}, {self.kind} {self.task}, input "
            f"{shape_text(self.input_shape)} {self.x.dtype}, samples: {sizes}, {outputs})"
        )

    def __len__(self) -> int:
        """Samples of all splits together."""
        return len(self.x)

    def sample(self, index: int) -> tuple[np.ndarray, str | np.ndarray]:
        """The raw, decoded values of one sample, and its label or target.

        Samples are in the order of `x`, which `train`, `validation` and `test` index: the order of
        an .npz file's arrays, of the given splits one after the other, or of a folder's class
        folders and their files by name. `sample(dataset.train[0])` is the first training sample.

        Args:
            index: 0 to `len(dataset)` - 1.

        Returns:
            Values as in `x`, of shape (C, H, W) or (C, L), not standardized; and the name of the
            class, the targets (K,) of a regression in their own units, or the target image
            (C, s H, s W) of super-resolution. Arrays are copies.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(
                f"sample {index} of {self.name!r} does not exist: give 0 to {len(self) - 1}."
            )
        if self.task == "classification":
            return self.x[index].copy(), self.classes[int(self.y[index])]
        return self.x[index].copy(), self.y[index].copy()

    @property
    def kind(self) -> Literal["image", "signal"]:
        """`"image"` for x of N x C x H x W, `"signal"` for N x C x L."""
        return "image" if self.x.ndim == 4 else "signal"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what the network takes of one sample: (C, H, W) or (C, L)."""
        if self.preprocessing is None or self.kind == "signal":
            return tuple(self.x.shape[1:])
        return (self.x.shape[1], *self.preprocessing.input_size)

    @property
    def num_classes(self) -> int:
        """Number of classes, which is the number of logits; 0 for other tasks."""
        return len(self.classes)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of an output for one sample: (classes,), (targets,) or an image (C, s H, s W)."""
        return (self.num_classes,) if self.task == "classification" else tuple(self.y.shape[1:])

    @property
    def scale(self) -> int | None:
        """The factor by which super-resolution enlarges images; None for other tasks."""
        return self.y.shape[2] // self.x.shape[2] if self.task == "super-resolution" else None

    def metadata(self) -> dict[str, Any]:
        """Identity and description of the dataset, ready for JSON."""
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
            "task": self.task,
            "preprocessing": self.preprocessing.metadata() if self.preprocessing else None,
            **self._target_metadata(),
        }

    def _target_metadata(self) -> dict[str, Any]:
        if self.target_statistics is None:
            return {}
        if self.task == "super-resolution":
            return {"output_shape": list(self.output_shape), "scale": self.scale, "peak": self.peak}
        mean, std = (values.tolist() for values in self.target_statistics)
        return {"output_shape": list(self.output_shape), "target_mean": mean, "target_std": std}


def assemble(name: str, samples: RawSamples, *, seed: int) -> Dataset:
    """Numbers the classes, makes the splits that are not given, and takes the statistics.

    Args:
        name: of the dataset in its metadata and in messages.
        seed: of the splits; the same samples and seed give the same splits on every machine.

    Raises:
        DatasetFormatError: a class of the validation or test split that the training split does
            not have; targets that are all the same; images of a pair whose sizes do not go
            together.
        DatasetTooSmallError: one class only, a class with fewer samples than the splits need, or
            an empty split.
    """
    task: TaskKind = "classification"
    if samples.targets is None:
        classes, y = _number_classes(name, samples)
    else:
        task = "regression" if samples.targets.ndim == 2 else "super-resolution"
        classes, y = (), samples.targets
    splits = complete_splits(name, y, classes, samples.given, seed=seed, groups=samples.groups)
    if samples.weights is not None and not samples.weights[splits["train"]].any():
        raise DatasetFormatError(
            f"all training samples of {name!r} have the weight 0: leave the weights out."
        )
    preprocessing = samples.preprocessing
    if preprocessing is None and samples.x.ndim == 4:
        preprocessing = Preprocessing.identity(samples.x.shape[2:])
    mean, std = channel_statistics(samples, splits["train"])
    target_statistics, peak = None, None
    if task == "regression":
        target_statistics = _target_statistics(name, y, splits)
    elif task == "super-resolution":
        target_statistics = mean, std
        peak = _peak(name, samples.x.shape[1:], y, splits["train"])
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
        fingerprint=fingerprint_of(samples, y, classes, splits),
        notes=(*samples.notes, *duplicates_note(samples.digests, splits)),
        sample_rate_hz=samples.sample_rate_hz,
        task=task,
        target_statistics=target_statistics,
        peak=peak,
        preprocessing=preprocessing,
        groups=samples.groups,
        weights=samples.weights,
    )


def scale_of(small: tuple[int, ...], large: tuple[int, ...]) -> int | None:
    """The integer factor, at least 2, by which the second of two (height, width) is larger; None
    if there is none.
    """
    scale = large[0] // max(1, small[0])
    return scale if scale >= 2 and tuple(scale * side for side in small) == tuple(large) else None


def _number_classes(name: str, samples: RawSamples) -> tuple[tuple[str, ...], np.ndarray]:
    assert samples.labels is not None
    found, positions = np.unique(samples.labels, return_inverse=True)
    trained = {str(label) for label in np.unique(samples.labels[samples.given["train"]])}
    classes = ordered(trained | samples.empty_classes)
    for split in SPLITS[1:]:
        if split in samples.given:
            unknown = {str(label) for label in samples.labels[samples.given[split]]} - set(classes)
            if unknown:
                raise DatasetFormatError(
                    f"the {split} split of {name!r} has the class {min(unknown)!r}, which the "
                    f"training split lacks: "
                    "add training samples of it or remove it."
                )
    if len(classes) < 2:
        have = f"one class only, {classes[0]!r}" if classes else "no training samples"
        raise DatasetTooSmallError(
            f"{name!r} has {have}: a classifier needs samples of at least two classes."
        )
    index = {label: i for i, label in enumerate(classes)}
    return classes, np.array([index[str(label)] for label in found], np.int64)[positions]


def _target_statistics(
    name: str, y: np.ndarray, splits: dict[Split, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each target over the training split; refuses targets that R²
    is not defined for.
    """
    for split in SPLITS:
        values = y[splits[split]].astype(np.float64)
        if len(values) < 2:
            raise DatasetTooSmallError(
                f"the {split} split of {name!r} has 1 sample, but R² needs at least 2: add samples."
            )
        mean, std = values.mean(axis=0), values.std(axis=0)
        constant = std <= np.maximum(
            np.abs(mean) * np.finfo(np.float32).eps, np.finfo(np.float32).tiny
        )
        if constant.any():
            column = int(np.argmax(constant))
            raise DatasetFormatError(
                f"target {column} of {name!r} is {values[0, column]:g} for all samples of the "
                f"{split} split: there is "
                "nothing to learn in it; leave that target out, or add samples that differ."
            )
    values = y[np.sort(splits["train"])].astype(np.float64)
    return values.mean(axis=0).astype(np.float32), values.std(axis=0).astype(np.float32)


def _peak(name: str, shape: tuple[int, ...], y: np.ndarray, train: np.ndarray) -> float:
    """The range of values that PSNR refers to; refuses images that do not go together."""
    if y.shape[1] != shape[0] or scale_of(shape[1:], y.shape[2:]) is None:
        raise DatasetFormatError(
            f"the images of {name!r} are {shape_text(shape)} and their targets "
            f"{shape_text(y.shape[1:])}: give "
            "targets of as many channels whose height and width are 2, 3 or more times those of "
            "the images."
        )
    if y.dtype == np.uint8:
        return 255.0
    peak = float(y[train].max()) - float(y[train].min())
    if peak <= 0:
        raise DatasetFormatError(
            f"the target images of {name!r} hold one value only: there is nothing to learn."
        )
    return peak
