"""Profiling stage: a few dozen widths are measured on each device, and its cost models are fitted.

Fewer widths are measured where earlier jobs measured the device and a few fresh measurements agree
with them; none where the parent job measured this very device.

DIR/search/profiling-DEVICE*.json    see `latency.profile`
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from inn_automl.core.errors import MeasurementError, SpecError, StorageError
from inn_automl.core.spec import DeviceBudget, JobSpec
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json
from inn_automl.integral import IntegralNetwork, Widths
from inn_automl.latency.design import initial_design
from inn_automl.latency.features import latency_features
from inn_automl.latency.profile import LatencyProfile, ProfileFiles
from inn_automl.latency.records import LatencyRow
from inn_automl.latency.store import (
    CachedMeasurement,
    MachineFingerprint,
    benchmark_settings,
    verify,
)
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.device_latency import DeviceLatency, offered_precisions
from inn_automl.pipeline.folder import JOB_FILE
from inn_automl.pipeline.job_clock import AFTER_PROFILING
from inn_automl.pipeline.latency_model import (
    NUM_REFERENCE_CONFIGURATIONS,
    PROFILING,
    LatencyModel,
    cache_key_of,
    fit_cost_model,
    num_initial_widths,
)
from inn_automl.pipeline.memory import with_memory
from inn_automl.pipeline.records import ProfiledDevice, ProfiledDevices, TrainedTrials
from inn_automl.pipeline.width_timer import Template, WidthTimer
from inn_automl.width_search.space import SearchSpace

NUM_CHECKED, MIN_CACHED = 8, 20
"""Fresh measurements that cached ones are compared with, and how many cached ones are worth it."""


MIN_PROFILED = 10
"""Widths that are measured to predict latency, however little time is left."""


def profile(context: JobContext, trained: TrainedTrials) -> ProfiledDevices:
    """Profiles all devices of the budget that can be measured.

    Raises:
        MeasurementError, SpecError: no device could be measured.
        ExportError, StorageError: a model could not be exported or a file not be written.
    """
    network = trained.best.network()
    template = functools.partial(
        context.backend.templates.get, trained.best.architecture, context.task.dataset
    )
    profiled = []
    with context.stage(Stage.PROFILING):
        for device in context.spec.budget.devices:
            with context.tolerate_failure(device, MeasurementError, SpecError):
                latency = profile_device(context, network, device, template)
                predict = with_memory(context, network, device, template, latency.predict)
                profiled.append(ProfiledDevice(latency, predict))
                for note in latency.describe():
                    context.progress.note(note)
    return ProfiledDevices(trained, tuple(profiled))


def profile_device(
    job: JobContext, network: IntegralNetwork, device: DeviceBudget, template: Template
) -> DeviceLatency:
    """Profiles one device in each precision that it offers.

    Raises:
        MeasurementError: the device could not be measured.
        ExportError, StorageError: a model could not be exported or a file not be written.
    """
    models = {
        precision: profile_precision(WidthTimer(job, network, device, precision, template))
        for precision in device.precisions
    }
    offered = offered_precisions(device, models, note=job.progress.note)
    space = SearchSpace(
        network.groups, device.granularity, tuple(offered), job.spec.budget.precisions
    )
    return DeviceLatency(job, device, offered, space)


def profile_precision(timer: WidthTimer) -> LatencyModel:
    """Measures the initial design on a device in one precision, if that was not done, and fits.

    Raises:
        MeasurementError: the device could not be measured.
        ExportError, StorageError: a model could not be exported or a file not be written.
    """
    files = ProfileFiles(timer.job.folder / "search", timer.key)
    if files.exists():
        return LatencyModel(timer, files, files.read()).fit()
    if (parent := _parent_files(timer)) is not None:
        files.reuse(parent)
        return LatencyModel(timer, files, files.read()).fit()
    profile = _measure_initial(timer)
    files.write_initial(profile)
    model = LatencyModel(timer, files, profile)
    model.save_measurements()
    return model.fit()


def _parent_files(timer: WidthTimer) -> ProfileFiles | None:
    """The parent's files, if it measured this very device; only its bounds may be others."""
    parent = timer.job.parent
    if parent is None:
        return None
    files = ProfileFiles(parent / "search", timer.key)
    if not files.exists():
        return None
    spec = JobSpec.model_validate(read_json(parent / JOB_FILE)["spec"])
    same = any(_identity(one) == _identity(timer.device) for one in spec.budget.devices)
    return files if same else None


