"""What tuning gains before export: points of test accuracy in a stated time, by what is tuned.

Networks are trained as jobs train them (the sandwich rule, the family's default recipe), and
candidates made at shares of all channels as a search makes them. Each is tuned
(`inn_automl.training.fine_tuning`) as long as `--seconds` says; the loss on the validation split
chooses between it and what it was before, and both are tested: gains are paired. A network and
every tuned arm of it leave files in `--runs`, so that an interrupted benchmark goes on where it
was.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.intervals import mean_interval
from benchmarks.quality.tasks import TASKS, Case, load_task
from benchmarks.report import SCRATCH, Goal, Report, Table, add_report_options, conclude
from inn_automl.core.storage import read_json, write_json
from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import CandidateBuilder, count_correct
from inn_automl.integral import IntegralNetwork
from inn_automl.models import get_family
from inn_automl.models.architecture import Architecture
from inn_automl.tasks import Task
from inn_automl.training.fine_tuning import DEFAULT_PARTS, fine_tune
from inn_automl.training.loop import train
from inn_automl.training.recipe import default_recipe

RATIOS = (0.25, 0.375)
ARMS = {
    "affine": ("affine",),
    "partition": ("partition",),
    "partition and affine": ("partition", "affine"),
    "affine and weights": DEFAULT_PARTS,
}
GOAL, BELOW = 0.5, 0.5
"""Points to gain at widths below this share."""
DEFAULT_TASKS = tuple(task for task in TASKS if task.family != "mobilenet")


def trained_network(task: Case, dataset: Dataset, seed: int, folder: Path) -> IntegralNetwork:
    """The network of a task and seed, trained on one thread unless an earlier call has."""
    depth = get_family(task.family).default_depth
    architecture = Architecture(task.family, dataset.input_shape, dataset.num_classes, 1.0, depth)
    kept = folder / f"{task.dataset}_{task.family}_epochs{task.epochs}_seed{seed}"
    if not (kept / "network.json").exists():
        torch.set_num_threads(1)
        recipe = dataclasses.replace(
            default_recipe(task.family, len(dataset.train)), epochs=task.epochs
        )
        network = architecture.network(seed=seed)
        train(network, Task.from_dataset(dataset), recipe, seed=seed)
        network.save(kept)
    return architecture.load(kept)


def execute(
    task: Case,
    seed: int,
    arm: str,
    candidates: CandidateBuilder,
    dataset: Dataset,
    seconds: float,
    path: Path,
) -> dict[str, Any]:
    """Tunes one arm at every ratio; the outcome, also written to its file. Accuracies are in %."""
    test = Task.from_dataset(dataset).split("test")
    points = []
    for ratio in RATIOS:
        widths = candidates.network.uniform_widths(ratio)
        before = candidates.build(widths)
        tuned = fine_tune(
            candidates,
            widths,
            Task.from_dataset(dataset),
            seconds=seconds,
            seed=seed,
            parts=ARMS[arm],
        )
        points.append(
            {
                "ratio": ratio,
                "is_reconstructed": before.is_reconstructed,
                "before": 100 * count_correct(before.module, test) / len(test),
                "after": 100 * count_correct(tuned.candidate.module, test) / len(test),
                **dataclasses.asdict(tuned.outcome),
            }
        )
    outcome = {"task": dataclasses.asdict(task), "seed": seed, "arm": arm, "points": points}
    write_json(path, outcome)
    return outcome


def execute_all(
    tasks: Sequence[Case], seeds: int, arms: Sequence[str], options: argparse.Namespace
) -> list[Any]:
    """Outcomes of all arms; those whose file is there are read."""
    outcomes = []
    for seed in range(seeds):
        for task in tasks:
            made: tuple[CandidateBuilder, Dataset] | None = None
            for arm in arms:
                name = (
                    f"{task.dataset}_{task.family}_epochs{task.epochs}_seed{seed}_{arm}_"
                    f"{options.seconds:g}s"
                )
                path = options.runs / f"{name}_{options.threads}threads.json"
                if path.exists():
                    outcomes.append(read_json(path))
                    continue
                if made is None:
                    dataset = load_task(task.dataset)
                    network = trained_network(task, dataset, seed, options.runs)
                    torch.set_num_threads(options.threads)
                    made = (
                        CandidateBuilder.from_network(network, Task.from_dataset(dataset)),
                        dataset,
                    )
                started_at = time.monotonic()
                outcomes.append(execute(task, seed, arm, *made, options.seconds, path))
                gains = ", ".join(
                    f"{one['after'] - one['before']:+.2f}" for one in outcomes[-1]["points"]
                )
                print(
                    f"{path.stem}: {gains} in {time.monotonic() - started_at:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    return outcomes


def summarize(outcomes: list[dict[str, Any]], settings: dict[str, Any]) -> Report:
    """Gains by arm, task and ratio, and the goal for all that is tuned together."""
    report = Report(
        "fine_tuning",
        "Points of test accuracy that models sampled from one trained network gain by tuning "
        "before export.",
        settings,
        raw={"runs": outcomes},
    )
    arms = list(dict.fromkeys(one["arm"] for one in outcomes))
    report.tables += [_gains_table(outcomes, arm) for arm in arms]
    report.tables.append(_before_table(outcomes, arms[-1]))
    below = [i for i, ratio in enumerate(RATIOS) if ratio < BELOW]
    for arm in arms:
        found = mean_interval(_by_seed(outcomes, arm, below))
        report.goals.append(
            Goal(
                f"gained at widths under {BELOW:g}, {arm} tuned, mean of tasks",
                f"at least {GOAL:g} points",
                str(found),
                found.mean >= GOAL,
            )
        )
    points = [point for one in outcomes for point in one["points"]]
    kept = sum(
        point["steps"] > 0 and point["loss_after"] < point["loss_before"] for point in points
    )
    reconstructed = sum(point["is_reconstructed"] for point in points)
    steps = [point["steps"] for point in points]
    seconds = [point["seconds"] for point in points]
    report.notes += [
        f"{kept} of {len(points)} tuned models lowered the loss on validation and were kept; the "
        f"others gain 0.",
        f"{reconstructed} of {len(points)} candidates were reconstructed rather than sampled.",
        f"Steps of a fine-tuning: {min(steps)} to {max(steps)}; seconds: {min(seconds):.1f} to "
        f"{max(seconds):.1f}.",
        "95 % intervals over seeds, of paired gains; where the mean of tasks is meant, over the "
        "means of each seed.",
    ]
    return report


def _gains_table(outcomes: list[dict[str, Any]], arm: str) -> Table:
    rows: list[tuple[Any, ...]] = []
    ratios = range(len(RATIOS))
    for task in dict.fromkeys(map(_name, outcomes)):
        runs = [one for one in outcomes if _name(one) == task and one["arm"] == arm]
        rows.append((task, *(mean_interval([_gain(run, i) for run in runs]) for i in ratios)))
    means = (mean_interval(_by_seed(outcomes, arm, [i])) for i in ratios)
    rows.append(("mean of tasks", *means))
    columns = ("task, family", *(f"{ratio:g}" for ratio in RATIOS))
    return Table(f"Points gained, {arm} tuned, by fraction of all channels", columns, rows)


def _before_table(outcomes: list[dict[str, Any]], arm: str) -> Table:
    rows: list[tuple[Any, ...]] = []
    for task in dict.fromkeys(map(_name, outcomes)):
        runs = [one for one in outcomes if _name(one) == task and one["arm"] == arm]
        before = ([run["points"][i]["before"] for run in runs] for i in range(len(RATIOS)))
        rows.append((task, *map(mean_interval, before)))
    columns = ("task, family", *(f"{ratio:g}" for ratio in RATIOS))
    return Table("Test accuracy before, %", columns, rows)


def _name(outcome: dict[str, Any]) -> str:
    return f"{outcome['task']['dataset']}, {outcome['task']['family']}"


def _gain(outcome: dict[str, Any], index: int) -> float:
    point = outcome["points"][index]
    return float(point["after"] - point["before"])


def _by_seed(outcomes: Sequence[dict[str, Any]], arm: str, indices: Sequence[int]) -> list[float]:
    """Mean gain of all tasks at the ratios, one value a seed."""
    found: dict[int, list[float]] = {}
    for one in outcomes:
        if one["arm"] == arm:
            found.setdefault(one["seed"], []).extend(_gain(one, i) for i in indices)
    return [sum(gains) / len(gains) for gains in found.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fine_tuning", description=__doc__)
    parser.add_argument(
        "--task",
        action="append",
        metavar="DATASET,FAMILY",
        help="one of the metric value benchmark's",
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="of " + ",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="of training, rather than each task's own"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of tuning, for each model")
    parser.add_argument("--threads", type=int, default=2, help="that fine-tune it")
    parser.add_argument(
        "--runs",
        type=Path,
        default=SCRATCH / "fine_tuning",
        metavar="DIR",
        help="what was done is kept here",
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    known = {f"{task.dataset},{task.family}": task for task in TASKS}
    arms = options.arms.split(",")
    for given, names in ((options.task or [], known), (arms, ARMS)):
        for name in given:
            if name not in names:
                parser.error(f"there is no {name!r}: give one of {', '.join(names)}.")
    tasks = [known[name] for name in options.task] if options.task else list(DEFAULT_TASKS)
    if options.epochs:
        tasks = [dataclasses.replace(task, epochs=options.epochs) for task in tasks]
    outcomes = execute_all(tasks, options.seeds, arms, options)
    settings = {
        "tasks": {task.name: f"{task.epochs} epochs" for task in tasks},
        "seeds": options.seeds,
        "seconds": options.seconds,
        "threads": options.threads,
    }
    return conclude(summarize(outcomes, settings), options)


if __name__ == "__main__":
    sys.exit(main())
