"""The metric of each task: its name, its unit, and the scale on which its values are shown.

Higher metric values are better. Fractions, such as accuracy, are stored as fractions and shown in
percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from inn_automl.core.errors import UnknownNameError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TaskKind = Literal["classification", "regression", "super-resolution"]
TASKS: tuple[TaskKind, ...] = ("classification", "regression", "super-resolution")


@dataclass(frozen=True)
class Metric:
    """The metric of one task.

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

ACCURACY = Metric("accuracy", "accuracy", "%", 100.0, 2, 1.0, 2e-3)
"""Fraction of the samples that are classified correctly. Error rates below 0.002 are noise of
single samples.
"""
R2 = Metric("r2", "R²", "", 1.0, 4, 1.0, 1e-5)
"""1 - squared error / variance, the mean over the targets; predicting their mean gives 0."""
PSNR = Metric("psnr_db", "PSNR", "dB", 1.0, 2, math.inf, 0.0)
"""Peak signal-to-noise ratio of an image, the mean over the images."""

METRICS: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for metric in (ACCURACY, R2, PSNR)}
)


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return METRICS[name]
