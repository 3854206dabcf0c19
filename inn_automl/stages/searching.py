"""Searching: each device's latency is learned from a few dozen measured widths, then Optuna searches the widths.

What is measured and evaluated is kept in `DIR/search/`, so that a search that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inn_automl.devices.calibration import calibration_widths
from inn_automl.devices.features import latency_features
from inn_automl.devices.latency import QUICK
from inn_automl.devices.predictor import LatencyPredictor
from inn_automl.export import OnnxTemplate, quantize_onnx
from inn_automl.integral import IntegralNetwork, Widths
from inn_automl.precision import DEFAULT, split_point
from inn_automl.result import Candidate, PredictorError
from inn_automl.search.quantized import range_samples
from inn_automl.search.run import DeviceOutcome, SearchProgress, run_search
from inn_automl.search.space import SearchSpace
from inn_automl.search.study import DeviceSearch, Prediction
from inn_automl.spec import DeviceBudget, JobSpec
from inn_automl.stages.job import Job
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
    """All that was evaluated for any device in a precision that this one offers, with its predicted latency."""
    feasible: list[bool]
    """Whether each candidate is predicted to keep this device's bounds."""
    predictor_error: PredictorError
    hypervolume: list[float]
    reference: tuple[float, float]
    stopped: str


def search_widths(job: Job, trained: Trained, template: Callable[[], OnnxTemplate]) -> list[SearchedDevice]:
    """Searches widths for all devices of the budget.

    Args:
        template: makes the exporter, when it is needed.

    Raises:
        MeasurementError: a device could not be measured.
        BackendError, StorageError: the workers or the folder failed; what was found so far is kept.
    """
    network = trained.network()
    with job.stage("calibrating"):
        calibrations = [_calibrate_device(job, network, device, template) for device in job.spec.budget.devices]
    with job.stage("searching"):
        return _search(job, trained, calibrations)


@dataclass(frozen=True)
class _Calibration:
    """What is known of a device before the search: costs of any widths on it, in one precision."""

    network: IntegralNetwork
    predictor: LatencyPredictor
    bytes_per_parameter: float
    overhead_bytes: float
    measured_ms: list[float]
    """Latency at the widths of the calibration, which are the same for every precision."""

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


@dataclass(frozen=True)
class _Calibrations:
    """What is known of a device before the search, for each precision that it offers."""

    budget: DeviceBudget
    space: SearchSpace
    by_precision: dict[str, _Calibration]

    def predict(self, batch: Sequence[Widths]) -> list[Prediction]:
        """Predicted costs of each of the points."""
        points = [split_point(point) for point in batch]
        found: dict[int, Prediction] = {}
        for precision in dict.fromkeys(precision for _, precision in points):
            indices = [i for i, point in enumerate(points) if point[1] == precision]
            known = self.by_precision.get(precision)
            stand_in = next(iter(self.by_precision.values()))
            costs = (known or stand_in).predict([points[i][0] for i in indices])
            found.update(zip(indices, (replace(one, offered=known is not None) for one in costs), strict=True))
        return [found[i] for i in range(len(points))]

    @property
    def error(self) -> PredictorError:
        """The predictor's, and where there are several the worst in each respect."""
        errors = [one.predictor.error for one in self.by_precision.values()]
        return PredictorError(
            median_relative=max(error.median_relative for error in errors),
            p90_relative=max(error.p90_relative for error in errors),
            spearman=min(error.spearman for error in errors),
            num_fitted=sum(error.num_fitted for error in errors),
            num_held_out=sum(error.num_held_out for error in errors),
        )


def _calibrate_device(
    job: Job, network: IntegralNetwork, device: DeviceBudget, template: Callable[[], OnnxTemplate]
) -> _Calibrations:
    """Calibrates every precision; one that is nowhere faster is left out where nothing else speaks for it."""
    found = {p: _calibrate(job, network, device, p, template) for p in device.precisions}
    first, *others = device.precisions
    for precision in others:
        ratios = np.divide(found[precision].measured_ms, found[first].measured_ms)
        useless = ratios.min() >= 1 and device.max_size_bytes is None
        job.progress.note(
            f"{device.name}: {precision} takes {ratios.min():.2f} to {ratios.max():.2f} times as long as {first} at "
            f"the same widths{', so it is not searched' if useless else ''}"
        )
        if useless:
            del found[precision]
    space = SearchSpace(network.groups, device.granularity, tuple(found), job.spec.budget.precisions)
    return _Calibrations(device, space, found)


