"""How far predicted latency is from what a front would show, on widths that the predictor has not seen.

A device is calibrated as a job does it: the same widths of the network's whole space, by the same quick protocol. Held
out are widths drawn from that space at random, measured as finalists are, by the thorough protocol. What these two
measurements differ by from each other is part of the error, as it is in a job.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.search_truth import DEVICES, Truth, template_for
from inn_automl.data import Dataset
from inn_automl.devices.calibration import calibration_widths
from inn_automl.devices.features import latency_features
from inn_automl.devices.latency import QUICK, THOROUGH, measure
from inn_automl.devices.predictor import LatencyPredictor
from inn_automl.search.space import SearchSpace, Widths
from inn_automl.stages.calibrating import NUM_CALIBRATION_WIDTHS
from inn_automl.stages.measuring import MAX_FINALISTS
from inn_automl.storage import read_json, write_json

NUM_HELD_OUT = 60
_THOROUGH = replace(THOROUGH, num_memory_runs=0)


def predictions(folder: Path, truth: Truth, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """By device, the errors of its predictor. What was measured is kept in the folder, and measured once.

    Returns:
        Of each: `median_error_percent`, `p90_error_percent`, `spearman`, what the predictor stated of itself, the share
        within its stated interval, and `interval_percent`, the median half-width of a measured p95's own interval.
    """
    return {
        device.name: _errors(folder / f"prediction-{device.name}.json", truth, dataset, i)
        for i, device in enumerate(DEVICES)
    }


def _errors(path: Path, truth: Truth, dataset: Dataset, device: int) -> dict[str, Any]:
    network = truth.network
    space = SearchSpace(network.groups)
    fitted = calibration_widths(space, NUM_CALIBRATION_WIDTHS)
    held_out = _random_widths(space, NUM_HELD_OUT, without=fitted)
    if not path.exists():
        print(f"{DEVICES[device].name}: calibrating, and measuring {NUM_HELD_OUT} other widths", file=sys.stderr)
        template = template_for(network, dataset)
        record = {}
        # As in a job: the calibration's models together, of others no more than a front's finalists.
        for name, widths, protocol, size in (
            ("fitted", fitted, QUICK, len(fitted)),
            ("held_out", held_out, _THOROUGH, MAX_FINALISTS),
        ):
            models = {}
            for i, one in enumerate(widths):
                models[str(i)] = path.parent / "onnx" / f"prediction-{name}-{i}.onnx"
                template.export(network.discretize(one).eval(), models[str(i)], widths=one)
            measured = {}
            names = list(models)
            for first in range(0, len(names), size):
                together = {one: models[one] for one in names[first : first + size]}
                measured.update(measure(together, DEVICES[device], protocol=protocol))
            record[name] = {
                "ms": [measured[str(i)].summary.at_percentile for i in range(len(widths))],
                "ci_ms": [list(measured[str(i)].summary.comparison_ci) for i in range(len(widths))],
                "disturbed_share": measured["0"].environment["disturbed_share"],
            }
        write_json(path, record)
    record = read_json(path)
    x, z = (np.stack([latency_features(network.costs(one)) for one in widths]) for widths in (fitted, held_out))
    predictor = LatencyPredictor().fit(x, record["fitted"]["ms"])
    measured_ms, ci_ms = np.array(record["held_out"]["ms"]), np.array(record["held_out"]["ci_ms"])
    predicted_ms = predictor.predict(z)
    relative = 100 * np.abs(predicted_ms / measured_ms - 1)
    low, high = predictor.error.interval or (1.0, 1.0)
    return {
        "kind": predictor.kind,
        "num_fitted": len(fitted),
        "num_held_out": len(held_out),
        "median_error_percent": float(np.median(relative)),
        "p90_error_percent": float(np.percentile(relative, 90)),
        "spearman": float(spearmanr(predicted_ms, measured_ms).statistic),
        "stated_median_error_percent": 100 * predictor.error.median_relative,
        "share_within_stated_interval": float(
            np.mean((measured_ms / predicted_ms >= low) & (measured_ms / predicted_ms <= high))
        ),
        "interval_percent": float(50 * np.median((ci_ms[:, 1] - ci_ms[:, 0]) / measured_ms)),
        "disturbed_share": record["held_out"]["disturbed_share"],
    }


def _random_widths(space: SearchSpace, num: int, *, without: list[dict[str, int]]) -> list[Widths]:
    rng = np.random.default_rng(0)
    taken = {space.key(one) for one in without}
    found: list[Widths] = []
    while len(found) < num:
        key = tuple(int(rng.choice(values)) for values in space.values)
        if key not in taken:
            taken.add(key)
            found.append(space.from_key(key))
    return found
