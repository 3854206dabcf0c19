"""How far predicted latency is from what a front would show, on widths that the predictor has not seen.

A device is calibrated as a job does it: the same widths of the network's whole space, by the same protocol, and then a
few rounds of others, as a search makes them; each is measured beside three widths of the calibration, whose latency
tells how fast the machine is then. Held out are widths drawn from the space at random, measured as finalists are: no
more together than these, by the thorough protocol, in processes in which the reference model is as fast as in most of
the measurements before. What measurements differ by from each other beyond that is part of the error, as it is in a
job.
"""

from __future__ import annotations

import itertools
import statistics
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
from inn_automl.devices.latency import THOROUGH, Protocol, measure
from inn_automl.devices.predictor import LatencyPredictor
from inn_automl.search.refinement import SMALLEST_ROUND
from inn_automl.search.space import SearchSpace, Widths
from inn_automl.stages.calibrating import CALIBRATION, NUM_ANCHORS, NUM_CALIBRATION_WIDTHS, ROUND
from inn_automl.stages.measuring import MAX_FINALISTS
from inn_automl.storage import read_json, write_json

NUM_HELD_OUT, NUM_ROUNDS = 60, 5
_THOROUGH = replace(THOROUGH, num_memory_runs=0)


def predictions(folder: Path, truth: Truth, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """By device, the errors of its predictor. What was measured is kept in the folder, and measured once.

    Returns:
        Of each: `median_error_percent`, `p90_error_percent`, `spearman`, what the predictor stated of itself, the share
        within its stated interval, `interval_percent`, the median half-width of a measured p95's own interval, and the
        `levels` of the rounds: how long the anchors took in each, as a share of what they took in the calibration.
    """
    return {
        device.name: _errors(folder / f"prediction-{device.name}.json", truth, dataset, i)
        for i, device in enumerate(DEVICES)
    }


def _errors(path: Path, truth: Truth, dataset: Dataset, device: int) -> dict[str, Any]:
    network = truth.network
    space = SearchSpace(network.groups)
    fitted = calibration_widths(space, NUM_CALIBRATION_WIDTHS)
    others = _random_widths(space, NUM_ROUNDS * SMALLEST_ROUND + NUM_HELD_OUT, without=fitted)
    rounds = [others[i * SMALLEST_ROUND : (i + 1) * SMALLEST_ROUND] for i in range(NUM_ROUNDS)]
    held_out = others[-NUM_HELD_OUT:]
    if not path.exists():
        print(f"{DEVICES[device].name}: calibrating, and measuring {NUM_HELD_OUT} other widths", file=sys.stderr)
        template = template_for(network, dataset)

        def measured(widths: list[Widths], protocol: Protocol) -> dict[str, Any]:
            models = {}
            for i, one in enumerate(widths):
                models[str(i)] = path.parent / "onnx" / f"prediction-{'-'.join(map(str, one.values()))}.onnx"
                template.export(network.discretize(one).eval(), models[str(i)], widths=one)
            found = measure(models, DEVICES[device], protocol=protocol)
            environment = found["0"].environment
            return {
                "ms": [one.summary.at_percentile for one in found.values()],
                "ci_ms": [list(one.summary.comparison_ci or one.summary.ci) for one in found.values()],
                **{key: environment[key] for key in ("reference_ms", "disturbed_share", "num_drifted_processes")},
                "remarks": sorted({one.remark for one in found.values()} - {""}),
            }

        calls = [measured(fitted, CALIBRATION)]
        for widths in rounds:
            calls.append(measured([*fitted[:NUM_ANCHORS], *widths], ROUND))
        usual_ms = statistics.median_high(one["reference_ms"] for one in calls)
        for first in range(0, NUM_HELD_OUT, MAX_FINALISTS):
            together = held_out[first : first + MAX_FINALISTS]
            calls.append(measured(together, replace(_THOROUGH, reference_ms=usual_ms)))
        write_json(path, calls)
    calibration, *later = read_json(path)
    search, groups = later[:NUM_ROUNDS], later[NUM_ROUNDS:]
    x, z = (
        np.stack([latency_features(network.costs(one)) for one in widths])
        for widths in ([*fitted, *itertools.chain(*rounds)], held_out)
    )
    known_ms, levels = list(calibration["ms"]), [1.0]
    for one in search:
        levels.append(float(np.median(np.divide(one["ms"][:NUM_ANCHORS], known_ms[:NUM_ANCHORS]))))
        known_ms += [ms / levels[-1] for ms in one["ms"][NUM_ANCHORS:]]
    predictor = LatencyPredictor().fit(x, np.multiply(statistics.median_high(levels), known_ms))
    measured_ms, ci_ms = (np.concatenate([one[key] for one in groups]) for key in ("ms", "ci_ms"))
    predicted_ms = predictor.predict(z)
    relative = 100 * np.abs(predicted_ms / measured_ms - 1)
    low, high = predictor.error.interval or (1.0, 1.0)
    return {
        "kind": predictor.kind,
        "num_fitted": len(x),
        "num_held_out": len(held_out),
        "median_error_percent": float(np.median(relative)),
        "p90_error_percent": float(np.percentile(relative, 90)),
        "spearman": float(spearmanr(predicted_ms, measured_ms).statistic),
        "stated_median_error_percent": 100 * predictor.error.median_relative,
        "share_within_stated_interval": float(
            np.mean((measured_ms / predicted_ms >= low) & (measured_ms / predicted_ms <= high))
        ),
        "interval_percent": float(50 * np.median((ci_ms[:, 1] - ci_ms[:, 0]) / measured_ms)),
        "levels": levels,
        "remarks": [one["remarks"] for one in groups],
        "num_drifted_processes": [one["num_drifted_processes"] for one in groups],
        "disturbed_share": float(np.mean([one["disturbed_share"] for one in groups])),
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
