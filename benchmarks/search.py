"""Share of the true front that a search finds on a space that is known whole, beside Optuna's
samplers; and how far predicted latency is off.

Every arm has the same cost model to begin with (fitted on the widths that a job's profiling would
measure), at most 100 accuracy evaluations and 60 latency measurements, and the same tables to look
both up in. The package's own arm is `run_search` as a job calls it, which spends the measurements
that profiling leaves while it searches. The peers are Optuna studies over predicted latency and
accuracy; when they are done, the measurements left are made of what `rank_finalists` puts first,
as a job does, from their evaluations. Only what was both evaluated and measured counts.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.intervals import mean_interval
from benchmarks.report import SCRATCH, Goal, Report, Table, add_report_options, conclude
from benchmarks.search_arms import ARMS, MAX_EVALUATIONS, MAX_MEASUREMENTS, OURS, Found, Problem
from benchmarks.search_prediction import predictions
from benchmarks.search_truth import DATASET, DEVICES, EPOCHS, FAMILY, Truth, find_truth
from inn_automl.data import load_dataset

SHARE_GOAL, ERROR_GOAL, SPEARMAN_GOAL = 99.0, 5.0, 0.98


@functools.cache
def _problem(folder: Path) -> Problem:
    return Problem(find_truth(folder))


def _run(folder: Path, arm: str, seed: int) -> Found:
    return ARMS[arm].run(_problem(folder), seed)


def summarize(
    truth: Truth,
    found: dict[str, list[Found]],
    predictions: dict[str, dict[str, Any]],
    settings: dict[str, Any],
) -> Report:
    """The report; `raw["figures"]` holds the figures that goals are about."""
    shares = {arm: share_figures(runs) for arm, runs in found.items()}
    report = Report(
        "search",
        f"Share of the true front's hypervolume found on all {len(truth.points):,} widths of a "
        f"{FAMILY} on {DATASET}, with at most {MAX_EVALUATIONS} accuracy evaluations and "
        f"{MAX_MEASUREMENTS} latency measurements.",
        settings,
        machine=dict(truth.environment[DEVICES[0].name]),
    )
    report.tables.append(_search_table(found, shares, settings["seeds"]))
    report.tables.append(_prediction_table(predictions))
    if OURS in found:
        ours = shares[OURS]
        report.goals.append(
            Goal(
                "share of the true front's hypervolume",
                f"at least {SHARE_GOAL:g} % on average",
                f"{ours['mean']:.2f} %, worst seed {ours['worst']:.2f} %",
                ours["mean"] >= SHARE_GOAL,
            )
        )
    for name, one in predictions.items():
        found_text = f"{one['median_error_percent']:.2f} %, {one['spearman']:.4f}"
        met = one["median_error_percent"] < ERROR_GOAL and one["spearman"] > SPEARMAN_GOAL
        to_reach = f"median error under {ERROR_GOAL:g} %, Spearman over {SPEARMAN_GOAL:g}"
        report.goals.append(
            Goal(f"predicted against measured latency, {name}", to_reach, found_text, met)
        )
    report.notes += [*_truth_notes(truth), *_profiling_notes(predictions)]
    report.raw = {
        "figures": {"hypervolume_share_percent": shares, "prediction": predictions},
        "runs": {arm: [one.to_dict() for one in runs] for arm, runs in found.items()},
    }
    return report


def share_figures(runs: Sequence[Found]) -> dict[str, Any]:
    """Percentages of the true hypervolume that one arm found, and the most that a seed spent."""
    share = mean_interval([100 * one.share for one in runs])
    return {
        "mean": share.mean,
        "low": share.low,
        "high": share.high,
        "worst": min(100 * one.share for one in runs),
        "seeds": len(runs),
        "mean_within_front_box": mean_interval([100 * one.strict_share for one in runs]).mean,
        "evaluations": max(one.num_evaluations for one in runs),
        "measurements": max(one.num_measurements for one in runs),
    }


def _search_table(
    found: dict[str, list[Found]], shares: dict[str, dict[str, Any]], num_seeds: int
) -> Table:
    columns = (
        "arm",
        "what",
        "% of the true hypervolume (95 % interval)",
        "worst seed",
        "counting unmeasured too",
        "% within the front's own box",
        "most evaluations, measurements",
    )
    rows: list[tuple[Any, ...]] = [
        (
            arm,
            ARMS[arm].what,
            str(mean_interval([100 * one.share for one in runs])),
            f"{shares[arm]['worst']:.2f}",
            str(mean_interval([100 * one.evaluated_share for one in runs])),
            str(mean_interval([100 * one.strict_share for one in runs])),
            f"{shares[arm]['evaluations']}, {shares[arm]['measurements']}",
        )
        for arm, runs in found.items()
    ]
    return Table(f"Search, {num_seeds} seeds", columns, rows)


def _truth_notes(truth: Truth) -> list[str]:
    problem = Problem(truth)
    latency, accuracy, front = problem.latency_ms, truth.accuracy, problem.front
    return [
        f"The true front has {len(front)} points, from {latency[front[0]]:.3g} ms and "
        f"{accuracy[front[0]]:.1%} to {latency[front[-1]]:.3g} ms and {accuracy[front[-1]]:.1%}. "
        f"Hypervolume is measured from {problem.reference[0]:.3g} ms and "
        f"{problem.reference[1]:.0%}, as in a job; 'within the front's own box' from the slowest "
        "point's latency and the fastest point's accuracy, where no share is had for nothing.",
        f"The network was trained for {EPOCHS} epochs, so that accuracy depends on widths. All "
        "latencies are at p95, measured once; a measurement of an arm is a look into the same "
        "table, so measurement noise counts as truth.",
        "Blocks contended by other programs, as a fraction of all: "
        + "; ".join(f"{name}: {np.mean(shares):.0%}" for name, shares in truth.contended.items()),
    ]


def _profiling_notes(predictions: dict[str, dict[str, Any]]) -> list[str]:
    """The notes of each device's profiling, and the diagnostics of its measurements, once each."""
    return [
        f"While {name} was profiled and measured: {sentence}."
        for name, one in predictions.items()
        for sentence in (*one["notes"], *dict.fromkeys(itertools.chain(*one["diagnostics"])))
    ]


