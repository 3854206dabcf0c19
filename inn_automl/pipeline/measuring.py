"""Measuring: whatever may be on a front is exported and timed for real; the front is made of
measured values only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.metric import Metric
from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import Candidate, LatencySummary, LayerTime, Tuning
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json
from inn_automl.evaluation.candidates import CandidateBuilder
from inn_automl.export import OnnxTemplate
from inn_automl.integral import Widths
from inn_automl.latency.config import THOROUGH
from inn_automl.latency.measurement import LatencyMeasurement, PeakMemory
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import Model, export_model, onnx_path, point_id
from inn_automl.pipeline.layer_profile import profile_layers
from inn_automl.pipeline.searching import SearchedDevice
from inn_automl.search.choice import choose_finalists, front_and_recommendation
from inn_automl.tasks import objective_of
from inn_automl.training.trial import Trained

MAX_FINALISTS = 20
"""Candidates measured for each device."""

LARGE_DRIFT = 0.1
"""A job says so when more than this share of a device's batches drifted."""


@dataclass(frozen=True)
class Finalist:
    """A candidate that was exported, verified and measured."""

    id: str
    widths: dict[str, int]
    metric_value: float
    params: int
    macs: int
    size_bytes: int
    difference: float
    """Largest difference between ONNX and torch, as a share of the largest output."""
    num_verified: int
    latency: dict[str, LatencySummary]
    """By device."""
    memory: dict[str, PeakMemory | None]
    """By device; None where it does not tell."""
    precision: str = DEFAULT
    agreement: float | None = None
    """Of a model that is not fp32: the share of the validation samples that it classifies as the
    fp32 one does.
    """
    tuning: Tuning | None = None
    """Where the model was tuned: it has an id of its own, and the latency of the one it was made
    from.
    """

    @property
    def is_as_searched(self) -> bool:
        """Whether the model is what a backend evaluates at its widths."""
        return self.precision == DEFAULT and self.tuning is None


@dataclass(frozen=True)
class MeasuredDevice:
    """What was measured on one device, and the front that it makes."""

    budget: DeviceBudget
    finalists: list[Finalist]
    front: list[Finalist]
    recommended: str | None
    recommendation: str
    environment: dict[str, Any]
    layers: list[LayerTime] = field(default_factory=list)
    """Of the recommended one."""


@dataclass(frozen=True)
class _Measured:
    """What one device's measurement brought, by point."""

    environment: dict[str, Any]
    latency: dict[str, LatencySummary]
    memory: dict[str, PeakMemory | None]


@dataclass(frozen=True)
class _Point:
    """A finalist as one device sees it: what `search.choice` asks of a measured point."""

    metric_value: float
    latency_ms: LatencySummary
    params: int
    macs: int
    size_bytes: int
    peak_memory_bytes: int | None


def measure_finalists(
    job: JobContext,
    trained: Trained,
    searched: Sequence[SearchedDevice],
    template: Callable[[], OnnxTemplate],
) -> list[MeasuredDevice]:
    """Measures the finalists of every device that can be measured, all of a device's interleaved.

    Raises:
        MeasurementError, SpecError: no device could be measured.
        ExportError, StorageError: a model could not be exported; what was measured so far is kept.
    """
    with job.stage(Stage.MEASURING):
        candidates = CandidateBuilder(trained.network(), job.dataset)
        chosen = [_choose(device) for device in searched]
        models: dict[str, Model] = {}
        unique = {point_id(c.widths, c.precision): c for finalists in chosen for c in finalists}
        for position, (name, candidate) in enumerate(unique.items()):
            job.progress.update(0.4 * position / len(unique), detail=f"exporting {name}")
            make = functools.partial(_module, candidates, candidate.widths)
            models[name] = export_model(
                job, name, make, candidate.widths, candidate.precision, template
            )
        found: list[tuple[SearchedDevice, list[str], _Measured]] = []
        for position, (device, finalists) in enumerate(zip(searched, chosen, strict=True)):
            low = 0.4 + 0.6 * position / len(searched)
            names = [point_id(c.widths, c.precision) for c in finalists]
            with job.tolerate_failure(device.budget, MeasurementError, SpecError):
                found.append(
                    (device, names, _measure(job, device, names, low, 0.6 / len(searched)))
                )
        known = {
            name: Finalist(
                **_facts(models[name], candidate.metric_value),
                params=candidate.params,
                macs=candidate.macs,
                latency={
                    d.budget.name: one.latency[name] for d, names, one in found if name in names
                },
                memory={
                    d.budget.name: one.memory[name] for d, names, one in found if name in names
                },
            )
            for name, candidate in unique.items()
        }
        metric = objective_of(job.dataset).metric
        fronts = [
            make_front(device.budget, [known[name] for name in names], one.environment, metric)
            for device, names, one in found
        ]
        return [
            replace(
                front,
                layers=profile_layers(
                    job, front.budget, front.recommended, onnx_path(job, front.recommended)
                ),
            )
            if front.recommended
            else front
            for front in fronts
        ]


