"""Measuring: finalists are exported and measured; fronts are made of measured values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.metric import Metric
from inn_automl.core.result import Candidate, LatencySummary
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.stage import Stage
from inn_automl.core.storage import load_or_make
from inn_automl.latency.config import THOROUGH
from inn_automl.latency.measurement import LatencyMeasurement, PeakMemory
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import ExportedModel, point_id
from inn_automl.pipeline.layer_profile import with_layers
from inn_automl.pipeline.records import (
    MeasuredDevice,
    MeasuredDevices,
    MeasuredModel,
    SearchedDevice,
    SearchedDevices,
)
from inn_automl.width_search.choice import choose_finalists, front_and_recommendation

MAX_FINALISTS = 20
"""Candidates measured for each device."""

LARGE_DRIFT = 0.1
"""A job says so when more than this fraction of a device's batches drifted."""

Finalists = dict[str, Candidate]
"""Candidates of one device by id."""


@dataclass(frozen=True)
class DeviceMeasurement:
    """Content of `DIR/measuring/DEVICE.json`; the dictionaries are by model."""

    environment: dict[str, Any]
    latency_ms: dict[str, LatencySummary]
    converged: dict[str, bool]
    diagnostics: dict[str, str]
    memory: dict[str, PeakMemory | None]
    samples_ms: dict[str, list[list[list[float]]]]

    @classmethod
    def from_measurements(cls, found: Mapping[str, LatencyMeasurement]) -> DeviceMeasurement:
        """Gathers what was measured together."""
        return cls(
            environment=next(iter(found.values())).environment,
            latency_ms={name: one.summary for name, one in found.items()},
            converged={name: one.converged for name, one in found.items()},
            diagnostics={name: one.diagnostic for name, one in found.items()},
            memory={name: one.memory for name, one in found.items()},
            samples_ms={name: one.samples_ms for name, one in found.items()},
        )


def measure(context: JobContext, searched: SearchedDevices) -> MeasuredDevices:
    """Measures the finalists of every device that can be measured, all of a device's interleaved.

    Raises:
        MeasurementError, SpecError: no device could be measured.
        ExportError, StorageError: a model could not be exported; what was measured so far is kept.
    """
    exporter = searched.trained.exporter
    chosen = [_choose(device) for device in searched.devices]
    unique = {name: candidate for finalists in chosen for name, candidate in finalists.items()}
    with context.stage(Stage.MEASURING):
        exported = exporter.export_candidates(
            unique,
            lambda done, name: context.progress.update(0.4 * done, detail=f"exporting {name}"),
        )
        measured = []
        for position, (device, finalists) in enumerate(zip(searched.devices, chosen, strict=True)):
            files = {name: exporter.onnx_path(name) for name in finalists}
            begin = 0.4 + 0.6 * position / len(chosen)
            with context.tolerate_failure(device.budget, MeasurementError, SpecError):
                found = _measure(context, device, files, begin, 0.6 / len(chosen))
                measured.append((device, _models(finalists, exported, found), found.environment))
        fronts = [
            make_front(device, models, environment, context.task.metric)
            for device, models, environment in measured
        ]
        return MeasuredDevices(
            searched.trained,
            tuple(with_layers(context, front, exporter.onnx_path) for front in fronts),
        )


def _choose(device: SearchedDevice) -> Finalists:
    """The candidates worth measuring: feasible ones, or, where none is, the nearest to the front
    of all.
    """
    pool = [
        c for c, feasible in zip(device.candidates, device.feasible, strict=True) if feasible
    ] or device.candidates
    chosen = choose_finalists(
        [c.predicted_latency_ms for c in pool],
        [c.metric_value for c in pool],
        relative_error=device.cost_model_errors.p90_relative,
        limit=MAX_FINALISTS,
        max_latency_ms=device.budget.max_latency_ms,
    )
    return {point_id(pool[i].widths, pool[i].precision): pool[i] for i in chosen}


def _measure(
    context: JobContext,
    device: SearchedDevice,
    files: dict[str, Path],
    begin: float,
    fraction: float,
) -> DeviceMeasurement:
    """Measures models on a device, once.

    Args:
        files: ONNX files by model.
        begin: progress of the stage when it begins.
        fraction: of the stage's progress that it takes.
    """
    budget = device.budget

    def run() -> DeviceMeasurement:
        found = context.measure(
            files,
            budget,
            config=replace(THOROUGH, reference_ms=device.reference_ms),
            on_progress=lambda done: context.progress.update(
                begin + fraction * done, detail=f"{budget.name}: {len(files)} models"
            ),
        )
        for note in _remarks(budget, found):
            context.progress.note(note)
        return DeviceMeasurement.from_measurements(found)

    return load_or_make(
        context.folder / "measuring" / f"{budget.name}.json", DeviceMeasurement, run
    )


def _remarks(device: DeviceBudget, found: Mapping[str, LatencyMeasurement]) -> list[str]:
    """Notes of models whose latency did not converge, and of how far the machine is to blame."""
    notes = []
    for diagnostic in sorted({one.diagnostic for one in found.values()} - {""}):
        names = [name for name, one in found.items() if one.diagnostic == diagnostic]
        notes.append(
            f"{device.name}: the measurement of {', '.join(names)} did not converge: {diagnostic}"
        )
    environment = next(iter(found.values())).environment
    drifted, total = (
        environment.get(key) for key in ("num_drifted_repetitions", "num_repetitions")
    )
    if isinstance(drifted, int) and isinstance(total, int) and 0 < LARGE_DRIFT * total < drifted:
        notes.append(
            f"{device.name}: in {drifted} of {total} repetitions the machine was not as fast as in "
            "the others, by the reference model; they were measured again: see what else runs there"
        )
    return notes


def _models(
    finalists: Finalists, exported: Mapping[str, ExportedModel], found: DeviceMeasurement
) -> list[MeasuredModel]:
    models = []
    for name, candidate in finalists.items():
        of_file = exported[name].metric_value
        models.append(
            MeasuredModel(
                exported=exported[name],
                metric_value=candidate.metric_value if of_file is None else of_file,
                params=candidate.params,
                macs=candidate.macs,
                latency_ms=found.latency_ms[name],
                memory=found.memory[name],
            )
        )
    return models


def make_front(
    device: SearchedDevice,
    finalists: Sequence[MeasuredModel],
    environment: dict[str, Any],
    metric: Metric,
) -> MeasuredDevice:
    """The front of a device's measured finalists, without the layers of the recommended one."""
    front, recommended, sentence = front_and_recommendation(finalists, device.budget, metric)
    return MeasuredDevice(
        searched=device,
        finalists=tuple(finalists),
        front=tuple(finalists[i] for i in front),
        recommended=None if recommended is None else finalists[recommended].id,
        recommendation=sentence,
        environment=environment,
    )
