"""Accuracy of one model at all widths, beside a US-Net trained with the same number of gradient steps.

Every run (arm, learning rate, seed) leaves one JSON file, so that runs can be spread over processes and machines: put
their files into one folder and call this again, and it reports without training anything twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.intervals import Interval, mean_interval
from benchmarks.peers import ARMS
from benchmarks.report import (
    SCRATCH,
    Goal,
    Report,
    Table,
    add_report_options,
    conclude,
    hardware_name,
    installed_versions,
)
from inn_automl.data import load_dataset
from inn_automl.devices.environment import describe_machine
from inn_automl.integral import IntegralNetwork
from inn_automl.models import build
from inn_automl.search.evaluation import evaluate_accuracy
from inn_automl.storage import read_json, write_json
from inn_automl.training.recipe import Recipe, default_recipe

FAMILY = "signal"
RATIOS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
OURS, BARS = "ours", ("us-net", "us-net-by-layer")


@dataclass(frozen=True)
class Run:
    """One training with what it is evaluated on."""

    arm: str
    seed: int
    recipe: Recipe
    dataset: str

    def path(self, folder: Path) -> Path:
        name = f"{self.arm}_lr{self.recipe.learning_rate:g}_epochs{self.recipe.epochs}_seed{self.seed}.json"
        return folder / name

    def identity(self) -> dict[str, Any]:
        """What a finished run must agree on to stand for this one."""
        return {"arm": self.arm, "seed": self.seed, "recipe": self.recipe.to_dict(), "ratios": list(RATIOS)}


def execute(run: Run, folder: Path) -> dict[str, Any]:
    """Trains and evaluates on one thread; the outcome, also written to the run's file."""
    torch.set_num_threads(1)
    started_at = time.monotonic()
    arm = ARMS[run.arm]
    dataset = load_dataset(run.dataset)
    torch.manual_seed(run.seed)
    module = build(FAMILY, dataset.input_shape, dataset.num_classes)
    network = IntegralNetwork(module, torch.zeros(2, *dataset.input_shape), partition=arm.partition)
    arm.train(network, dataset, run.recipe, run.seed)
    widths = [network.uniform_widths(ratio) for ratio in RATIOS]
    outcome = {
        **run.identity(),
        **{
            split: [evaluate_accuracy(network, one, dataset, split=split).accuracy for one in widths]
            for split in ("validation", "test")
        },
        "widths": widths,
        "fingerprint": dataset.fingerprint,
        "samples": {split: len(getattr(dataset, split)) for split in ("train", "validation", "test")},
        "seconds": round(time.monotonic() - started_at, 1),
        "machine": hardware_name(describe_machine()),
        "versions": installed_versions(),
    }
    write_json(run.path(folder), outcome)
    return outcome


def finished(run: Run, folder: Path) -> dict[str, Any] | None:
    """The outcome of a run that was done before, with the same settings."""
    path = run.path(folder)
    if not path.exists():
        return None
    outcome: dict[str, Any] = read_json(path)
    return outcome if {key: outcome.get(key) for key in run.identity()} == run.identity() else None


def execute_all(runs: Sequence[Run], folder: Path, workers: int) -> list[dict[str, Any]]:
    """Outcomes in the order of the runs; what is not finished is trained, `workers` at a time."""
    outcomes = {run: finished(run, folder) for run in runs}
    left = [run for run, outcome in outcomes.items() if outcome is None]
    print(f"{len(runs) - len(left)} of {len(runs)} runs are finished", file=sys.stderr)
    if left:
        # A fork would copy the parent's thread pools in an unusable state.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(left)), mp_context=context) as pool:
            futures = {pool.submit(execute, run, folder): run for run in left}
            for number, future in enumerate(as_completed(futures), 1):
                run = futures[future]
                outcomes[run] = outcome = future.result()
                test = 100 * statistics.mean(outcome["test"])
                print(
                    f"{number}/{len(left)}: {run.path(folder).stem}: {test:.2f} % in {outcome['seconds']} s",
                    file=sys.stderr,
                )
    done = [outcome for outcome in outcomes.values() if outcome is not None]
    fingerprints = {outcome["fingerprint"] for outcome in done}
    if len(fingerprints) > 1:
        raise SystemExit(f"the runs in {str(folder)!r} saw {len(fingerprints)} different datasets: keep those of one.")
    return done


def by_learning_rate(outcomes: Sequence[dict[str, Any]]) -> dict[str, dict[float, list[dict[str, Any]]]]:
    """Runs by arm and learning rate, in the order of their seeds."""
    found: dict[str, dict[float, list[dict[str, Any]]]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: int(outcome["seed"])):
        by_rate = found.setdefault(outcome["arm"], {})
        by_rate.setdefault(outcome["recipe"]["learning_rate"], []).append(outcome)
    return found


def mean_accuracy(runs: Sequence[dict[str, Any]], split: str) -> float:
    """In %, over seeds and widths."""
    return 100 * statistics.fmean(statistics.fmean(run[split]) for run in runs)


