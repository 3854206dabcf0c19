"""Profiling: what any widths cost on a device in one precision, learned from a few dozen that
are measured, and from more while the search goes on.

DIR/search/profiling-DEVICE.json          widths measured before the search
DIR/search/profiling-DEVICE-cached.json    measurements of earlier jobs that are used beside them
DIR/search/profiling-DEVICE-rounds.json   widths measured in the search, by the number of batches
before them DIR/search/onnx/                            what was measured

DEVICE is followed by `+PRECISION` where that is not fp32.

Everything is written before it is used, so that a job that was stopped goes on with the same
predictions.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.errors import StorageError
from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import CostModelErrors, Granularity
from inn_automl.core.spec import DeviceBudget, JobSpec
from inn_automl.core.storage import read_json, write_json
from inn_automl.evaluation.onnx_precision import convert_file
from inn_automl.export import OnnxTemplate
from inn_automl.integral import IntegralNetwork, Widths
from inn_automl.latency.benchmark import QUICK
from inn_automl.latency.cost_model import CostModel, reliability_problem
from inn_automl.latency.design import initial_design
from inn_automl.latency.features import latency_features
from inn_automl.latency.granularity import find_granularity
from inn_automl.latency.measurement import BenchmarkConfig
from inn_automl.latency.store import (
    CachedMeasurement,
    LayerFigures,
    cache_key,
    cached_measurement,
    machine_fingerprint,
    verify,
)
from inn_automl.pipeline.context import JobContext
from inn_automl.search.space import SearchSpace
from inn_automl.search.study import Prediction

NUM_INITIAL_WIDTHS, INITIAL_FRACTION = 36, 0.6
"""Widths measured before the search, and the share of all allowed measurements that they may take."""
PROFILING = replace(QUICK, min_processes=6, max_processes=6, max_s=40.0)
"""Everything after it is told by it: it takes longer than a busy neighbour or another clock rate
often lasts.
"""
NUM_REFERENCE_CONFIGURATIONS = 3
"""Calibration widths (the narrowest, the widest and one between) that later ones are measured
beside.
"""
FEWEST_ROUNDS = 2
"""Rounds that tell whether a device is at another speed than when it was calibrated."""
NUM_CHECKED, MIN_CACHED = 8, 20
"""Fresh widths that measurements of earlier jobs are compared with, and how many of these make it
worth it.
"""
REMEASUREMENT_FACTOR = 2
"""Times as many widths are measured where the predictor cannot be trusted."""
ROUND = BenchmarkConfig(
    min_processes=3, max_processes=3, num_blocks=16, min_s=0.2, max_s=10.0, num_memory_runs=0
)
"""For a few widths while the search waits: one to two seconds."""

_SETTINGS = ("name", "agent", "runtime", "threads", "batch_size", "percentile", "granularity")
"""What a device's initial depends on."""

Template = Callable[[], OnnxTemplate]