def _choose(device: SearchedDevice) -> list[Candidate]:
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
    return [pool[i] for i in chosen]


def _module(candidates: CandidateBuilder, widths: Widths) -> nn.Module:
    return candidates.make(widths).module


def _facts(model: Model, metric_value: float) -> dict[str, Any]:
    """A model's own facts; its metric value as the search found it, unless the file says
    otherwise.
    """
    facts = asdict(model)
    return facts if model.metric_value is not None else {**facts, "metric_value": metric_value}


def _measure(
    job: JobContext, searched: SearchedDevice, names: Sequence[str], low: float, share: float
) -> _Measured:
    device = searched.budget
    path = job.folder / "measuring" / f"{device.name}.json"
    if not path.exists():
        found = job.measure(
            {name: onnx_path(job, name) for name in names},
            device,
            config=replace(THOROUGH, reference_ms=searched.reference_ms),
            on_progress=lambda done: job.progress.update(
                low + share * done, detail=f"{device.name}: {len(names)} models"
            ),
        )
        _tell(job, device, found)
        write_json(
            path,
            {
                "environment": next(iter(found.values())).environment,
                "latency_ms": {
                    name: one.summary.model_dump(mode="json") for name, one in found.items()
                },
                "converged": {name: one.converged for name, one in found.items()},
                "diagnostics": {name: one.diagnostic for name, one in found.items()},
                "memory": {name: one.memory and asdict(one.memory) for name, one in found.items()},
                "samples_ms": {name: one.samples_ms for name, one in found.items()},
            },
        )
    record = read_json(path)
    memory = record.get("memory", {})  # not kept by releases that did not measure it
    return _Measured(
        record["environment"],
        {name: LatencySummary(**record["latency_ms"][name]) for name in names},
        {name: PeakMemory(**memory[name]) if memory.get(name) else None for name in names},
    )


def _tell(job: JobContext, device: DeviceBudget, found: Mapping[str, LatencyMeasurement]) -> None:
    """Notes which models' latency is not known as well as it should be, and how far the machine
    was to blame.
    """
    for diagnostic in sorted({one.diagnostic for one in found.values()} - {""}):
        names = [name for name, one in found.items() if one.diagnostic == diagnostic]
        job.progress.note(
            f"{device.name}: the measurement of {', '.join(names)} did not settle: {diagnostic}"
        )
    environment = next(iter(found.values())).environment
    drifted, total = (
        environment.get(key) for key in ("num_drifted_repetitions", "num_repetitions")
    )
    if isinstance(drifted, int) and isinstance(total, int) and 0 < LARGE_DRIFT * total < drifted:
        job.progress.note(
            f"{device.name}: in {drifted} of {total} batches the machine was not as fast as in the "
            f"others, by the "
            "reference model; they were measured again: see what else runs there"
        )


def added_bytes(memory: PeakMemory | None) -> int | None:
    return None if memory is None else memory.added_bytes


def make_front(
    device: DeviceBudget, finalists: list[Finalist], environment: dict[str, Any], metric: Metric
) -> MeasuredDevice:
    """The front of a device's measured finalists, without the layers of the recommended one."""
    points = [
        _Point(
            f.metric_value,
            f.latency[device.name],
            f.params,
            f.macs,
            f.size_bytes,
            added_bytes(f.memory[device.name]),
        )
        for f in finalists
    ]
    front, recommended, sentence = front_and_recommendation(points, device, metric)
    return MeasuredDevice(
        budget=device,
        finalists=finalists,
        front=[finalists[i] for i in front],
        recommended=None if recommended is None else finalists[recommended].id,
        recommendation=sentence,
        environment=environment,
    )
