"""One run: an arm on a task with a seed. Each leaves a file, so nothing is trained twice and runs
can be spread.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.quality.arms import ARMS, OURS, RATIOS, Made, Setting
from benchmarks.quality.tasks import Case, load_task
from benchmarks.report import hardware_name, installed_versions
from inn_automl.core.storage import read_json, write_json
from inn_automl.evaluation.candidates import count_correct
from inn_automl.integral import IntegralNetwork
from inn_automl.runtimes.environment import describe_machine
from inn_automl.tasks import StandardizedSamples, Task
from inn_automl.training.recipe import Recipe, default_recipe
from inn_automl.training.sandwich import random_widths
from inn_automl.width_search.pareto import hypervolume, pareto_front

NUM_SEARCHED = 32
"""Random widths, besides the uniform ones, of the search that every arm with one model is put
through.
"""


@dataclass(frozen=True)
class Run:
    task: Case
    arm: str
    seed: int
    recipe: Recipe
    device: str = "cpu"

    def path(self, folder: Path) -> Path:
        name = (
            f"{self.task.dataset}_{self.task.family}_{self.arm}_lr{self.recipe.learning_rate:g}"
            f"_epochs{self.recipe.epochs}_seed{self.seed}"
            + ("" if self.device == "cpu" else f"_{self.device}")
        )
        return folder / f"{name}.json"

    def identity(self) -> dict[str, Any]:
        """What a finished run must agree on to stand for this one."""
        return {
            "task": dataclasses.asdict(self.task),
            "arm": self.arm,
            "seed": self.seed,
            "recipe": self.recipe.to_dict(),
            "ratios": list(RATIOS),
            **({} if self.device == "cpu" else {"device": self.device}),
        }


def recipe_of(task: Case, num_train: int) -> Recipe:
    """The family's own, for the task's epochs."""
    return dataclasses.replace(default_recipe(task.trained_as, num_train), epochs=task.epochs)


def execute(run: Run, folder: Path, checkout: Path | None = None) -> dict[str, Any]:
    """Trains and evaluates, on a CPU with one thread; the outcome, also written to the run's file.
    Accuracies are in %.

    Args:
        checkout: of TorchIntegral, for its arm.
    """
    torch.set_num_threads(1)
    started_at = time.monotonic()
    dataset = load_task(run.task.dataset)
    setting = Setting(dataset, run.task, run.recipe, run.seed, checkout, run.device)
    made = ARMS[run.arm].make(setting)
    network = setting.network()
    splits = {
        name: Task.from_dataset(dataset, device=run.device).split(name)
        for name in ("validation", "test")
    }
    outcome = {
        **run.identity(),
        **{
            name: [_accuracy(module, samples) for module in made.modules]
            for name, samples in splits.items()
        },
        "sampled": [_accuracy(module, splits["test"]) for module in made.sampled],
        "macs": [network.costs(widths).macs for widths in made.widths],
        "searched": _searched(made, network, splits),
        "fingerprint": dataset.fingerprint,
        "samples": {
            split: len(getattr(dataset, split)) for split in ("train", "validation", "test")
        },
        "train_s": round(made.train_s, 1),
        "seconds": round(time.monotonic() - started_at, 1),
        "machine": _machine(run.device),
        "versions": {**installed_versions(), **made.versions},
    }
    write_json(run.path(folder), outcome)
    return outcome


def _machine(device: str) -> str:
    return hardware_name(describe_machine()) if device == "cpu" else torch.cuda.get_device_name()


def _searched(
    made: Made, network: IntegralNetwork, splits: dict[str, StandardizedSamples]
) -> list[dict[str, Any]]:
    """The front of a search that is the same for every arm: random widths of each layer, chosen on
    validation.

    Where each width was trained for itself there is nothing to search.
    """
    if made.at is None:
        return []
    rng = np.random.default_rng(0)
    found = []
    for widths in [*made.widths, *(random_widths(network, rng) for _ in range(NUM_SEARCHED))]:
        module = made.at(widths)
        found.append(
            {"macs": network.costs(widths).macs, "module": module, **_accuracies(module, splits)}
        )
    front = pareto_front([one["macs"] for one in found], [one["validation"] for one in found])
    return [{key: found[i][key] for key in ("macs", "validation", "test")} for i in front]


def _accuracies(module: nn.Module, splits: dict[str, StandardizedSamples]) -> dict[str, float]:
    return {name: _accuracy(module, samples) for name, samples in splits.items()}


def searched_volume(outcome: dict[str, Any]) -> float:
    """Hypervolume of the searched front's test accuracy in % over the share of all MACs, from (1,
    0 %).
    """
    full = max(outcome["macs"])
    front = outcome["searched"]
    return hypervolume(
        [one["macs"] / full for one in front], [one["test"] for one in front], (1.0, 0.0)
    )


def _accuracy(module: nn.Module, samples: StandardizedSamples) -> float:
    return 100 * count_correct(module, samples) / len(samples)


def area(outcome: dict[str, Any]) -> float:
    """Mean test accuracy in % over MACs between the smallest and the full width, by the
    trapezoidal rule.
    """
    macs, accuracy = np.array(outcome["macs"], dtype=float), np.array(outcome["test"])
    return float(np.trapezoid(accuracy, macs) / (macs[-1] - macs[0]))


def execute_all(
    runs: Sequence[Run], folder: Path, workers: int, checkout: Path | None = None
) -> list[dict[str, Any]]:
    """Outcomes in the order of the runs; what is not finished is trained, `workers` at a time.

    Raises:
        SystemExit: runs of one task saw different datasets.
    """
    outcomes = {run: finished(run, folder) for run in runs}
    left = [run for run, outcome in outcomes.items() if outcome is None]
    print(f"{len(runs) - len(left)} of {len(runs)} runs are finished", file=sys.stderr)
    for dataset in {run.task.dataset for run in left}:
        load_task(dataset)  # made here, not by several processes at once
    if left:
        # A fork would copy the parent's thread pools in an unusable state.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(left)), mp_context=context) as pool:
            futures = {pool.submit(execute, run, folder, checkout): run for run in left}
            for number, future in enumerate(as_completed(futures), 1):
                outcomes[futures[future]] = outcome = future.result()
                name = futures[future].path(folder).stem
                mean = sum(outcome["test"]) / len(outcome["test"])
                print(
                    f"{number}/{len(left)}: {name}: {mean:.2f} % in {outcome['seconds']} s",
                    file=sys.stderr,
                    flush=True,
                )
    done = [outcome for outcome in outcomes.values() if outcome is not None]
    for dataset in {run.task.dataset for run in runs}:
        seen = {outcome["fingerprint"] for outcome in done if outcome["task"]["dataset"] == dataset}
        if len(seen) > 1:
            raise SystemExit(
                f"the runs of {dataset} in {str(folder)!r} saw {len(seen)} datasets: keep those of "
                f"one."
            )
    return done


def finished(run: Run, folder: Path) -> dict[str, Any] | None:
    """The outcome of a run that was done before, with the same settings.

    A field that recipes got since then changes the package's own training; peers do not read it.
    """
    path = run.path(folder)
    if not path.exists():
        return None
    outcome: dict[str, Any] = read_json(path)
    found = {key: outcome.get(key) for key in run.identity()}
    if run.arm != OURS:
        found["recipe"] = {**run.recipe.to_dict(), **found["recipe"]}
    return outcome if found == run.identity() else None