def _identity(device: DeviceBudget) -> dict[str, Any]:
    """The settings that must be equal to reuse a device's measurements as they are."""
    return {
        "name": device.name,
        "agent": device.agent,
        "granularity": device.granularity,
        **benchmark_settings(device),
    }


def _measure_initial(timer: WidthTimer) -> LatencyProfile:
    """Measures the initial design, or a part of it that confirms the measurements of earlier jobs.

    What is missing if they are not confirmed is measured beside the first part.
    """
    job = timer.job
    space = SearchSpace(timer.network.groups, timer.device.granularity)
    planned = num_initial_widths(job.spec.budget.search.max_measurements, space)
    if job.clock.is_limited:
        planned = min(planned, _num_affordable(timer, planned))
    chosen = initial_design(space, planned, seed=job.spec.seed)
    first: Sequence[Widths] = chosen
    if len(chosen) > NUM_CHECKED and _is_cached(timer):
        first = [*chosen[:2], *chosen[-(NUM_CHECKED - 2) :]]
    timed = timer.measure(first, PROFILING, shows_progress=True)
    rows = timed.rows
    machine = MachineFingerprint.from_environment(timer.device, timed.environment)
    cached: list[CachedMeasurement] = []
    if len(first) < len(chosen):
        cached = _confirmed(timer, rows, machine)
        if not cached:
            rest = [widths for widths in chosen if widths not in first]
            references = rows[:NUM_REFERENCE_CONFIGURATIONS]
            more, _ = timer.measure_beside(references, rest, PROFILING, shows_progress=True)
            rows = [*rows, *more]
    return LatencyProfile(initial=tuple(rows), cached=tuple(cached), machine=machine)


def _num_affordable(timer: WidthTimer, planned: int) -> int:
    """The widths that can be exported and measured in this device's part of the job's time."""
    job, network = timer.job, timer.network
    timer.export(network.full_widths)  # the first one also makes the exporter
    started_s = time.monotonic()
    timer.export(network.smallest_widths)
    each_s = time.monotonic() - started_s
    left_s = job.clock.seconds_left(AFTER_PROFILING) / len(job.spec.budget.devices)
    num = max(MIN_PROFILED, int((left_s - PROFILING.max_s) / max(each_s, 1e-3)))
    if num < planned:
        job.progress.note(
            f"{timer.label}: {num} widths are measured to predict latency, not {planned}: "
            "max_minutes leaves no time for more"
        )
    return num


def _is_cached(timer: WidthTimer) -> bool:
    cache = timer.job.measurement_cache
    try:
        return cache is not None and cache.contains(cache_key_of(timer))
    except StorageError as error:
        timer.job.progress.note(
            f"{timer.label}: measurements of earlier jobs cannot be read ({error})"
        )
        return False


def _confirmed(
    timer: WidthTimer, fresh: Sequence[LatencyRow], machine: MachineFingerprint
) -> list[CachedMeasurement]:
    """Measurements of earlier jobs on the scale of fresh ones; none where these disagree."""
    cache = timer.job.measurement_cache
    cached = cache.load(cache_key_of(timer), machine) if cache is not None else []
    if len(cached) < MIN_CACHED:
        return []
    features = np.stack([latency_features(timer.network.costs(row.widths).layers) for row in fresh])
    predicted_ms = fit_cost_model(cached).predict(features)
    verdict = verify([row.latency_ms for row in fresh], predicted_ms)
    timer.job.progress.note(f"{timer.label}: {verdict.sentence}")
    if verdict.scale is None:
        return []
    return [CachedMeasurement(one.layers, one.latency_ms * verdict.scale) for one in cached]
