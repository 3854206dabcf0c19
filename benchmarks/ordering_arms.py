"""What an order of channels is worth: trained networks that are sampled narrower along a path, or
by pivots.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import torch
from torch import nn

from benchmarks.conversion import NUM_FITTED, Case
from benchmarks.quality.gradients import plain, train_peer
from benchmarks.report import Table
from inn_automl.data import load_dataset
from inn_automl.evaluation.candidates import count_correct
from inn_automl.integral import CellAverages, IntegralNetwork, Nested, Partition, Uniform, convert
from inn_automl.integral.batch_norm import recalibrate_batch_norm
from inn_automl.integral.sampling.interpolation import Linear
from inn_automl.integral.sampling.quadrature import Riemann
from inn_automl.models import build
from inn_automl.tasks import Task
from inn_automl.training.recipe import default_recipe

RATIOS = (0.25, 0.5, 0.7, 0.9)
ARMS: dict[str, tuple[str, Partition]] = {
    "pivots, nested": ("pivoted_cholesky", Nested()),
    "path, cell averages": ("tsp", CellAverages()),
    "path, uniform linear, equal weights": ("tsp", Uniform(Linear(), Riemann())),
    "path, uniform cubic, trapezoid (the paper's)": ("tsp", Uniform()),
    "path, nested": ("tsp", Nested()),
    "pivots, cell averages": ("pivoted_cholesky", CellAverages()),
}


def execute(task: Case, seed: int) -> dict[str, Any]:
    """Trains one network plainly; points of test accuracy lost by arm, sampled and fitted, at each
    of `RATIOS`.
    """
    torch.set_num_threads(1)
    dataset = load_dataset(task.dataset)
    recipe = dataclasses.replace(
        default_recipe(task.family, len(dataset.train)), epochs=task.epochs
    )
    torch.manual_seed(seed)
    example = torch.zeros(2, *dataset.input_shape)
    network = IntegralNetwork(build(task.family, dataset.input_shape, dataset.num_classes), example)
    train_peer(network, dataset, recipe, seed, plain, validated=[network.full_widths])
    test, calibration = (
        Task.from_dataset(dataset).split("test"),
        Task.from_dataset(dataset).recalibration_samples(),
    )
    batches = [x for x, _ in calibration.batches()]

    def accuracy(module: nn.Module) -> float:
        recalibrate_batch_norm(module, batches)
        return 100 * count_correct(module.eval(), test) / len(test)

    module = network.discretize(network.full_widths).eval()
    widths = [network.uniform_widths(ratio) for ratio in RATIOS]
    full, lost = accuracy(network.discretize(network.full_widths)), {}
    for name, (order, partition) in ARMS.items():
        made = convert(
            module,
            example,
            samples=calibration.standardized(slice(0, NUM_FITTED)),
            order=order,
            partition=partition,
        )
        lost[name] = {
            "sampled": [full - accuracy(made.network.discretize(one)) for one in widths],
            "fitted": [full - accuracy(made.discretize(one)) for one in widths],
        }
    return {"task": task._asdict(), "seed": seed, "full": full, "lost": lost}


def tables(outcomes: list[dict[str, Any]]) -> list[Table]:
    """One a task, mean over seeds."""
    made = []
    for task in dict.fromkeys(tuple(one["task"].values()) for one in outcomes):
        runs = [one for one in outcomes if tuple(one["task"].values()) == task]
        rows: list[tuple[Any, ...]] = []
        for weights in ("sampled", "fitted"):
            for name in ARMS:
                lost = [
                    statistics.fmean(run["lost"][name][weights][i] for run in runs)
                    for i in range(len(RATIOS))
                ]
                rows.append((name, weights, *map("{:.2f}".format, lost)))
        full = statistics.fmean(run["full"] for run in runs)
        title = (
            f"Points lost without training, {task[0]}, {task[1]} ({full:.2f} % at full width), "
            f"mean of {len(runs)}"
        )
        made.append(
            Table(title, ("order, partition", "weights", *(f"{ratio:g}" for ratio in RATIOS)), rows)
        )
    return made
