"""How far predicted latency is from what a front would show, on widths that the cost model has not
seen.

A device is profiled by the code of a job, which then measures a few rounds of other widths, as a
search would. Held out are widths drawn from the space at random, measured as finalists are: no
more together than these, by the thorough config, in processes in which the reference model is as
fast as in most of the measurements before. What measurements differ by from each other beyond that
is part of the error, as it is in a job.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.search_truth import DATASET, DEVICES, FAMILY, Truth, template_for
from inn_automl.core.precision import DEFAULT
from inn_automl.core.progress import SilentProgress
from inn_automl.core.spec import DeviceBudget, JobSpec, parse
from inn_automl.core.storage import read_json, write_json
from inn_automl.data import Dataset
from inn_automl.integral import IntegralNetwork
from inn_automl.latency.benchmark import measure
from inn_automl.latency.config import THOROUGH
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.latency_model import LatencyModel
from inn_automl.pipeline.measuring import MAX_FINALISTS
from inn_automl.pipeline.profiling import profile_precision
from inn_automl.pipeline.width_timer import WidthTimer
from inn_automl.tasks import Task
from inn_automl.width_search.active_learning import MIN_ITERATION_SIZE
from inn_automl.width_search.space import Widths

NUM_HELD_OUT, NUM_ROUNDS = 60, 5


def predictions(folder: Path, truth: Truth, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """By device, the errors of its cost model. What was measured is kept in the folder, and
    measured once.

    Returns:
        Of each: `median_error_percent`, `p90_error_percent`, `spearman`, what the cost model
        stated of itself, the share within its stated interval, `interval_percent`, the median
        half-width of a measured p95's own interval, and what the job noted meanwhile.
    """
    return {
        device.name: _errors(folder / f"prediction-{device.name}.json", truth, dataset, device)
        for device in DEVICES
    }


def _errors(path: Path, truth: Truth, dataset: Dataset, device: DeviceBudget) -> dict[str, Any]:
    if not path.exists():
        print(
            f"{device.name}: profiling, and measuring {NUM_HELD_OUT} other widths",
            file=sys.stderr,
        )
        with tempfile.TemporaryDirectory() as folder:
            write_json(path, _found(Path(folder), truth.network, dataset, device))
    found = read_json(path)
    measured_ms = np.concatenate([one["ms"] for one in found["held_out"]])
    ci_ms = np.concatenate([one["ci_ms"] for one in found["held_out"]])
    predicted_ms = np.array(found["predicted_ms"])
    relative = 100 * np.abs(predicted_ms / measured_ms - 1)
    low, high = found["interval"]
    return {
        "num_fitted": found["num_fitted"],
        "num_held_out": NUM_HELD_OUT,
        "median_error_percent": float(np.median(relative)),
        "p90_error_percent": float(np.percentile(relative, 90)),
        "spearman": float(spearmanr(predicted_ms, measured_ms).statistic),
        "stated_median_error_percent": found["stated_median_error_percent"],
        "share_within_stated_interval": float(
            np.mean((measured_ms / predicted_ms >= low) & (measured_ms / predicted_ms <= high))
        ),
        "interval_percent": float(50 * np.median((ci_ms[:, 1] - ci_ms[:, 0]) / measured_ms)),
        "notes": found["notes"],
        "diagnostics": [one["diagnostics"] for one in found["held_out"]],
        "num_drifted_processes": [one["num_drifted_processes"] for one in found["held_out"]],
    }


def _found(
    folder: Path, network: IntegralNetwork, dataset: Dataset, device: DeviceBudget
) -> dict[str, Any]:
    """What a job in the folder predicts of the held out widths, and what these measure."""
    budget = {"devices": [device.model_dump(mode="json", exclude_defaults=True)]}
    spec = parse(
        JobSpec,
        {"dataset": DATASET, "model": FAMILY, "budget": budget},
        where="the benchmark's job",
    )
    progress, template = _Notes(), template_for(network, dataset)
    job = JobContext(
        spec, folder, Task.from_dataset(dataset), FAMILY, LocalBackend(), measure, progress
    )
    latency = profile_precision(WidthTimer(job, network, device, DEFAULT, lambda: template))
    others = _random_widths(latency, NUM_ROUNDS * MIN_ITERATION_SIZE + NUM_HELD_OUT)
    for i in range(NUM_ROUNDS):
        latency.measure(i, others[i * MIN_ITERATION_SIZE : (i + 1) * MIN_ITERATION_SIZE])
    held_out, groups = others[-NUM_HELD_OUT:], []
    config = replace(THOROUGH, num_memory_runs=0, reference_ms=latency.reference_ms)
    for first in range(0, NUM_HELD_OUT, MAX_FINALISTS):
        models = {}
        for i, widths in enumerate(held_out[first : first + MAX_FINALISTS]):
            models[str(i)] = folder / f"held-out-{first + i}.onnx"
            template.export(network.discretize(widths).eval(), models[str(i)], widths=widths)
        measured = measure(models, device, config=config)
        environment = measured["0"].environment
        groups.append(
            {
                "ms": [one.summary.at_percentile for one in measured.values()],
                "ci_ms": [
                    list(one.summary.comparison_ci or one.summary.ci) for one in measured.values()
                ],
                **{
                    key: environment[key]
                    for key in ("reference_ms", "contended_fraction", "num_drifted_processes")
                },
                "diagnostics": sorted({one.diagnostic for one in measured.values()} - {""}),
            }
        )
    return {
        "num_fitted": len(latency.measured),
        "predicted_ms": [one.latency_ms for one in latency.predict(held_out)],
        "stated_median_error_percent": 100 * latency.errors.median_relative,
        "interval": latency.errors.interval or (1.0, 1.0),
        "reference_ms": latency.reference_ms,
        "notes": progress.notes,
        "held_out": groups,
    }


class _Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def _random_widths(latency: LatencyModel, num: int) -> list[Widths]:
    """Widths that were not measured, all different."""
    rng, found = np.random.default_rng(0), dict[tuple[int, ...], Widths]()
    while len(found) < num:
        key = tuple(int(rng.choice(values)) for values in latency.space.values)
        widths = latency.space.from_key(key)
        if not latency.is_measured(widths):
            found[key] = widths
    return list(found.values())
