"""Searching: each device's latency is learned from a few dozen measured widths, then Optuna searches the widths.

What is measured and evaluated is kept in `DIR/search/`, so that a search that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inn_automl.devices.calibration import calibration_widths
from inn_automl.devices.features import latency_features
from inn_automl.devices.latency import QUICK
from inn_automl.devices.predictor import LatencyPredictor
from inn_automl.errors import MeasurementError, SpecError
from inn_automl.export import OnnxTemplate
from inn_automl.integral import IntegralNetwork, Widths
from inn_automl.result import Candidate, PredictorError
from inn_automl.search.run import DeviceOutcome, SearchProgress, run_search
from inn_automl.search.space import SearchSpace
from inn_automl.search.study import DeviceSearch, Prediction
from inn_automl.spec import DeviceBudget, JobSpec
from inn_automl.stages.job import Job
from inn_automl.stages.memory import Predict, with_memory
from inn_automl.storage import read_json, write_json
from inn_automl.training.trial import Trained

NUM_CALIBRATION_WIDTHS = 36
"""Widths measured for a device's predictor."""

_SETTINGS = ("name", "agent", "runtime", "threads", "batch_size", "percentile", "granularity")
"""What a device's calibration depends on."""


@dataclass(frozen=True)
class SearchedDevice:
    """What the search found for one device; latencies are predicted."""

    budget: DeviceBudget
    candidates: list[Candidate]
    """All widths that were evaluated for any device, with this device's predicted latency."""
    feasible: list[bool]
    """Whether each candidate is predicted to keep this device's bounds."""
    predictor_error: PredictorError
    hypervolume: list[float]
    reference: tuple[float, float]
    stopped: str


def search_widths(job: Job, trained: Trained, template: Callable[[], OnnxTemplate]) -> list[SearchedDevice]:
    """Searches widths for all devices of the budget that can be measured.

    Args:
        template: makes the exporter, when it is needed.

    Raises:
        MeasurementError, SpecError: no device could be measured.
        BackendError, StorageError: the workers or the folder failed; what was found so far is kept.
    """
    network = trained.network()
    calibrations: list[_Calibration] = []
    predictions: dict[str, Predict] = {}
    with job.stage("calibrating"):
        for device in job.spec.budget.devices:
            with job.attempt(device, MeasurementError, SpecError):
                one = _calibrate(job, network, device, template)
                predictions[device.name] = with_memory(job, network, device, template, one.predict)
                calibrations.append(one)
    with job.stage("searching"):
        return _search(job, trained, calibrations, predictions)


@dataclass(frozen=True)
class _Calibration:
    """What is known of a device before the search: costs of any widths on it."""

    budget: DeviceBudget
    space: SearchSpace
    network: IntegralNetwork
    predictor: LatencyPredictor
    bytes_per_parameter: float
    overhead_bytes: float

    def predict(self, batch: Sequence[Widths]) -> list[Prediction]:
        """Predicted costs of each of the widths; the size of the file by a line through the exported ones."""
        costs = [self.network.costs(widths) for widths in batch]
        latency_ms = self.predictor.predict(np.stack([latency_features(cost) for cost in costs]))
        return [
            Prediction(
                latency_ms=float(latency),
                params=cost.params,
                macs=cost.macs,
                size_bytes=round(self.bytes_per_parameter * cost.params + self.overhead_bytes),
            )
            for latency, cost in zip(latency_ms, costs, strict=True)
        ]


