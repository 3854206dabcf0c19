"""What is lost when a trained network is made narrower without any training, beside magnitude
pruning.

Each network is trained plainly, at full width only, and then sampled at shares of all its
channels: by the package's conversion (`inn_automl.integral.convert`: 512 training samples, no
labels), and by keeping the channels of the largest weights. Normalization statistics are
re-estimated on 2,048 training samples for every width of both.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.intervals import mean_interval
from benchmarks.quality.gradients import plain, train_peer
from benchmarks.quality.pruning import by_magnitude
from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from inn_automl.data import load_dataset
from inn_automl.evaluation.candidates import count_correct
from inn_automl.integral import IntegralNetwork, convert, recalibrate_batch_norm
from inn_automl.integral.conversion.channel_ranking import permute
from inn_automl.models import build
from inn_automl.tasks import Task
from inn_automl.training.recipe import default_recipe

RATIOS = (0.25, 0.375, 0.5, 0.6, 0.7, 0.8, 0.9)
NUM_FITTED = 512
GOALS = {0.7: 0.5, 0.5: 1.5}


class Case(NamedTuple):
    dataset: str
    family: str
    epochs: int


TASKS = (
    Case("mnist1d", "signal", 60),
    Case("mnist5k", "convnet", 12),
    Case("digits", "resnet", 40),
    Case("digits", "mobilenet", 60),
)


def execute(task: Case, seed: int) -> dict[str, Any]:
    """Trains one network, and evaluates it as it is and narrower."""
    torch.set_num_threads(1)
    dataset = load_dataset(task.dataset)
    recipe = dataclasses.replace(
        default_recipe(task.family, len(dataset.train)), epochs=task.epochs
    )
    torch.manual_seed(seed)
    example = torch.zeros(2, *dataset.input_shape)
    network = IntegralNetwork(build(task.family, dataset.input_shape, dataset.num_classes), example)
    started_at = time.monotonic()
    train_peer(network, dataset, recipe, seed, plain, validated=[network.full_widths])
    train_s = time.monotonic() - started_at
    test, calibration = (
        Task.from_dataset(dataset).split("test"),
        Task.from_dataset(dataset).recalibration_samples(),
    )
    batches = [x for x, _ in calibration.batches()]

    def accuracy(module: nn.Module, *, is_ready: bool = False) -> float:
        if not is_ready:
            recalibrate_batch_norm(module, batches)
        return 100 * count_correct(module.eval(), test) / len(test)

    started_at = time.monotonic()
    fitted = calibration.standardized(slice(0, NUM_FITTED))
    converted = convert(network.discretize(network.full_widths).eval(), example, samples=fitted)
    convert_s = time.monotonic() - started_at
    widths = [network.uniform_widths(ratio) for ratio in RATIOS]
    started_at = time.monotonic()
    modules = [converted.discretize(one) for one in widths]
    discretize_s = (time.monotonic() - started_at) / len(widths)
    full = accuracy(network.discretize(network.full_widths))
    permute(network, by_magnitude(network))
    return {
        "task": task._asdict(),
        "seed": seed,
        "full": full,
        "converted": [accuracy(module) for module in modules],
        "magnitude": [accuracy(network.discretize(one)) for one in widths],
        "seconds": {"train": train_s, "convert": convert_s, "discretize": discretize_s},
    }


def summarize(outcomes: list[dict[str, Any]], settings: dict[str, Any]) -> Report:
    """Points lost by task and share, and the mean over tasks."""
    report = Report(
        "conversion",
        "Points of test accuracy lost by plainly trained networks that are sampled narrower "
        "without any training.",
        settings,
        raw={"runs": outcomes},
    )
    tasks = list(dict.fromkeys(tuple(one["task"].values()) for one in outcomes))
    for arm, what in (("converted", "converted"), ("magnitude", "the largest weights kept")):
        rows: list[tuple[Any, ...]] = []
        for task in tasks:
            runs = [one for one in outcomes if tuple(one["task"].values()) == task]
            lost = [
                mean_interval([run["full"] - run[arm][i] for run in runs])
                for i in range(len(RATIOS))
            ]
            rows.append(
                (
                    f"{task[0]}, {task[1]}",
                    f"{statistics.fmean(run['full'] for run in runs):.2f}",
                    *lost,
                )
            )
        rows.append(
            ("mean", "", *(f"{_mean_lost(outcomes, arm, i):.2f}" for i in range(len(RATIOS))))
        )
        columns = ("task, family", "full width, %", *(f"{ratio:g}" for ratio in RATIOS))
        report.tables.append(Table(f"Points lost, {what}, by share of all channels", columns, rows))
    for ratio, goal in GOALS.items():
        lost_points = _mean_lost(outcomes, "converted", RATIOS.index(ratio))
        report.goals.append(
            Goal(
                f"lost at {ratio:g} of every width, mean of tasks",
                f"at most {goal:g} points",
                f"{lost_points:.2f}",
                lost_points <= goal,
            )
        )
    seconds = {
        name: statistics.median(one["seconds"][name] for one in outcomes)
        for name in outcomes[0]["seconds"]
    }
    report.notes += [
        f"Median seconds on one thread: training {seconds['train']:.1f}, converting "
        f"{seconds['convert']:.2f}, and "
        f"{seconds['discretize']:.2f} for each width.",
        "All families at their defaults. The test split is seen once for each width; which of "
        "three fits a width gets "
        "was decided by the outputs on the training samples that it was fitted to, without labels.",
    ]
    return report


def _mean_lost(outcomes: Sequence[dict[str, Any]], arm: str, index: int) -> float:
    return statistics.fmean(one["full"] - one[arm][index] for one in outcomes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks conversion", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    add_report_options(parser)
    options = parser.parse_args(arguments)
    runs = [(task, seed) for seed in range(options.seeds) for task in TASKS]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        outcomes = []
        for one in pool.map(execute, *zip(*runs, strict=True)):
            lost = ", ".join(f"{one['full'] - value:.1f}" for value in one["converted"])
            print(
                f"{one['task']}, seed {one['seed']}: {one['full']:.1f} %, lost {lost}",
                file=sys.stderr,
            )
            outcomes.append(one)
    settings = {
        "tasks": [task._asdict() for task in TASKS],
        "seeds": options.seeds,
        "num_fitted": NUM_FITTED,
    }
    return conclude(summarize(outcomes, settings), options)


if __name__ == "__main__":
    sys.exit(main())