def summarize(outcomes: list[dict[str, Any]], settings: dict[str, Any]) -> Report:
    """Means over seeds, by arm and width, and paired differences."""
    tried = by_learning_rate(outcomes)
    chosen = {
        arm: max(by_rate.values(), key=lambda runs: mean_accuracy(runs, "validation")) for arm, by_rate in tried.items()
    }
    means = {arm: [100 * statistics.mean(run["test"]) for run in runs] for arm, runs in chosen.items()}
    samples = outcomes[0]["samples"]
    report = Report(
        "one_model",
        f"Test accuracy in % of one {FAMILY} network on {settings['dataset']}, sampled to {len(RATIOS)} widths "
        f"({', '.join(f'{ratio:g}' for ratio in RATIOS)} of all its channels).",
        {**settings, "trained_on": sorted({outcome["machine"] for outcome in outcomes})},
        raw={"runs": outcomes},
    )
    columns = ("arm", "what", "learning rate", "mean over widths (95 % interval)", "each seed", "median minutes")
    rows: list[tuple[Any, ...]] = []
    for arm, runs in chosen.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        rate = runs[0]["recipe"]["learning_rate"]
        each = " ".join(f"{mean:.2f}" for mean in means[arm])
        rows.append((arm, ARMS[arm].what, f"{rate:g}", mean_interval(means[arm]), each, f"{seconds / 60:.1f}"))
    report.tables.append(Table("Mean over widths", columns, rows))
    rows = [
        (arm, *(f"{100 * statistics.mean(run['test'][i] for run in runs):.2f}" for i in range(len(RATIOS))))
        for arm, runs in chosen.items()
    ]
    report.tables.append(Table("By width, mean over seeds", ("arm", *(f"{r:g}" for r in RATIOS)), rows))
    rates = sorted({rate for by_rate in tried.values() for rate in by_rate})
    if len(rates) > 1:
        rows = [
            (
                arm,
                *(f"{mean_accuracy(by_rate[rate], 'test'):.2f}" if rate in by_rate else "" for rate in rates),
                f"{chosen[arm][0]['recipe']['learning_rate']:g}",
            )
            for arm, by_rate in tried.items()
        ]
        rate_columns = ("arm", *(f"{rate:g}" for rate in rates), "chosen on validation")
        report.tables.append(Table("By learning rate, mean over widths and seeds", rate_columns, rows))
    if OURS in chosen:
        differences = {arm: paired(chosen[OURS], runs) for arm, runs in chosen.items() if arm != OURS}
        report.tables.append(
            Table(
                f"Points that {OURS!r} is ahead, paired by seed",
                ("of", "mean (95 % interval)"),
                list(differences.items()),
            )
        )
        report.goals += [
            Goal(
                f"one model, ahead of {bar}",
                "at least 0 points, within the 95 % interval",
                str(differences[bar]),
                differences[bar].high >= 0 if differences[bar].count > 1 else None,
            )
            for bar in BARS
            if bar in differences
        ]
    report.notes += [
        f"Trained on {samples['train']} samples; epochs (and the learning rate, where several were tried) were chosen "
        f"on {samples['validation']} validation samples; the {samples['test']} test samples were seen once a width.",
        "All arms start from the same weights by seed and take the same number of gradient steps with the same order, "
        "batch size, augmentation, optimizer, schedule and clipping; normalization statistics are re-estimated on "
        "2,048 training samples for every width of every arm. Seeds change weights, order and widths, not the split.",
        "'paper' takes one pass a step where the others take four; 'paper-x4' takes four times the steps.",
    ]
    return report


def paired(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Interval:
    """Difference of the means over widths in points, over the seeds that both have."""
    by_seed = {run["seed"]: run for run in theirs}
    return mean_interval(
        [
            100 * (statistics.mean(run["test"]) - statistics.mean(by_seed[run["seed"]]["test"]))
            for run in ours
            if run["seed"] in by_seed
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks one_model", description=__doc__)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)), metavar="N")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument(
        "--learning-rates",
        nargs="+",
        type=float,
        metavar="RATE",
        help="tried for every arm, which keeps the one that is best on validation (default: the recipe's)",
    )
    parser.add_argument("--dataset", default="mnist1d", help="a built-in dataset of signals or a path")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument(
        "--runs", type=Path, default=SCRATCH / "one_model", metavar="DIR", help="where each run's outcome is kept"
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    dataset = load_dataset(options.dataset)
    recipe = default_recipe(FAMILY, len(dataset.train))
    if options.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=options.epochs)
    runs = [
        Run(arm, seed, dataclasses.replace(recipe, learning_rate=rate), options.dataset)
        for seed in options.seeds
        for rate in options.learning_rates or [recipe.learning_rate]
        for arm in options.arms
    ]
    settings = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "seeds": options.seeds,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rates": options.learning_rates or [recipe.learning_rate],
    }
    return conclude(summarize(execute_all(runs, options.runs, options.workers), settings), options)


if __name__ == "__main__":
    sys.exit(main())