def _calibrate(
    job: Job, network: IntegralNetwork, device: DeviceBudget, template: Callable[[], OnnxTemplate]
) -> _Calibration:
    """Measures a few dozen widths on the device and fits its predictor; done once a job and device."""
    name = f"search/calibration-{device.name}.json"
    path = job.folder / name
    space = SearchSpace(network.groups, device.granularity)
    if not (job.inherit(name) if _was_calibrated(job, device) else path.exists()):
        chosen = calibration_widths(space, NUM_CALIBRATION_WIDTHS, seed=job.spec.seed)
        models = {}
        for position, widths in enumerate(chosen):
            job.progress.update(0.5 * position / len(chosen), detail=f"{device.name}: exporting")
            models[str(position)] = _export(job, network, widths, template)
        found = job.measure(
            models,
            device,
            protocol=QUICK,
            on_progress=lambda share: job.progress.update(0.5 + 0.5 * share, detail=f"{device.name}: measuring"),
        )
        write_json(
            path,
            [
                {
                    "widths": dict(widths),
                    "latency_ms": found[name].summary.at_percentile,
                    "size_bytes": models[name].stat().st_size,
                }
                for name, widths in zip(models, chosen, strict=True)
            ],
        )
    measured: list[dict[str, Any]] = read_json(path)
    costs = [network.costs(one["widths"]) for one in measured]
    predictor = LatencyPredictor().fit(
        np.stack([latency_features(cost) for cost in costs]), np.array([one["latency_ms"] for one in measured])
    )
    slope, intercept = np.polyfit([cost.params for cost in costs], [one["size_bytes"] for one in measured], 1)
    error = predictor.error
    job.progress.note(
        f"{device.name}: latency is predicted within {error.median_relative:.1%} (median over {error.num_held_out} "
        f"held-out widths), rank correlation {error.spearman:.3f}"
    )
    return _Calibration(device, space, network, predictor, float(slope), float(intercept))


def _was_calibrated(job: Job, device: DeviceBudget) -> bool:
    """Whether the parent measured this very device: only its bounds may be others."""
    if job.parent is None:
        return False
    known = JobSpec.model_validate(read_json(job.parent / "job.json")["spec"]).budget.devices
    return any(all(getattr(one, key) == getattr(device, key) for key in _SETTINGS) for one in known)


def _export(job: Job, network: IntegralNetwork, widths: Widths, template: Callable[[], OnnxTemplate]) -> Path:
    """The ONNX file of widths, for timing: its statistics are not re-estimated, which changes no operation."""
    name = f"search/onnx/{'-'.join(str(widths[group.name]) for group in network.groups)}.onnx"
    path = job.folder / name
    if not job.inherit(name):
        template().export(network.discretize(widths).eval(), path, widths=widths)
    return path


def _search(
    job: Job, trained: Trained, calibrations: Sequence[_Calibration], predictions: dict[str, Predict]
) -> list[SearchedDevice]:
    budget = job.spec.budget.search

    def evaluate(batch: list[dict[str, int]]) -> list[float]:
        return [e.accuracy for e in job.backend.evaluate(trained, job.dataset, batch, split="validation")]

    def show(progress: SearchProgress) -> None:
        found = [best[1] for best in progress.best.values() if best is not None]
        job.progress.update(
            progress.num_evaluations / progress.max_evaluations,
            best=f"{max(found):.1%} within the bounds" if found else None,
            detail=f"{progress.num_evaluations} widths evaluated",
        )

    outcome = run_search(
        [
            DeviceSearch(
                name=one.budget.name,
                space=one.space,
                bounds=one.budget,
                predict=predictions[one.budget.name],
                latency_margin=one.predictor.error.median_relative,
            )
            for one in calibrations
        ],
        evaluate,
        budget,
        job.folder / "search" / "state",
        seed=job.spec.seed,
        reference_accuracy=1 / job.dataset.num_classes,
        on_batch=show,
    )
    if outcome.stopped == "interrupted":
        raise KeyboardInterrupt
    return [_searched(one, device) for one, device in zip(calibrations, outcome.devices, strict=True)]


def _searched(calibration: _Calibration, outcome: DeviceOutcome) -> SearchedDevice:
    return SearchedDevice(
        budget=calibration.budget,
        candidates=[
            Candidate(
                widths=candidate.widths,
                accuracy=candidate.accuracy,
                params=candidate.prediction.params,
                macs=candidate.prediction.macs,
                predicted_latency_ms=candidate.prediction.latency_ms,
            )
            for candidate in outcome.candidates
        ],
        feasible=[candidate.feasible for candidate in outcome.candidates],
        predictor_error=calibration.predictor.error,
        hypervolume=list(outcome.hypervolume),
        reference=outcome.reference,
        stopped=outcome.reason,
    )