def _prediction_table(predictions: dict[str, dict[str, float]]) -> Table:
    columns = (
        "device",
        "fitted on",
        "held out",
        "median error",
        "90th percentile",
        "Spearman",
        "stated median error",
        "within the stated interval",
        "a measured p95's own interval, +-",
    )
    rows = [
        (
            name,
            one["num_fitted"],
            one["num_held_out"],
            f"{one['median_error_percent']:.2f} %",
            f"{one['p90_error_percent']:.2f} %",
            f"{one['spearman']:.4f}",
            f"{one['stated_median_error_percent']:.2f} %",
            f"{one['share_within_stated_interval']:.0%}",
            f"{one['interval_percent']:.1f} %",
        )
        for name, one in predictions.items()
    ]
    return Table(
        "Predicted against measured latency (p95) on held-out widths of the whole space",
        columns,
        rows,
    )


def run_arms(
    folder: Path,
    arms: Sequence[str],
    seeds: Sequence[int],
    workers: int,
    say: Callable[[str], None],
) -> dict[str, list[Found]]:
    """Every arm with every seed, `workers` at a time."""
    tasks = [(arm, seed) for seed in seeds for arm in arms]
    found: dict[str, list[Found]] = {arm: [] for arm in arms}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        results = pool.map(functools.partial(_run, folder), *zip(*tasks, strict=True))
        for (arm, seed), one in zip(tasks, results, strict=True):
            say(
                f"{arm}, seed {seed}: {one.share:.2%} ({one.strict_share:.2%} within the front's "
                f"box)"
            )
            found[arm].append(one)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks search", description=__doc__)
    parser.add_argument(
        "--truth", type=Path, default=SCRATCH / "search", metavar="DIR", help="where the tables are"
    )
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS)
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)), metavar="N")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    add_report_options(parser)
    options = parser.parse_args(arguments)
    truth = find_truth(options.truth)
    found = run_arms(
        options.truth,
        options.arms,
        options.seeds,
        options.workers,
        lambda text: print(text, file=sys.stderr),
    )
    predicted = predictions(options.truth, truth, load_dataset(DATASET))
    settings = {
        "seeds": len(options.seeds),
        "max_evaluations": MAX_EVALUATIONS,
        "max_measurements": MAX_MEASUREMENTS,
    }
    return conclude(summarize(truth, found, predicted, settings), options)


if __name__ == "__main__":
    sys.exit(main())
