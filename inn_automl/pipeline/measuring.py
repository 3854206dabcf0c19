"""Measuring: finalists are exported and measured; fronts are made of measured values only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.metric import Metric
from inn_automl.core.result import Candidate, LatencySummary
from inn_automl.core.sample_scores import SampleScores
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.stage import Stage
from inn_automl.core.storage import load_or_make
from inn_automl.latency.config import THOROUGH
from inn_automl.latency.measurement import LatencyMeasurement, PeakMemory
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import ExportedModel, point_id
from inn_automl.pipeline.job_clock import AFTER_MEASURING
from inn_automl.pipeline.layer_profile import with_layers
from inn_automl.pipeline.records import (
    MeasuredDevice,
    MeasuredDevices,
    MeasuredModel,
    SearchedDevice,
    SearchedDevices,
)
from inn_automl.width_search.choice import choose_finalists, front_and_recommendation
from inn_automl.width_search.comparison import ties_of
from inn_automl.width_search.promotion import promoted

MAX_FINALISTS, MIN_FINALISTS = 20, 3
"""Candidates measured for each device, and those that are measured however little time is left."""
MIN_EXPORT_S = 1.0
"""Seconds that exporting a model takes at least."""

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
    limit = _num_finalists(context, searched)
    chosen = [_choose(device, limit) for device in searched.devices]
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
                models = _models(device, finalists, exported, found, searched.optimism)
                measured.append((device, models, found.environment))
        fronts = [
            make_front(device, models, environment, context.task.metric)
            for device, models, environment in measured
        ]
        return MeasuredDevices(
            searched.trained,
            tuple(with_layers(context, front, exporter.onnx_path) for front in fronts),
            searched.optimism,
        )


def _num_finalists(context: JobContext, searched: SearchedDevices) -> int:
    """Candidates of each device that can be exported and measured in the time of the job."""
    left_s = context.clock.seconds_left(AFTER_MEASURING)
    if math.isinf(left_s):
        return MAX_FINALISTS
    left_s -= THOROUGH.max_s * len(searched.devices)
    each_s = max(MIN_EXPORT_S, 2 * searched.evaluation_s) * len(searched.devices)
    limit = int(min(MAX_FINALISTS, max(MIN_FINALISTS, left_s / each_s)))
    if limit < MAX_FINALISTS:
        context.progress.note(
            f"at most {limit} finalists of each device are measured, not {MAX_FINALISTS}: "
            "max_minutes leaves no time for more"
        )
    return limit


def _choose(device: SearchedDevice, limit: int) -> Finalists:
    """The candidates worth measuring: feasible ones, or, where none is, the nearest to the front
    of all.
    """
    indices = [i for i, feasible in enumerate(device.feasible) if feasible]
    indices = indices or list(range(len(device.candidates)))
    pool = [device.candidates[i] for i in indices]
    latency = [c.predicted_latency_ms for c in pool]
    samples = [device.samples[i] for i in indices] if device.samples else [None] * len(pool)
    ranks = promoted(
        latency, [c.metric_value for c in pool], [c.loss or 0.0 for c in pool], samples
    )
    chosen = choose_finalists(
        latency,
        ranks,
        relative_error=device.cost_model_errors.p90_relative,
        limit=limit,
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
    device: SearchedDevice,
    finalists: Finalists,
    exported: Mapping[str, ExportedModel],
    found: DeviceMeasurement,
    optimism: float,
) -> list[MeasuredModel]:
    samples = {
        point_id(candidate.widths, candidate.precision): one
        for candidate, one in zip(device.candidates, device.samples, strict=False)
    }
    models = []
    for name, candidate in finalists.items():
        model = MeasuredModel(
            exported=exported[name],
            metric_value=candidate.metric_value,
            params=candidate.params,
            macs=candidate.macs,
            latency_ms=found.latency_ms[name],
            memory=found.memory[name],
            loss=candidate.loss,
            samples=samples.get(name),
        )
        models.append(with_values_of_file(model, optimism))
    return models


def with_values_of_file(model: MeasuredModel, optimism: float) -> MeasuredModel:
    """A model with the values of its very file, where that was evaluated.

    Args:
        optimism: is taken off the metric value.
    """
    exported = model.exported
    if exported.metric_value is None:
        return model
    text = exported.samples
    return replace(
        model,
        metric_value=exported.metric_value - optimism,
        loss=exported.loss,
        samples=None if text is None else SampleScores.decoded(text),
    )


def make_front(
    device: SearchedDevice,
    finalists: Sequence[MeasuredModel],
    environment: dict[str, Any],
    metric: Metric,
) -> MeasuredDevice:
    """The front of a device's measured finalists, without the layers of the recommended one."""
    ranks = promoted(
        [model.latency_ms.at_percentile for model in finalists],
        [model.metric_value for model in finalists],
        [model.loss or 0.0 for model in finalists],
        [model.samples for model in finalists],
    )
    front, recommended, sentence = front_and_recommendation(finalists, device.budget, metric, ranks)
    ties = ties_of([finalists[i].samples for i in front])
    shown = [
        replace(finalists[i], ties=tuple(finalists[front[j]].id for j in tied))
        for i, tied in zip(front, ties, strict=True)
    ]
    return MeasuredDevice(
        searched=device,
        finalists=tuple(finalists),
        front=tuple(shown),
        recommended=None if recommended is None else finalists[recommended].id,
        recommendation=sentence
        + _tie_sentence(shown, None if recommended is None else finalists[recommended].id),
        environment=environment,
    )


def _tie_sentence(front: Sequence[MeasuredModel], recommended: str | None) -> str:
    """Names the fastest model that the recommended one cannot be told apart from, if it is faster.

    Args:
        front: fastest first.
    """
    best = next((model for model in front if model.id == recommended), None)
    if best is None or not best.ties:
        return ""
    other = next(model for model in front if model.id in best.ties)
    if other.latency_ms.at_percentile >= best.latency_ms.at_percentile:
        return ""
    return (
        f" The validation samples cannot tell it apart from {other.id} at "
        f"{other.latency_ms.at_percentile:.3g} ms."
    )
