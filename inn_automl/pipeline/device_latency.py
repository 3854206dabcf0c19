"""What any point costs on a device, in each of the precisions that it offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.precision import split_point
from inn_automl.core.result import CostModelErrors, Granularity
from inn_automl.pipeline.latency_model import LatencyModel
from inn_automl.search.space import SearchSpace, Widths
from inn_automl.search.study import Prediction

if TYPE_CHECKING:
    from inn_automl.core.spec import DeviceBudget
    from inn_automl.export import OnnxTemplate
    from inn_automl.integral import IntegralNetwork
    from inn_automl.pipeline.context import JobContext


class DeviceLatency:
    """Costs of any point on one device.

    A precision that is nowhere faster is left out, unless the size of the file is bounded. It is a
    `search.active_learning.ActiveLearning`.

    Args:
        template: makes the exporter, when it is needed.

    Raises:
        MeasurementError: the device could not be measured.
        ExportError, StorageError: a model could not be exported or a file not be written.
    """

    def __init__(
        self,
        job: JobContext,
        network: IntegralNetwork,
        device: DeviceBudget,
        template: Callable[[], OnnxTemplate],
    ) -> None:
        self.budget, self._job = device, job
        found = {p: LatencyModel(job, network, device, p, template) for p in device.precisions}
        first, *others = device.precisions
        for precision in others:
            ratios = _ratios(found[precision], found[first])
            useless = ratios.min() >= 1 and device.max_size_bytes is None
            job.progress.note(
                f"{device.name}: {precision} takes {ratios.min():.2f} to {ratios.max():.2f} times "
                f"as long as {first} "
                f"at the same widths{', so it is not searched' if useless else ''}"
            )
            if useless:
                del found[precision]
        self._by_precision = found
        self.space = SearchSpace(
            network.groups, device.granularity, tuple(found), job.spec.budget.precisions
        )

    @property
    def margin(self) -> float:
        return self.error.median_relative

    @property
    def error(self) -> CostModelErrors:
        """Of held-out widths, by the latest fit; where there are several precisions the worst in
        each respect.
        """
        errors = [one.error for one in self._by_precision.values()]
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
        """What the reference model took in the median of the measurements; 0 where it is not
        known.
        """
        return next(iter(self._by_precision.values())).reference_ms

    @property
    def num_made(self) -> int:
        return sum(one.num_made for one in self._by_precision.values())

    @property
    def num_left(self) -> int:
        if self.budget.name in self._job.unavailable_devices:
            return 0
        return max(0, sum(one.num_left for one in self._by_precision.values()))

    @property
    def last_batch(self) -> int:
        return max(one.last_batch for one in self._by_precision.values())

    @property
    def num_measured(self) -> int:
        """Points that were measured, before the search and in it."""
        return sum(len(one.measured) for one in self._by_precision.values())

    def is_measured(self, point: Widths) -> bool:
        widths, precision = split_point(point)
        return precision in self._by_precision and self._by_precision[precision].is_measured(widths)

    def predict(self, batch: Sequence[Widths]) -> list[Prediction]:
        """Predicted costs of each of the points; of a precision that is not offered, those of the
        first.
        """
        points = [split_point(point) for point in batch]
        first = next(iter(self._by_precision.values()))
        found: dict[int, Prediction] = {}
        for precision in dict.fromkeys(precision for _, precision in points):
            indices = [i for i, point in enumerate(points) if point[1] == precision]
            known = self._by_precision.get(precision)
            costs = (known or first).predict([points[i][0] for i in indices])
            found.update(
                zip(
                    indices, (replace(one, offered=known is not None) for one in costs), strict=True
                )
            )
        return [found[i] for i in range(len(points))]

    def measure(self, batch: int, points: Sequence[Widths]) -> None:
        """Measures points together, and none any more once the device has failed."""
        split = [split_point(point) for point in points]
        with self._job.tolerate_failure(self.budget, MeasurementError, SpecError):
            for precision, latency in self._by_precision.items():
                if widths := [widths for widths, of in split if of == precision]:
                    latency.measure(batch, widths)

    def granularity(self) -> Granularity | None:
        """What the measured widths of the first precision say of the steps that the device
        computes in.
        """
        return next(iter(self._by_precision.values())).granularity()

    def describe(self) -> list[str]:
        """The cost models' errors and intervals as notes."""
        return [one.describe() for one in self._by_precision.values()]

    def save_measurements(self) -> None:
        """Adds what was measured to the store for later jobs."""
        for one in self._by_precision.values():
            one.save_measurements()


def _ratios(one: LatencyModel, other: LatencyModel) -> np.ndarray:
    """Latencies at the widths of the initial design, which are the same for every precision."""
    mine, theirs = one.measured, other.measured
    return np.array([mine[key] / theirs[key] for key in mine if key in theirs])
