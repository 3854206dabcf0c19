"""Accuracy of models at seven widths, made in several ways with the same number of gradient steps.

Every run (task, arm, seed) leaves one JSON file, so that runs can be spread over processes and
machines: put their files into one folder and call this again, and it reports without training
anything twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.quality import plot
from benchmarks.quality.arms import ARMS, PEER, Setting
from benchmarks.quality.runs import Run, execute_all, finished, recipe_of
from benchmarks.quality.summary import curves, summarize
from benchmarks.quality.tasks import LARGE_TASKS, TASKS, Case, find_task, load_task
from benchmarks.quality.torchintegral import why_not
from benchmarks.report import SCRATCH, add_report_options, conclude, folder_of


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


def _parser() -> argparse.ArgumentParser:
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
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
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
    chosen = _chosen_tasks(parser, options)
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
    plot.draw(curves(outcomes), folder_of(options) / report.image[0])
    return conclude(report, options)


def _chosen_tasks(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Case]:
    """The tasks that the options name; an unknown combination ends the program."""
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
    return chosen
