"""Measures the same models again and again, in fresh processes: how far is a latency from that of
the next measurement?

Alone, and beside other work that this benchmark starts and ends: a process that computes and one
that copies memory, both by fits and starts. Each time with the reference model's check and without
it, in a new random order.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from benchmarks.hog import KINDS, hogs
from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from inn_automl.core.spec import DeviceBudget
from inn_automl.latency.benchmark import LatencyMeasurement, measure
from inn_automl.latency.config import THOROUGH

ALONE, BUSY, CHECKED = "alone", "beside other work", "with the check"
CONDITIONS: dict[str, tuple[str, ...]] = {ALONE: (), BUSY: KINDS}
PROTOCOLS = {
    CHECKED: THOROUGH,
    "without": replace(THOROUGH, max_drift=1e9, max_process_drift=1e9),
}
RATIOS = (0.25, 0.5, 0.75, 1.0)
DEVICE = DeviceBudget(name="retest")

Arm = tuple[str, str]
"""Condition and protocol."""


@dataclass(frozen=True)
class Spread:
    """Measurements of one arm against each other.

    `changes` are |ratio - 1| of a model's p95 between two measurements in a row; `held` says for
    each earlier measurement and each later one whether the interval of the former contains the p95
    of the latter.
    """

    changes: list[float]
    held: list[bool]
    num_repetitions: int
    num_drifted: int
    num_processes: int
    num_drifted_processes: int
    diagnostics: int


def export_models(folder: Path) -> dict[str, Path]:
    """A CIFAR ResNet at a few widths."""
    import numpy as np

    from inn_automl.export import export_onnx
    from inn_automl.models.architecture import Architecture
    from inn_automl.width_search.space import SearchSpace

    network = Architecture("resnet", (3, 32, 32), 10, 1.0, 20).network(seed=0)
    space, models = SearchSpace(network.groups, 8), {}
    for ratio in RATIOS:
        path = folder / f"{ratio:g}.onnx"
        module = network.discretize(space.uniform(ratio)).eval()
        export_onnx(
            module, path, input_shape=(3, 32, 32), mean=np.full(3, 0.5), std=np.full(3, 0.25)
        )
        models[f"ResNet at {ratio:g}"] = path
    return models


def spread(repeats: Sequence[dict[str, LatencyMeasurement]]) -> Spread:
    """Of the same models, measured two or more times."""
    names = list(repeats[0])
    environments = [next(iter(one.values())).environment for one in repeats]

    def total(key: str) -> int:
        return sum(environment[key] for environment in environments)

    return Spread(
        changes=[
            abs(after[name].summary.at_percentile / before[name].summary.at_percentile - 1)
            for before, after in pairwise(repeats)
            for name in names
        ],
        held=[
            before[name].summary.ci[0]
            <= after[name].summary.at_percentile
            <= before[name].summary.ci[1]
            for before, after in combinations(repeats, 2)
            for name in names
        ],
        num_repetitions=total("num_repetitions"),
        num_drifted=total("num_drifted_repetitions"),
        num_processes=total("num_processes") + total("num_drifted_processes"),
        num_drifted_processes=total("num_drifted_processes"),
        diagnostics=sum(bool(one[name].diagnostic) for one in repeats for name in names),
    )


def collect(
    models: dict[str, Path], conditions: Sequence[str], repeats: int, pause_s: float
) -> dict[Arm, list[dict[str, LatencyMeasurement]]]:
    """Every arm of the conditions, `repeats` times."""
    arms: list[Arm] = [(condition, protocol) for condition in conditions for protocol in PROTOCOLS]
    found: dict[Arm, list[dict[str, LatencyMeasurement]]] = {arm: [] for arm in arms}
    for repeat in range(repeats):
        if repeat:
            time.sleep(pause_s)
        for condition, protocol in random.Random(repeat).sample(arms, len(arms)):
            with hogs(CONDITIONS[condition]):
                seeded = replace(PROTOCOLS[protocol], seed=repeat, num_memory_runs=0)
                found[condition, protocol].append(measure(models, DEVICE, config=seeded))
            print(
                f"{repeat + 1} of {repeats}, {condition}, {protocol}", file=sys.stderr, flush=True
            )
    return found


def compare(conditions: Sequence[str], repeats: int, pause_s: float) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        found = collect(export_models(Path(folder)), conditions, repeats, pause_s)
    report = Report(
        "retest",
        "How far the p95 of a model is from that of the next measurement in fresh processes.",
        {
            "repeats": repeats,
            "pause_s": pause_s,
            "models": [f"ResNet at {ratio:g}" for ratio in RATIOS],
        },
        raw={
            "measurements": [
                {
                    "condition": condition,
                    "protocol": protocol,
                    "repeat": index,
                    "model": name,
                    "latency_ms": one.summary.model_dump(),
                    "diagnostic": one.diagnostic,
                    "environment": _told(one.environment),
                }
                for (condition, protocol), measured in found.items()
                for index, models in enumerate(measured)
                for name, one in models.items()
            ]
        },
    )
    spreads = {arm: spread(measured) for arm, measured in found.items()}
    if busy := spreads.get((BUSY, CHECKED)):
        report.goals.append(
            Goal(
                "median change of p95 between measurements, other work running, and drifted "
                "batches caught",
                "reported",
                f"{statistics.median(busy.changes):.1%}; {busy.num_drifted} of "
                f"{busy.num_repetitions} batches",
                None,
            )
        )
    report.tables += [_spreads(spreads), _latencies(found)]
    report.notes += [
        f"{repeats} measurements of {len(RATIOS)} models in each arm, {pause_s:g} s between one "
        f"round of all arms and "
        "the next; a change is |p95 / p95 before - 1|.",
        "An interval is for the percentile of one more process of the same kind, at 95 %. What is "
        "held against it here "
        "is the p95 of later measurements, six and more processes each.",
        "Without the check drifted batches are counted by no one, so their column is empty there.",
    ]
    return report


def _told(environment: dict[str, Any]) -> dict[str, Any]:
    keys = (
        "num_processes",
        "num_drifted_processes",
        "num_repetitions",
        "num_drifted_repetitions",
        "reference_ms",
    )
    return {key: environment[key] for key in (*keys, "contended_fraction", "started_at")}


def _spreads(spreads: dict[Arm, Spread]) -> Table:
    rows = []
    for (condition, protocol), one in spreads.items():
        checked = PROTOCOLS[protocol] is THOROUGH
        rows.append(
            (
                condition,
                protocol,
                f"{statistics.median(one.changes):.1%}",
                f"{max(one.changes):.1%}",
                f"{sum(one.held)} of {len(one.held)}",
                f"{one.num_drifted} of {one.num_repetitions}" if checked else "",
                f"{one.num_drifted_processes} of {one.num_processes}" if checked else "",
                one.diagnostics,
            )
        )
    columns = (
        "condition",
        "reference model",
        "median change",
        "worst change",
        "later p95 inside of the interval",
        "drifted batches",
        "drifted processes",
        "measurements that did not settle",
    )
    return Table("Change of p95 between measurements", columns, rows)


def _latencies(found: dict[Arm, list[dict[str, LatencyMeasurement]]]) -> Table:
    rows = [
        (
            condition,
            protocol,
            name,
            *(f"{models[name].summary.at_percentile:.4g}" for models in measured),
        )
        for (condition, protocol), measured in found.items()
        for name in measured[0]
    ]
    num = len(next(iter(found.values())))
    return Table(
        "p95 in ms", ("condition", "reference model", "model", *map(str, range(1, num + 1))), rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks retest", description=__doc__)
    parser.add_argument(
        "--repeats", type=int, default=4, help="measurements of every arm (default: 4)"
    )
    parser.add_argument(
        "--pause-s", type=float, default=180.0, help="between two rounds of them (default: 180)"
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        choices=CONDITIONS,
        default=list(CONDITIONS),
        metavar="C",
        help=", ".join(CONDITIONS),
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    if options.repeats < 2:
        parser.error("give at least --repeats 2")
    return conclude(compare(options.conditions, options.repeats, options.pause_s), options)


if __name__ == "__main__":
    sys.exit(main())
