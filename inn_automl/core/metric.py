"""The metrics of each task: their names, their units, and the scales on which values are shown.

Higher metric values are better. Fractions, such as accuracy, are stored as fractions and shown in
percent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypedDict

from inn_automl.core.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TaskKind = Literal["classification", "regression", "super-resolution"]
TASKS: tuple[TaskKind, ...] = ("classification", "regression", "super-resolution")


class _Scale(TypedDict):
    unit: str
    factor: float
    decimals: int
    limit: float
    least_error: float


@dataclass(frozen=True)
class Metric:
    """A metric that models are compared by.

    Attributes:
        name: in files and as the name of an MLflow metric, with its unit where it has one:
            `front/psnr_db`.
        label: in sentences and on axes.
        unit: of the shown value; empty for none.
        factor: shown value / stored value.
        decimals: of a shown value.
        limit: nothing is better than this stored value; infinite for none.
        least_error: what is nearer to the limit than this counts as this near, for its logarithm
            would be noise.
    """

    name: str
    label: str
    unit: str
    factor: float
    decimals: int
    limit: float
    least_error: float

    @property
    def key(self) -> str:
        """The name in letters that names of MLflow may have."""
        return re.sub(r"[^\w\-. ]", "_", self.name)

    @property
    def axis(self) -> str:
        """The title of an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def shown(self, value: float) -> float:
        """Converts a stored value to the scale on which it is shown."""
        return self.factor * value

    def text(self, value: float, *, decimals: int | None = None) -> str:
        """A stored value with its unit: `97.12 %`, `0.913`, `31.20 dB`."""
        return f"{self.number(value, decimals=decimals)} {self.unit}".rstrip()

    def brief(self, value: float) -> str:
        """A stored value with its unit and one decimal less, where there is one to spare."""
        return self.text(value, decimals=max(1, self.decimals - 1))

    def number(self, value: float, *, decimals: int | None = None) -> str:
        """A stored value as people read it, without its unit."""
        return f"{self.shown(value):.{self.decimals if decimals is None else decimals}f}"

    def transform(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Maps metric values to the scale that a search models: -log(limit - value).

        The error rate of a network falls roughly like a power of its widths, so this scale is
        close to linear in the logarithm of the widths. Decibels are logarithmic already and are
        only rescaled. An outcome transform in the sense of BoTorch; `untransform` is its inverse.
        """
        import numpy as np  # a result is read without it

        if math.isinf(self.limit):
            return value * _NEPERS
        error = np.maximum(self.limit - value, self.least_error)
        return -np.log(error)

    def untransform(self, transformed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Maps transformed values back to metric values."""
        import numpy as np

        if math.isinf(self.limit):
            return transformed / _NEPERS
        return self.limit - np.exp(-transformed)


_NEPERS = math.log(10) / 10
"""A decibel in units of the natural logarithm of a power."""

_FRACTION: _Scale = {"unit": "%", "factor": 100.0, "decimals": 2, "limit": 1.0, "least_error": 2e-3}
"""Of fractions of samples. Error rates below 0.002 are noise of single samples."""
RECALL = "recall:"
"""Begin of the name of the recall of one class, which follows."""

ACCURACY = Metric("accuracy", "accuracy", **_FRACTION)
"""Fraction of the samples that are classified correctly."""
BALANCED_ACCURACY = Metric("balanced_accuracy", "balanced accuracy", **_FRACTION)
"""Mean of the recalls of all classes."""
MACRO_F1 = Metric("macro_f1", "macro F1", "", 1.0, 4, 1.0, 2e-3)
"""Mean over the classes of the harmonic mean of precision and recall."""
AUROC = Metric("auroc", "AUROC", "", 1.0, 4, 1.0, 2e-3)
"""Area under the receiver operating characteristic; of several classes, the mean of each class
against the rest.
"""
R2 = Metric("r2", "R²", "", 1.0, 4, 1.0, 1e-5)
"""1 - squared error / variance, the mean over the targets; predicting their mean gives 0."""
PSNR = Metric("psnr_db", "PSNR", "dB", 1.0, 2, math.inf, 0.0)
"""Peak signal-to-noise ratio of an image, the mean over the images."""

METRICS: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for metric in (ACCURACY, BALANCED_ACCURACY, MACRO_F1, AUROC, R2, PSNR)}
)
METRICS_OF_TASKS: Mapping[TaskKind, tuple[Metric, ...]] = MappingProxyType(
    {
        "classification": (ACCURACY, BALANCED_ACCURACY, MACRO_F1, AUROC),
        "regression": (R2,),
        "super-resolution": (PSNR,),
    }
)
"""The metrics that models of each task may be compared by, the default first. Classification also
has the recall of each class.
"""


def get_metric(name: str) -> Metric:
    """The metric of that name: one of `METRICS`, or `recall:CLASS`.

    Raises:
        UnknownNameError: there is none.
    """
    if name.startswith(RECALL) and len(name) > len(RECALL):
        return Metric(name, f"recall of {name.removeprefix(RECALL)}", **_FRACTION)
    if name not in METRICS:
        raise UnknownNameError("metric", name, (*METRICS, f"{RECALL}CLASS"))
    return METRICS[name]


def metric_of_task(
    name: str | None, task: TaskKind, classes: Sequence[str] | None = None
) -> Metric:
    """The metric of a job.

    Args:
        name: None for the default of the task.
        task: of the dataset.
        classes: names of the dataset's classes; None where they are not known yet.

    Raises:
        UnknownNameError: there is no such metric or class.
        SpecError: it is the metric of another task.
    """
    known = METRICS_OF_TASKS[task]
    if name is None:
        return known[0]
    metric = get_metric(name)
    if name.startswith(RECALL) and task == "classification":
        label = name.removeprefix(RECALL)
        if classes is not None and label not in classes:
            raise UnknownNameError("class", label, classes, f"metric {name!r}")
    elif metric not in known:
        recall = [f"{RECALL}CLASS"] if task == "classification" else []
        raise SpecError(
            f"metric {name!r} is none of {task}: use "
            f"{' or '.join([*(one.name for one in known), *recall])}, or leave it out."
        )
    return metric


def check_class_weights(class_weights: str, task: TaskKind) -> None:
    """Checks that a task has classes to weigh.

    Raises:
        SpecError: it has none.
    """
    if class_weights != "none" and task != "classification":
        raise SpecError(
            f"class_weights = {class_weights!r} needs classes, and the task of the dataset is "
            f"{task}: leave them out."
        )
