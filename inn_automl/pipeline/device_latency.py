"""Costs of any point on a device, in each of the precisions that it offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.precision import split_point
from inn_automl.core.result import CostModelErrors, Granularity
from inn_automl.pipeline.latency_model import LatencyModel
from inn_automl.width_search.device import Prediction
from inn_automl.width_search.space import SearchSpace, Widths

if TYPE_CHECKING:
    from inn_automl.core.spec import DeviceBudget
    from inn_automl.pipeline.context import JobContext


class DeviceLatency:
    """Costs of any point on one device, in each of the precisions that are searched.

    It is the `search.active_learning.ActiveLearning` of the device.

    Args:
        models: of the precisions that are searched, at least one.
        space: the points of these precisions.
    """

    def __init__(
        self,
        job: JobContext,
        device: DeviceBudget,
        models: Mapping[str, LatencyModel],
        space: SearchSpace,
    ) -> None:
        self.budget, self.space = device, space
        self._job, self._models = job, models

    @property
    def margin(self) -> float:
        return self.errors.median_relative

    @property
    def errors(self) -> CostModelErrors:
        """Errors on held-out widths, of the latest fit; of several precisions the worst in each
        respect.
        """
        errors = [one.errors for one in self._models.values()]
        intervals = [error.interval for error in errors if error.interval]
        return CostModelErrors(
            median_relative=max(error.median_relative for error in errors),
            p90_relative=max(error.p90_relative for error in errors),
            spearman=min(error.spearman for error in errors),
            num_fitted=sum(error.num_fitted for error in errors),
            num_held_out=sum(error.num_held_out for error in errors),
            held_out_ms=tuple(pair for error in errors for pair in error.held_out_ms),
            interval=(min(low for low, _ in intervals), max(high for _, high in intervals))
            if intervals
            else None,
        )

    @property
    def reference_ms(self) -> float:
        """Median latency of the reference model in the measurements; 0 if not known."""
        return next(iter(self._models.values())).reference_ms

    @property
    def num_made(self) -> int:
        return sum(one.num_made for one in self._models.values())

    @property
    def num_left(self) -> int:
        if self.budget.name in self._job.unavailable_devices:
            return 0
        return max(0, sum(one.num_left for one in self._models.values()))

    @property
    def last_batch(self) -> int:
        return max(one.last_batch for one in self._models.values())

    @property
    def num_measured(self) -> int:
        """Points that were measured, before the search and in it."""
        return sum(len(one.measured) for one in self._models.values())

    def is_measured(self, point: Widths) -> bool:
        widths, precision = split_point(point)
        return precision in self._models and self._models[precision].is_measured(widths)

    def predict(self, batch: Sequence[Widths]) -> list[Prediction]:
        """Costs of each of the points.

        A point in a precision that is not searched has the costs of the first precision, and is
        not offered.
        """
        points = [split_point(point) for point in batch]
        first = next(iter(self._models.values()))
        found: dict[int, Prediction] = {}
        for precision in dict.fromkeys(precision for _, precision in points):
            indices = [i for i, point in enumerate(points) if point[1] == precision]
            known = self._models.get(precision)
            costs = (known or first).predict([points[i][0] for i in indices])
            found.update(
                zip(
                    indices, (replace(one, offered=known is not None) for one in costs), strict=True
                )
            )
        return [found[i] for i in range(len(points))]

    def measure(self, batch: int, points: Sequence[Widths]) -> None:
        """Measures points together during the search.

        A device that fails here is noted as unavailable, and no more is measured on it.
        """
        split = [split_point(point) for point in points]
        with self._job.tolerate_failure(self.budget, MeasurementError, SpecError):
            for precision, latency in self._models.items():
                if widths := [widths for widths, of in split if of == precision]:
                    latency.measure(batch, widths)

    def granularity(self) -> Granularity | None:
        """The steps that the device computes widths in, by what was measured in the first
        precision.
        """
        return next(iter(self._models.values())).granularity()

    def describe(self) -> list[str]:
        """Errors and intervals of the cost models as notes."""
        return [one.describe() for one in self._models.values()]

    def save_measurements(self) -> None:
        """Adds what was measured to the cache for later jobs."""
        for one in self._models.values():
            one.save_measurements()


def offered_precisions(
    device: DeviceBudget, models: Mapping[str, LatencyModel], *, note: Callable[[str], None]
) -> dict[str, LatencyModel]:
    """The precisions that are worth a search.

    One that is nowhere faster than the first is left out, unless the size of the file is bounded.

    Args:
        note: called with the comparison of each precision with the first.
    """
    first, *others = device.precisions
    offered = dict(models)
    for precision in others:
        ratios = _latency_ratios(models[precision], models[first])
        is_useless = ratios.min() >= 1 and device.max_size_bytes is None
        note(
            f"{device.name}: {precision} takes {ratios.min():.2f} to {ratios.max():.2f} times as "
            f"long as {first} at the same widths{', so it is not searched' if is_useless else ''}"
        )
        if is_useless:
            del offered[precision]
    return offered


def _latency_ratios(model: LatencyModel, baseline: LatencyModel) -> NDArray[np.float64]:
    """Latencies relative to a baseline's, at all widths that both have measured."""
    ours, other = model.measured, baseline.measured
    return np.array([ours[key] / other[key] for key in ours if key in other])