def _calibrate(
    job: Job, network: IntegralNetwork, device: DeviceBudget, precision: str, template: Callable[[], OnnxTemplate]
) -> _Calibration:
    """Measures a few dozen widths on the device and fits its predictor; done once a job, device and precision."""
    called = device.name if device.precisions == (DEFAULT,) else f"{device.name}, {precision}"
    # A plus sign, because no device has one in its name.
    name = f"search/calibration-{device.name}{'' if precision == DEFAULT else f'+{precision}'}.json"
    path = job.folder / name
    space = SearchSpace(network.groups, device.granularity)
    if not (job.inherit(name) if _was_calibrated(job, device) else path.exists()):
        chosen = calibration_widths(space, NUM_CALIBRATION_WIDTHS, seed=job.spec.seed)
        models = {}
        for position, widths in enumerate(chosen):
            job.progress.update(0.5 * position / len(chosen), detail=f"{called}: exporting")
            models[str(position)] = _export(job, network, widths, precision, template)
        found = job.measure(
            models,
            device,
            protocol=QUICK,
            on_progress=lambda share: job.progress.update(0.5 + 0.5 * share, detail=f"{called}: measuring"),
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
        f"{called}: latency is predicted within {error.median_relative:.1%} (median over {error.num_held_out} "
        f"held-out widths), rank correlation {error.spearman:.3f}"
    )
    return _Calibration(
        network, predictor, float(slope), float(intercept), [float(one["latency_ms"]) for one in measured]
    )


def _was_calibrated(job: Job, device: DeviceBudget) -> bool:
    """Whether the parent measured this very device: only its bounds may be others."""
    if job.parent is None:
        return False
    known = JobSpec.model_validate(read_json(job.parent / "job.json")["spec"]).budget.devices
    return any(all(getattr(one, key) == getattr(device, key) for key in _SETTINGS) for one in known)


def _export(
    job: Job, network: IntegralNetwork, widths: Widths, precision: str, template: Callable[[], OnnxTemplate]
) -> Path:
    """The ONNX file of widths, for timing: its statistics are not re-estimated, which changes no operation."""
    name = f"search/onnx/{'-'.join(str(widths[group.name]) for group in network.groups)}"
    path = job.folder / f"{name}.onnx"
    if not job.inherit(f"{name}.onnx"):
        template().export(network.discretize(widths).eval(), path, widths=widths)
    if precision != DEFAULT:
        source, path = path, job.folder / f"{name}.{precision}.onnx"
        if not job.inherit(f"{name}.{precision}.onnx"):
            quantize_onnx(source, path, range_samples(job.dataset))
    return path


def _search(job: Job, trained: Trained, calibrations: Sequence[_Calibrations]) -> list[SearchedDevice]:
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
                predict=one.predict,
                latency_margin=one.error.median_relative,
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


def _searched(calibration: _Calibrations, outcome: DeviceOutcome) -> SearchedDevice:
    offered = [candidate for candidate in outcome.candidates if candidate.prediction.offered]
    points = [split_point(candidate.widths) for candidate in offered]
    return SearchedDevice(
        budget=calibration.budget,
        candidates=[
            Candidate(
                widths=widths,
                precision=precision,
                accuracy=candidate.accuracy,
                params=candidate.prediction.params,
                macs=candidate.prediction.macs,
                predicted_latency_ms=candidate.prediction.latency_ms,
            )
            for candidate, (widths, precision) in zip(offered, points, strict=True)
        ],
        feasible=[candidate.feasible for candidate in offered],
        predictor_error=calibration.error,
        hypervolume=list(outcome.hypervolume),
        reference=outcome.reference,
        stopped=outcome.reason,
    )
