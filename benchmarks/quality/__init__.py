"""Accuracy of models at seven widths, made in several ways with the same number of gradient steps.

Every run (task, arm, seed) leaves one JSON file, so that runs can be spread over processes and
machines: put their files into one folder and call this again, and it reports without training
anything twice.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.intervals import Interval, mean_interval
from benchmarks.quality import plot
from benchmarks.quality.arms import ARMS, OURS, PEER, RATIOS, Setting
from benchmarks.quality.runs import (
    NUM_SEARCHED,
    Run,
    area,
    execute_all,
    finished,
    recipe_of,
    searched_volume,
)
from benchmarks.quality.tasks import LARGE_TASKS, TASKS, find_task, load_task
from benchmarks.quality.torchintegral import why_not
from benchmarks.report import SCRATCH, Goal, Report, Table, add_report_options, conclude, folder_of

AHEAD = {"usnet": 0.5, "separate": 0.0, "paper": 5.0}
"""Points that the mean over widths should be ahead by, on the mean of tasks."""

FRONT_FROM = 0.5
"""Smallest share of channels at which one plain training, converted, is to serve as well as a
sandwich.
"""

Outcomes = Sequence[dict[str, Any]]


def summarize(outcomes: Outcomes, settings: dict[str, Any]) -> Report:
    """Accuracy by task, arm and width; means, areas, seconds; and how far ours is ahead, paired by
    task and seed.
    """
    is_large = {task.name for task in LARGE_TASKS}.issuperset(_tasks(outcomes))
    report = Report(
        "quality-large" if is_large else "quality",
        f"Test accuracy in % of models at {', '.join(f'{ratio:g}' for ratio in RATIOS)} of all "
        f"channels.",
        {**settings, "trained_on": sorted({one["machine"] for one in outcomes})},
        raw={"runs": list(outcomes), "figures": figures(outcomes)},
    )
    for task in _tasks(outcomes):
        rows: list[tuple[Any, ...]] = []
        for arm, runs in _by_arm([one for one in outcomes if _task(one) == task]).items():
            by_width = (
                f"{statistics.fmean(run['test'][i] for run in runs):.2f}"
                for i in range(len(RATIOS))
            )
            mean = mean_interval([statistics.fmean(run["test"]) for run in runs])
            over_macs = f"{statistics.fmean(map(area, runs)):.2f}"
            volumes = [searched_volume(run) for run in runs if run["searched"]]
            searched = f"{statistics.fmean(volumes):.2f}" if volumes else ""
            seconds = f"{statistics.median(run['train_s'] for run in runs):.0f}"
            rows.append((arm, ARMS[arm].what, *by_width, mean, over_macs, searched, seconds))
        columns = (
            "arm",
            "what",
            *(f"{ratio:g}" for ratio in RATIOS),
            "mean over widths (95 % interval)",
            "mean over MACs",
            "hypervolume of the same search",
            "median s of training",
        )
        report.tables.append(Table(task, columns, rows))
    for arm in dict.fromkeys(one["arm"] for one in outcomes):
        if arm != OURS and any(one["arm"] == OURS for one in outcomes):
            _compare(report, outcomes, arm)
    _judge_conversion(report, outcomes)
    for one in outcomes:
        for name, version in one["versions"].items():
            report.versions.setdefault(name, version)
    gains = [
        statistics.fmean(one["test"]) - statistics.fmean(one["sampled"])
        for one in outcomes
        if one["arm"] == OURS
    ]
    by_package = [
        pair
        for task in _tasks(outcomes)
        for pair in _pairs(outcomes, "pruned", task, "torch-pruning")
    ]
    if by_package:
        apart = max(
            abs(a / b - 1) for x, y in by_package for a, b in zip(x["macs"], y["macs"], strict=True)
        )
        report.notes.append(
            "torch-pruning finds by itself which channels go together; its networks have "
            + (
                f"up to {100 * apart:.1f} % more or fewer MACs than"
                if apart
                else "the very widths of"
            )
            + " those of the other arms."
        )
    if gains:
        report.notes.append(
            f"Of what {OURS!r} reaches, {mean_interval(gains)} points (mean of tasks and seeds) "
            f"come from weights that "
            "are fitted where validation gains."
        )
    report.notes += [
        "All arms start from the same weights by seed and take the same steps with the same order, "
        "batch size, "
        "augmentation, optimizer, schedule, learning rate and clipping, but for what their line "
        "says; normalization "
        "statistics are re-estimated on 2,048 training samples for every module. Epochs, and which "
        "weights a width "
        "gets, were chosen on validation samples; the test samples were seen once a module. Seeds "
        "change weights, "
        "order and widths, not the split.",
        f"The search that all arms with one model are put through: the seven widths and the same "
        f"{NUM_SEARCHED} with a "
        "width for each layer by itself; its front is chosen on validation, its hypervolume is "
        "that of test accuracy "
        "in % over the share of all MACs, from (1, 0 %). Seconds are processor time of one thread, "
        "or on a GPU those "
        "that passed.",
    ]
    return report


def _compare(report: Report, outcomes: Outcomes, arm: str) -> None:
    columns = ("task", "mean over widths", *(f"{ratio:g}" for ratio in RATIOS))
    rows: list[tuple[Any, ...]] = []
    means: list[Interval] = []
    for task in _tasks(outcomes):
        pairs = _pairs(outcomes, arm, task)
        if pairs:
            means.append(
                mean_interval(
                    [statistics.fmean(a["test"]) - statistics.fmean(b["test"]) for a, b in pairs]
                )
            )
            rows.append(
                (task, means[-1], *(f"{_ahead(pairs, i):+.2f}" for i in range(len(RATIOS))))
            )
    if not means:
        return
    by_width = [statistics.fmean(float(row[2 + i]) for row in rows) for i in range(len(RATIOS))]
    mean = statistics.fmean(one.mean for one in means)
    rows.append(("mean of tasks", f"{mean:+.2f}", *(f"{one:+.2f}" for one in by_width)))
    report.tables.append(
        Table(f"Points that {OURS!r} is ahead of {arm!r}, paired by seed", columns, rows)
    )
    if arm in AHEAD:
        behind = [
            row[0] for row, one in zip(rows, means, strict=False) if one.count > 1 and one.high < 0
        ]
        text = f"{mean:+.2f}" + (
            f"; behind on {', '.join(behind)}" if behind else "; nowhere significantly behind"
        )
        found = Goal(
            f"ahead of {arm}, mean of widths and tasks",
            f"at least {AHEAD[arm]:g} points",
            text,
            mean >= AHEAD[arm],
        )
        report.goals.append(replace(found, met=found.met and not behind))
    if arm == "separate":
        report.goals.append(
            Goal(
                "at least equal to separate training at every width, mean of tasks",
                "at least 0 points",
                f"{min(by_width):+.2f} at {RATIOS[by_width.index(min(by_width))]:g}",
                min(by_width) >= 0,
            )
        )
        seconds = _time_share(
            [pair for task in _tasks(outcomes) for pair in _pairs(outcomes, arm, task)]
        )
        found_text = f"{seconds:.2f} of it"
        report.goals.append(
            Goal(
                "training time beside separate training",
                "at most 1/3",
                found_text,
                seconds <= 1 / 3,
            )
        )


def _judge_conversion(report: Report, outcomes: Outcomes) -> None:
    """A whole front from one plain training, beside the sandwich-trained model."""
    kept = [i for i, ratio in enumerate(RATIOS) if ratio >= FRONT_FROM]
    pairs = {task: _pairs(outcomes, "usnet", task, "converted") for task in _tasks(outcomes)}
    ahead = [statistics.fmean(_ahead(of, i) for i in kept) for of in pairs.values() if of]
    if not ahead:
        return
    mean = statistics.fmean(ahead)
    both = [pair for of in pairs.values() for pair in of]
    seconds = sum(a["train_s"] for a, _ in both) / sum(b["train_s"] for _, b in both)
    report.goals.append(
        Goal(
            f"a whole front from one plain training: converted ahead of usnet, mean of widths from "
            f"{FRONT_FROM:g}",
            "at least 0 points ahead",
            f"{mean:+.2f} ({min(ahead):+.2f} to {max(ahead):+.2f} by task) in {seconds:.2f} of its "
            f"training time",
            mean >= 0,
        )
    )


def figures(outcomes: Outcomes) -> dict[str, Any]:
    """By task, arm and seed: accuracy by width, their mean, seconds of training."""
    found: dict[str, Any] = {}
    for one in outcomes:
        by_seed = found.setdefault(_task(one), {}).setdefault(one["arm"], {})
        by_seed[str(one["seed"])] = {
            "accuracy": dict(zip((f"{ratio:g}" for ratio in RATIOS), one["test"], strict=True)),
            "mean": statistics.fmean(one["test"]),
            "mean_over_macs": area(one),
            "searched_hypervolume": searched_volume(one) if one["searched"] else None,
            "train_s": one["train_s"],
        }
    return found


def _task(outcome: dict[str, Any]) -> str:
    return f"{outcome['task']['dataset']}, {outcome['task']['family']}"


def _tasks(outcomes: Outcomes) -> list[str]:
    return list(dict.fromkeys(map(_task, outcomes)))


def _by_arm(outcomes: Outcomes) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(outcomes, key=lambda one: int(one["seed"])):
        found.setdefault(one["arm"], []).append(one)
    return {arm: found[arm] for arm in ARMS if arm in found}


def _pairs(
    outcomes: Outcomes, arm: str, task: str, of: str = OURS
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    runs = {(one["arm"], one["seed"]): one for one in outcomes if _task(one) == task}
    return [
        (run, runs[arm, seed])
        for (own, seed), run in runs.items()
        if own == of and (arm, seed) in runs
    ]


def _ahead(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], index: int) -> float:
    return statistics.fmean(a["test"][index] - b["test"][index] for a, b in pairs)


def _time_share(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> float:
    """Of the training of the second of each pair, what that of the first took, all together."""
    return float(sum(a["train_s"] for a, _ in pairs) / sum(b["train_s"] for _, b in pairs))


def _curves(outcomes: Outcomes) -> dict[str, plot.Curves]:
    return {
        task: {
            arm: [run["test"] for run in runs]
            for arm, runs in _by_arm([one for one in outcomes if _task(one) == task]).items()
        }
        for task in _tasks(outcomes)
    }


def _without_peer(
    runs: Sequence[Run], folder: Path, checkout: Path | None
) -> tuple[list[Run], list[str]]:
    """The runs but those of TorchIntegral that cannot be done, and why.

    Raises:
        SystemExit: the checkout is none, or is not compiled.
    """
    missing = dict.fromkeys(
        run.task for run in runs if run.arm == PEER and finished(run, folder) is None
    )
    reasons = {}
    for task in missing:
        if any(run.device != "cpu" for run in runs):
            reasons[task] = "it is trained on a CPU only"
            continue
        if checkout is None:
            reasons[task] = "give a checkout of its repository with --torchintegral"
            continue
        dataset = load_task(task.dataset)
        setting = Setting(dataset, task, recipe_of(task, len(dataset.train)), 0)
        if failed := why_not(checkout, setting.network(), setting.example):
            reasons[task] = f"it cannot run this family ({failed})"
    left = [run for run in runs if run.arm != PEER or run.task not in reasons]
    return left, [
        f"The arm {PEER!r} is left out on {task.name}: {why}." for task, why in reasons.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    tasks = ", ".join(task.name.replace(", ", "/") for task in TASKS)
    large = ", ".join(task.name.replace(", ", "/") for task in LARGE_TASKS)
    parser.add_argument("--task", help=f"a dataset; by default all of {tasks}")
    parser.add_argument("--large", action="store_true", help=f"on a GPU, instead of those: {large}")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="by default the CPU; a GPU for --large"
    )
    parser.add_argument("--family", help="of the task; by default that of those tasks")
    parser.add_argument(
        "--arms", default=",".join(ARMS), metavar="ARM,...", help="of " + ", ".join(ARMS)
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--epochs", type=int, help="instead of the task's")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument(
        "--runs",
        type=Path,
        default=SCRATCH / "quality",
        metavar="DIR",
        help="where each run's outcome is kept",
    )
    parser.add_argument(
        "--torchintegral",
        type=Path,
        metavar="CHECKOUT",
        help=f"of its repository, compiled, for the arm {PEER!r}",
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    arms = [arm.strip() for arm in options.arms.split(",")]
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"there is no arm {unknown[0]!r}: give some of {', '.join(ARMS)}")
    device = options.device or ("cuda" if options.large else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error(
            "there is no GPU that torch can use: leave --large out, or give --device cpu, and "
            "hours to days"
        )
    known = LARGE_TASKS if options.large else TASKS
    chosen = [
        task
        for task in known
        if options.task in (None, task.dataset) and options.family in (None, task.family)
    ]
    if not chosen:
        if options.task is None or options.family is None:
            parser.error("give both --task and --family, or those of one of the tasks")
        chosen = [find_task(options.task, options.family)]
    if options.epochs is not None:
        chosen = [replace(task, epochs=options.epochs) for task in chosen]
    runs = []
    for task in chosen:
        recipe = recipe_of(task, len(load_task(task.dataset).train))
        runs += [
            Run(task, arm, seed, recipe, device) for seed in range(options.seeds) for arm in arms
        ]
    runs, left_out = _without_peer(runs, options.runs, options.torchintegral)
    if not runs:
        parser.error(" ".join(left_out))
    settings = {
        "tasks": [task.name for task in chosen],
        "epochs": [task.epochs for task in chosen],
        "arms": arms,
    }
    outcomes = execute_all(runs, options.runs, options.workers, options.torchintegral)
    report = summarize(outcomes, {**settings, "seeds": options.seeds})
    report.notes += left_out
    shown = (
        "Test accuracy by width, means of seeds with 95 % intervals; the axis is logarithmic in "
        "errors"
    )
    report.image = (f"{report.name}.png", shown)
    plot.draw(_curves(outcomes), folder_of(options) / report.image[0])
    return conclude(report, options)
