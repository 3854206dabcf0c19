"""Time series of the UCR archive with published accuracies, by the official splits: jobs with 90
seconds of training.

The published ones are those of the ResNet of Fawaz et al., "Deep learning for time series
classification: a review" (2019), which trains for 1,500 epochs on a GPU. Settings were chosen by
other sets. Finished jobs leave files in `--runs`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import SCRATCH, Goal, Report, Table, add_report_options, conclude
from benchmarks.signal_jobs import MAX_EVALUATIONS, median_at, run_job, shown
from benchmarks.time_series_data import write_series

PUBLISHED = {"OSULeaf": 97.9, "ItalyPowerDemand": 96.3, "GunPoint": 99.1}
TUNING = ("ArrowHead", "ACSF1", "BasicMotions")
"""Sets to choose settings by."""
RATIOS = (1.0, 0.5, 0.25)


def summarize(outcomes: dict[str, list[dict[str, Any]]], settings: dict[str, Any]) -> Report:
    report = Report(
        "time_series",
        "Accuracy of jobs on time series, by official splits, beside a published network.",
        settings,
        raw=outcomes,
    )
    rows: list[tuple[Any, ...]] = []
    for name, jobs in outcomes.items():
        found, points = median_at(jobs, 1.0), min(len(one["front"]) for one in jobs)
        if name in PUBLISHED:
            to_reach = PUBLISHED[name]
            report.goals += [
                Goal(f"{name}, at the widest", f"at least {to_reach} %", f"{found:.1f} %",
                     round(found, 1) >= to_reach),
                Goal(f"{name}, points of the front", "more than one", str(points), points > 1),
            ]  # fmt: skip
        rows += [
            (
                name,
                one["seed"],
                *(shown(one, ratio) for ratio in RATIOS),
                one["at"]["1"]["params"],
                ", ".join(
                    f"{100 * point['accuracy']:.1f} ({point['params']})" for point in one["front"]
                ),
                one["minutes"]["training"],
                one["minutes"]["job"],
                one["load_average"],
            )
            for one in jobs
        ]
    columns = (
        "set", "seed", "full width, %", "half, %", "a quarter, %", "parameters",
        "front, % (parameters)", "training, minutes", "job, minutes", "load",
    )  # fmt: skip
    report.tables.append(Table("On the test split, with 95 % intervals", columns, rows))
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks time_series", description=__doc__)
    parser.add_argument(
        "--sets", nargs="+", default=list(PUBLISHED), help=f"to tune by: {' '.join(TUNING)}"
    )
    parser.add_argument("--minutes", type=float, default=1.5, help="of training (default: 1.5)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of jobs (default: 0 1 2)"
    )
    parser.add_argument(
        "--runs", type=Path, default=SCRATCH / "time_series", metavar="DIR", help="kept here"
    )
    parser.add_argument(
        "--evaluations", type=int, default=MAX_EVALUATIONS, help="of a search (default: 100)"
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    folder = SCRATCH / "series"
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = {
        name: [
            run_job(
                write_series(name, folder),
                options.runs / f"{name}-seed{seed}",
                minutes=options.minutes,
                seed=seed,
                ratios=RATIOS,
                evaluations=options.evaluations,
            )
            for seed in options.seeds
        ]
        for name in options.sets
    }
    settings = {
        "minutes": options.minutes,
        "seeds": options.seeds,
        "evaluations": options.evaluations,
    }
    return conclude(summarize(outcomes, settings), options)


if __name__ == "__main__":
    sys.exit(main())