class LatencyModel:
    """Costs of any widths on one device in one precision: latency as measured where it was, else
    as predicted.

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
        precision: str,
        template: Template,
    ) -> None:
        self.budget, self.precision = device, precision
        # A plus sign, because no device has one in its name.
        self._key = device.name if precision == DEFAULT else f"{device.name}+{precision}"
        self._called = (
            device.name if device.precisions == (DEFAULT,) else f"{device.name}, {precision}"
        )
        self.space = SearchSpace(network.groups, device.granularity)
        self._job, self._network, self._template = job, network, template
        self._architecture = cache_key(
            device,
            job.family,
            job.dataset.input_shape,
            network.costs(network.full_widths),
            precision,
        )
        if not self._path().exists() and not self._adopt_parent():
            self._profile()
        record = read_json(self._path("-cached")) if self._path("-cached").exists() else {}
        self._cached = [_read_known(one) for one in record.get("rows", [])]
        self._machine: dict[str, Any] | None = record.get("machine")
        self._rounds: list[dict[str, Any]] = (
            read_json(self._path("-rounds")) if self._path("-rounds").exists() else []
        )
        self._reliable = True
        self._first: CostModel | None = None
        self._fit()

    @property
    def error(self) -> CostModelErrors:
        """Of held-out widths, by the latest fit."""
        return self._cost_model.error

    @property
    def num_made(self) -> int:
        """Widths that were measured in the search."""
        return sum(len(one["rows"]) for one in self._rounds)

    @property
    def num_left(self) -> int:
        """Widths that may still be measured; negative if another precision's were measured
        instead.
        """
        limit = self._job.spec.budget.search.max_measurements * (
            1 if self._reliable else REMEASUREMENT_FACTOR
        )
        return limit - self._num_planned() - self.num_made

    @property
    def reference_ms(self) -> float:
        """What the reference model took in the median of these measurements (of two, the slower);
        0: not known.
        """
        calls = [
            self._initial,
            *(one[key] for one in self._rounds for key in ("rows", "repeated") if key in one),
        ]
        taken = [rows[0].get("reference_ms") for rows in calls]
        return statistics.median_high([one for one in taken if one] or [0.0])

    @property
    def last_batch(self) -> int:
        """Number of finished batches at the latest round; -1 before the first."""
        return int(self._rounds[-1]["batch"]) if self._rounds else -1

    @property
    def measured(self) -> dict[tuple[int, ...], float]:
        """Latency in milliseconds of all widths that were measured for this network, by key."""
        return dict(self._measured)

    def is_measured(self, widths: Widths) -> bool:
        """Whether latency at these widths is known."""
        return self.space.key(widths) in self._measured

    def predict(self, batch: Sequence[Widths]) -> list[Prediction]:
        """Costs of each of the widths; the size of the file by a line through the exported ones."""
        costs = [self._network.costs(widths) for widths in batch]
        latency_ms = self._cost_model.predict(np.stack([latency_features(cost) for cost in costs]))
        return [
            Prediction(
                latency_ms=self._measured.get(self.space.key(widths), float(latency)),
                params=cost.params,
                macs=cost.macs,
                size_bytes=round(self._bytes_per_parameter * cost.params + self._overhead_bytes),
            )
            for widths, latency, cost in zip(batch, latency_ms, costs, strict=True)
        ]

    def measure(self, batch: int, widths: Sequence[Widths]) -> None:
        """Measures widths together after a number of finished batches, keeps what was found, and
        fits anew.
        """
        rows, factor = self._measure_beside(self._initial, widths, ROUND)
        self._rounds.append({"batch": batch, "rows": rows, "speed_factor": factor})
        if self._is_at_another_speed():
            self._job.progress.note(
                f"{self._called}: profiled again, for it is mostly at another speed than when it "
                f"was profiled"
            )
            chosen = initial_design(self.space, self._num_planned(), seed=self._job.spec.seed)
            again, _ = self._measure(chosen, replace(PROFILING, reference_ms=self.reference_ms))
            self._rounds[-1]["repeated"] = again
        write_json(self._path("-rounds"), self._rounds)
        self._fit()

    def _is_at_another_speed(self) -> bool:
        """Whether the reference model was another in most rounds: not all widths take as much
        longer then.
        """
        before = self._initial[0].get("reference_ms")
        if (
            not before
            or len(self._rounds) < FEWEST_ROUNDS
            or any("repeated" in one for one in self._rounds)
        ):
            return False
        taken = [one["rows"][0].get("reference_ms") or before for one in self._rounds]
        return (
            sum(abs(one / before - 1) > PROFILING.max_process_drift for one in taken)
            > len(taken) / 2
        )

    def granularity(self) -> Granularity | None:
        """What the measured widths say of the steps that the device computes in."""
        return find_granularity(self.space.values, self._measured, given=self.budget.granularity)

    def describe(self) -> str:
        """The cost model's errors and interval as a note."""
        error = self.error
        low, high = error.interval or (1.0, 1.0)
        num_cached = f" and {len(cached)} of earlier jobs" if (cached := self._cached_now()) else ""
        return (
            f"{self._called}: latency is predicted within {error.median_relative:.1%} (median over "
            f"{error.num_held_out} held-out widths{num_cached and ', those'}{num_cached}), in 90 % of "
            f"cases within "
            f"{low - 1:+.0%} to {high - 1:+.0%}; rank correlation {error.spearman:.3f}"
        )

    def save_measurements(self) -> None:
        """Adds what was measured to the store for later jobs."""
        store = self._job.measurement_cache
        if store is None or self._machine is None:
            return
        rows = [
            cached_measurement(self._network.costs(row["widths"]), row["latency_ms"])
            for row in self._rows()
        ]
        try:
            store.save(self._architecture, self._machine, rows, cached=self._cached_now())
        except StorageError as error:
            self._job.progress.note(
                f"{self._called}: measurements could not be cached for later jobs ({error})"
            )

    def _path(self, ending: str = "") -> Path:
        return self._job.folder / "search" / f"profiling-{self._key}{ending}.json"

    def _rows(self) -> list[dict[str, Any]]:
        return to_reference(self._initial, self._rounds)

    def _cached_now(self) -> list[CachedMeasurement]:
        """Measurements of earlier jobs at the usual speed; none once all was calibrated again."""
        if any("repeated" in one for one in self._rounds):
            return []
        factor = speed_factor(self._rounds)
        return [CachedMeasurement(one.layers, factor * one.latency_ms) for one in self._cached]

    def _num_planned(self) -> int:
        limit = self._job.spec.budget.search.max_measurements
        return min(NUM_INITIAL_WIDTHS, round(INITIAL_FRACTION * limit), self.space.num_points)

    def _fit(self) -> None:
        self._initial: list[dict[str, Any]] = read_json(self._path())
        rows = self._rows()
        costs = [self._network.costs(row["widths"]) for row in rows]
        self._measured = {self.space.key(row["widths"]): float(row["latency_ms"]) for row in rows}
        known = [
            *self._cached_now(),
            *map(cached_measurement, costs, [row["latency_ms"] for row in rows]),
        ]
        if self._first is None:
            # The kind is chosen by what was measured before the search, so that it is the same
            # after an interrupt.
            before = [
                cached_measurement(self._network.costs(row["widths"]), row["latency_ms"])
                for row in self._initial
            ]
            self._first = _fitted([*self._cached, *before])
        self._cost_model = self._first.with_more(*_samples(known)) if self._rounds else self._first
        slope, intercept = np.polyfit(
            [cost.params for cost in costs], [row["size_bytes"] for row in rows], 1
        )
        self._bytes_per_parameter, self._overhead_bytes = float(slope), float(intercept)
        fault = reliability_problem(self.error)
        if (fault is None) != self._reliable:
            self._reliable = fault is None
            limit = self._job.spec.budget.search.max_measurements * (
                1 if self._reliable else REMEASUREMENT_FACTOR
            )
            why = "is reliable now" if fault is None else f"is not reliable ({fault})"
            self._job.progress.note(
                f"{self._called}: the cost model {why}: up to {limit} widths are measured"
            )

    def _adopt_parent(self) -> bool:
        """Takes over what the parent measured, if it measured this very device: only its bounds
        may be others.
        """
        parent, name = self._job.parent, self._path().name
        if parent is None or not (parent / "search" / name).exists():
            return False
        known = JobSpec.model_validate(read_json(parent / "job.json")["spec"]).budget.devices
        if not any(
            all(getattr(one, key) == getattr(self.budget, key) for key in _SETTINGS)
            for one in known
        ):
            return False
        rounds = parent / "search" / self._path("-rounds").name
        later = read_json(rounds) if rounds.exists() else []
        self._job.reuse_from_parent(f"search/{self._path('-cached').name}")
        write_json(self._path(), to_reference(read_json(parent / "search" / name), later))
        return True

    def _profile(self) -> None:
        """Measures widths all over the space; fewer where earlier jobs measured this device and
        still are right.
        """
        self._initial, self._rounds, self._cached = [], [], []
        chosen = initial_design(self.space, self._num_planned(), seed=self._job.spec.seed)
        first = chosen
        if self._is_known() and len(chosen) > NUM_CHECKED:
            first = [*chosen[:2], *chosen[-(NUM_CHECKED - 2) :]]
        rows, environment = self._measure(first, PROFILING)
        self._machine = machine_fingerprint(self.budget, environment)
        if len(first) < len(chosen):
            self._cached = self._verified(rows, self._machine)
            if not self._cached:
                rest = [widths for widths in chosen if widths not in first]
                rows += self._measure_beside(rows, rest, PROFILING)[0]
        cached = {
            "machine": self._machine,
            "rows": [[one.latency_ms, one.layers] for one in self._cached],
        }
        write_json(self._path("-cached"), cached)
        write_json(self._path(), rows)
        self._initial = rows
        self.save_measurements()

    def _is_known(self) -> bool:
        store = self._job.measurement_cache
        try:
            return store is not None and store.contains(self._architecture)
        except StorageError as error:
            self._job.progress.note(
                f"{self._called}: measurements of earlier jobs cannot be read ({error})"
            )
            return False

    def _verified(
        self, fresh: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]
    ) -> list[CachedMeasurement]:
        """Rows of earlier jobs on this device, on the scale of the fresh ones; none where these
        disagree.
        """
        store = self._job.measurement_cache
        cached = store.load(self._architecture, machine) if store is not None else []
        if len(cached) < MIN_CACHED:
            return []
        features = np.stack([latency_features(self._network.costs(row["widths"])) for row in fresh])
        verdict = verify([row["latency_ms"] for row in fresh], _fitted(cached).predict(features))
        self._job.progress.note(f"{self._called}: {verdict.sentence}")
        if verdict.scale is None:
            return []
        return [CachedMeasurement(one.layers, one.latency_ms * verdict.scale) for one in cached]

    def _measure_beside(
        self, known: Sequence[Mapping[str, Any]], widths: Sequence[Widths], config: BenchmarkConfig
    ) -> tuple[list[dict[str, Any]], float]:
        """Rows of widths, measured together with some that are known: as if measured when these
        were.

        Returns:
            And by what factor everything took longer now than then.
        """
        references = known[:NUM_REFERENCE_CONFIGURATIONS]
        rows, _ = self._measure([*(row["widths"] for row in references), *widths], config)
        again, new = rows[: len(references)], rows[len(references) :]
        factor = statistics.median(
            now["latency_ms"] / then["latency_ms"]
            for now, then in zip(again, references, strict=True)
        )
        return [{**row, "latency_ms": row["latency_ms"] / factor} for row in new], factor

    def _measure(
        self, widths: Sequence[Widths], config: BenchmarkConfig
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows of widths, measured together, and what they were measured on."""
        name, progress = self._called, self._job.progress
        in_search = config is not PROFILING
        models = {}
        for position, one in enumerate(widths):
            if not in_search:
                progress.update(0.5 * position / len(widths), detail=f"{name}: exporting")
            models[str(position)] = self._export(one)
        found = self._job.measure(
            models,
            self.budget,
            config=config,
            on_progress=None
            if in_search
            else lambda share: progress.update(0.5 + 0.5 * share, detail=f"{name}: measuring"),
        )
        environment = next(iter(found.values())).environment
        rows = [
            {
                "widths": dict(one),
                "latency_ms": found[key].summary.at_percentile,
                "size_bytes": models[key].stat().st_size,
                "reference_ms": environment.get("reference_ms"),
            }
            for key, one in zip(models, widths, strict=True)
        ]
        return rows, environment

    def _export(self, widths: Widths) -> Path:
        """The ONNX file of widths, for timing: its statistics are not re-estimated, which changes
        no operation.
        """
        name = f"search/onnx/{'-'.join(str(widths[group.name]) for group in self._network.groups)}"
        path = self._job.folder / f"{name}.onnx"
        if not self._job.reuse_from_parent(f"{name}.onnx"):
            self._template().export(self._network.discretize(widths).eval(), path, widths=widths)
        if self.precision != DEFAULT:
            source, path = path, self._job.folder / f"{name}.{self.precision}.onnx"
            if not self._job.reuse_from_parent(f"{name}.{self.precision}.onnx"):
                convert_file(source, path, self.precision, self._job.dataset)
        return path


def speed_factor(rounds: Sequence[Mapping[str, Any]]) -> float:
    """By what factor everything took longer in most of the measurements than in the initial;
    of two, the larger.
    """
    return statistics.median_high([1.0, *(one.get("speed_factor", 1.0) for one in rounds)])


def to_reference(
    initial: Sequence[Mapping[str, Any]], rounds: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """All rows, as if measured when the device was as fast as it was in most of the measurements.

    Where the initial was made again its rows stand for the first ones.
    """
    measured = [row for one in rounds for row in one["rows"]]
    again = next((one["repeated"] for one in rounds if "repeated" in one), None)
    if again is None:
        factor = speed_factor(rounds)
        return [{**row, "latency_ms": factor * row["latency_ms"]} for row in [*initial, *measured]]
    now = {tuple(row["widths"].values()): row["latency_ms"] for row in again}
    ratios = [
        now[key] / row["latency_ms"]
        for row in initial
        if (key := tuple(row["widths"].values())) in now
    ]
    factor = statistics.median(ratios)
    return [*again, *({**row, "latency_ms": factor * row["latency_ms"]} for row in measured)]


def _fitted(rows: Sequence[CachedMeasurement]) -> CostModel:
    return CostModel().fit(*_samples(rows))


def _samples(rows: Sequence[CachedMeasurement]) -> tuple[NDArray[np.float64], list[float]]:
    """Features (n, f) and latencies (n,)."""
    return np.stack([latency_features(row) for row in rows]), [row.latency_ms for row in rows]


def _read_known(value: Any) -> CachedMeasurement:
    return CachedMeasurement(tuple(LayerFigures(*layer) for layer in value[1]), float(value[0]))
