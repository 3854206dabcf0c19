"""Latency model: what any widths cost on a device in one precision.

It is fitted on the measurements of a `LatencyProfile`, and fitted again after each iteration
that the search has measured. An iteration is written before it is used, so that a job that was
stopped continues with the same predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.errors import StorageError
from inn_automl.core.result import CostModelErrors, Granularity
from inn_automl.integral import Widths
from inn_automl.latency import drift
from inn_automl.latency.config import QUICK, BenchmarkConfig
from inn_automl.latency.cost_model import CostModel, reliability_problem
from inn_automl.latency.design import initial_design
from inn_automl.latency.features import latency_features
from inn_automl.latency.granularity import find_granularity
from inn_automl.latency.profile import LatencyProfile, ProfileFiles
from inn_automl.latency.records import LatencyRow, ProfilingIteration
from inn_automl.latency.store import CachedMeasurement, cache_key
from inn_automl.pipeline.width_timer import WidthTimer
from inn_automl.width_search.device import Prediction
from inn_automl.width_search.space import SearchSpace

NUM_INITIAL_WIDTHS, INITIAL_FRACTION = 36, 0.6
"""Widths of the initial design, and the fraction of all allowed measurements that it may take."""
PROFILING = replace(QUICK, min_processes=6, max_processes=6, max_s=40.0)
"""For the initial design. All later measurements are compared with it, so it takes longer than a
busy neighbour or another clock rate often lasts.
"""
ITERATION = BenchmarkConfig(
    min_processes=3, max_processes=3, num_blocks=16, min_s=0.2, max_s=10.0, num_memory_runs=0
)
"""For a few widths while the search waits: one to two seconds."""
NUM_REFERENCE_CONFIGURATIONS = 3
"""Widths of the initial design (narrowest, widest and one between) that are measured in each
iteration.
"""
REMEASUREMENT_FACTOR = 2
"""Factor by which more widths are measured if the cost model is not reliable."""


class LatencyModel:
    """Costs of any widths on one device in one precision.

    Latency is what was measured where it was, else what is predicted. Fit the model before it is
    used.

    Args:
        timer: measures the device.
        files: where iterations are written.
        profile: what was measured so far, at least the initial design.
    """

    def __init__(self, timer: WidthTimer, files: ProfileFiles, profile: LatencyProfile) -> None:
        self.device, self.precision = timer.device, timer.precision
        self.space = SearchSpace(timer.network.groups, timer.device.granularity)
        self._timer, self._files, self._profile = timer, files, profile
        self._measured: dict[tuple[int, ...], float] = {}
        self._is_reliable = True
        self._first: CostModel | None = None
        self._cost_model = CostModel()
        self._bytes_per_parameter, self._overhead_bytes = 0.0, 0.0

    @property
    def errors(self) -> CostModelErrors:
        """Errors on held-out widths, of the latest fit."""
        return self._cost_model.errors

    @property
    def num_made(self) -> int:
        """Widths that were measured during the search."""
        return self._profile.num_in_search

    @property
    def num_left(self) -> int:
        """Widths that may still be measured; negative if another precision has used them up."""
        planned = num_initial_widths(self._max_measurements, self.space)
        return self._limit - planned - self.num_made

    @property
    def reference_ms(self) -> float:
        """Median latency of the reference model in the measurements; 0 if not known."""
        return self._profile.reference_ms

    @property
    def last_batch(self) -> int:
        """Number of finished batches at the latest iteration; -1 before the first."""
        return self._profile.last_batch

    @property
    def measured(self) -> dict[tuple[int, ...], float]:
        """Milliseconds of all widths that were measured for this network, by key."""
        return dict(self._measured)

    def is_measured(self, widths: Widths) -> bool:
        """Whether latency at these widths is known."""
        return self.space.key(widths) in self._measured

    def fit(self) -> LatencyModel:
        """Fits cost model and file sizes to everything that was measured.

        The kind of the cost model is chosen by what was measured before the search, so that it is
        the same after an interrupt.

        Returns:
            self.
        """
        profile = self._profile
        rows = profile.rows
        self._measured = {self.space.key(row.widths): row.latency_ms for row in rows}
        if self._first is None:
            before = [*profile.cached, *map(self._without_widths, profile.initial)]
            self._first = fit_cost_model(before)
        self._cost_model = self._first
        if profile.iterations:
            known = [*profile.cached_at_reference, *map(self._without_widths, rows)]
            self._cost_model = self._first.with_more(*training_samples(known))
        self._fit_sizes(rows)
        self._note_reliability()
        return self

    def measure(self, batch: int, widths: Sequence[Widths]) -> None:
        """Measures an iteration during the search, writes it, and fits again.

        A device that is mostly in another clock regime than before is profiled again, once.

        Args:
            batch: finished batches of evaluations.
            widths: to measure together.
        """
        references = self._profile.initial[:NUM_REFERENCE_CONFIGURATIONS]
        rows, factor = self._timer.measure_beside(references, widths, ITERATION)
        self._profile = self._profile.with_iteration(ProfilingIteration(batch, tuple(rows), factor))
        if drift.is_other_clock_regime(
            self._profile.initial, self._profile.iterations, max_drift=PROFILING.max_process_drift
        ):
            self._profile_again()
        self._files.write_iterations(self._profile)
        self.fit()

    def predict(self, batch: Sequence[Widths]) -> list[Prediction]:
        """Costs of each of the widths; the file's size by a line through the exported ones."""
        costs = [self._timer.network.costs(widths) for widths in batch]
        features = np.stack([latency_features(cost.layers) for cost in costs])
        latency_ms = self._cost_model.predict(features)
        return [
            Prediction(
                latency_ms=self._measured.get(self.space.key(widths), float(latency)),
                params=cost.params,
                macs=cost.macs,
                size_bytes=round(self._bytes_per_parameter * cost.params + self._overhead_bytes),
            )
            for widths, latency, cost in zip(batch, latency_ms, costs, strict=True)
        ]

    def granularity(self) -> Granularity | None:
        """The steps that the device computes widths in, by what was measured."""
        return find_granularity(self.space.values, self._measured, given=self.device.granularity)

    def describe(self) -> str:
        """Errors and interval of the cost model as a note."""
        errors = self.errors
        low, high = errors.interval or (1.0, 1.0)
        num_cached = len(self._profile.cached_at_reference)
        cached = f", {num_cached} of them of earlier jobs" if num_cached else ""
        return (
            f"{self._timer.label}: latency is predicted within {errors.median_relative:.1%} "
            f"(median over {errors.num_held_out} held-out widths{cached}), in 90 % of cases within "
            f"{low - 1:+.0%} to {high - 1:+.0%}; rank correlation {errors.spearman:.3f}"
        )

    def save_measurements(self) -> None:
        """Adds what was measured to the cache for later jobs; a cache that fails is noted."""
        cache, machine = self._timer.job.measurement_cache, self._profile.machine
        if cache is None or machine is None:
            return
        rows = [self._without_widths(row) for row in self._profile.rows]
        try:
            cache.save(
                cache_key_of(self._timer), machine, rows, cached=self._profile.cached_at_reference
            )
        except StorageError as error:
            self._timer.job.progress.note(
                f"{self._timer.label}: measurements could not be cached for later jobs ({error})"
            )

    @property
    def _max_measurements(self) -> int:
        return self._timer.job.spec.budget.search.max_measurements

    @property
    def _limit(self) -> int:
        return self._max_measurements * (1 if self._is_reliable else REMEASUREMENT_FACTOR)

    def _profile_again(self) -> None:
        self._timer.job.progress.note(
            f"{self._timer.label}: profiled again, because its speed is mostly another one than "
            "when it was profiled"
        )
        planned = num_initial_widths(self._max_measurements, self.space)
        chosen = initial_design(self.space, planned, seed=self._timer.job.spec.seed)
        config = replace(PROFILING, reference_ms=self.reference_ms)
        self._profile = self._profile.with_repeated(tuple(self._timer.measure(chosen, config).rows))

    def _without_widths(self, row: LatencyRow) -> CachedMeasurement:
        return CachedMeasurement(self._timer.network.costs(row.widths).layers, row.latency_ms)

    def _fit_sizes(self, rows: Sequence[LatencyRow]) -> None:
        params = [self._timer.network.costs(row.widths).params for row in rows]
        slope, intercept = np.polyfit(params, [row.size_bytes for row in rows], 1)
        self._bytes_per_parameter, self._overhead_bytes = float(slope), float(intercept)

    def _note_reliability(self) -> None:
        problem = reliability_problem(self.errors)
        if (problem is None) == self._is_reliable:
            return
        self._is_reliable = problem is None
        verdict = "is reliable now" if problem is None else f"is not reliable ({problem})"
        self._timer.job.progress.note(
            f"{self._timer.label}: the cost model {verdict}: up to {self._limit} widths are "
            "measured"
        )


def num_initial_widths(max_measurements: int, space: SearchSpace) -> int:
    """Widths of the initial design, given how many may be measured in all."""
    return min(NUM_INITIAL_WIDTHS, round(INITIAL_FRACTION * max_measurements), space.num_points)


def cache_key_of(timer: WidthTimer) -> dict[str, object]:
    """The key of a timer's measurements in the cache."""
    job, network = timer.job, timer.network
    layers = network.costs(network.full_widths).layers
    return cache_key(
        timer.device, job.family, job.task.dataset.input_shape, layers, timer.precision
    )


def fit_cost_model(rows: Sequence[CachedMeasurement]) -> CostModel:
    """The cost model of measurements, of the kind that cross-validates best."""
    return CostModel().fit(*training_samples(rows))


def training_samples(rows: Sequence[CachedMeasurement]) -> tuple[NDArray[np.float64], list[float]]:
    """Features (n, f) and milliseconds (n,) of measurements."""
    features = np.stack([latency_features(row.layers) for row in rows])
    return features, [row.latency_ms for row in rows]
