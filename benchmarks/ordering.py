"""How short a path through 256 channels is found, and in what time, beside TorchIntegral's
optimizer of permutations.

Two groups of channels: those of a trained convolution, with all that makes and reads them (batch
normalization, the next convolution), and filters that are smooth functions of x, in shuffled
order. Then what orders are worth: points that trained networks lose when they are sampled narrower
along a path, or by pivots.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import ordering_arms
from benchmarks.conversion import TASKS
from benchmarks.quality.gradients import plain, train_peer
from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from benchmarks.torchintegral import order_channels
from inn_automl.data import load_dataset
from inn_automl.integral import IntegralNetwork
from inn_automl.integral.conversion.tsp_ordering import channel_rows, path_length, shortest_path
from inn_automl.models import build
from inn_automl.training.recipe import default_recipe

NUM_CHANNELS = 256
NUM_RESTARTS = 100
TO_REACH = 1 / 20
DATASET, FAMILY = "digits", "convnet"
SEARCHES_S = (0.05, 0.1, 0.2, 0.5, 2.0, 5.0)
NUM_RUNS = 5


def trained(epochs: int, seed: int) -> list[Tensor]:
    """Rows (256, f) of a trained network's widest group: its filters, its normalization, the
    weights that read it.
    """
    dataset = load_dataset(DATASET)
    torch.manual_seed(seed)
    widest = IntegralNetwork(
        build(FAMILY, dataset.input_shape, dataset.num_classes),
        torch.zeros(2, *dataset.input_shape),
    )
    module = build(
        FAMILY,
        dataset.input_shape,
        dataset.num_classes,
        width=NUM_CHANNELS / max(widest.full_widths.values()),
    )
    network = IntegralNetwork(module, torch.zeros(2, *dataset.input_shape))
    recipe = dataclasses.replace(default_recipe(FAMILY, len(dataset.train)), epochs=epochs)
    train_peer(network, dataset, recipe, seed, plain, validated=[network.full_widths])
    group = next(i for i, one in enumerate(network.groups) if one.size == NUM_CHANNELS)
    return [rows for of, rows in channel_rows(network) if of == group]


def smooth(seed: int) -> list[Tensor]:
    """Rows (256, 288) whose columns are sums of eight waves of random phase; shuffled."""
    rng = np.random.default_rng(seed)
    x = np.arange(NUM_CHANNELS)[:, None, None] / NUM_CHANNELS
    waves = np.arange(1, 9)[None, None]
    columns = (
        np.sin(np.pi * waves * x + 2 * np.pi * rng.random((1, 288, 8)))
        * rng.standard_normal((1, 288, 8))
        / waves
    )
    rows = torch.from_numpy(columns.sum(2))
    return [(rows / rows.abs().mean())[torch.from_numpy(rng.permutation(NUM_CHANNELS))]]


def distances(rows: Sequence[Tensor]) -> Tensor:
    """(n, n): what one channel after the other adds to the total variation of all rows."""
    return torch.stack([torch.cdist(one, one, p=1) / one.shape[1] for one in rows]).sum(0)


def measure(rows: list[Tensor], checkout: Path | None, num_restarts: int) -> dict[str, Any]:
    """Total variation and seconds of each way, from the rows on; ours several times, for its
    search is random.
    """
    apart = distances(rows)
    found: dict[str, Any] = {
        "as it came": {"variation": path_length(apart, torch.arange(len(apart)))},
        "ours": [],
    }
    for _ in range(NUM_RUNS):
        started_at = time.perf_counter()
        path = shortest_path(distances(rows))
        seconds = time.perf_counter() - started_at
        found["ours"].append({"variation": path_length(apart, path), "s": seconds})
    found["searches"] = [
        {
            "search_s": search_s,
            "variation": [
                path_length(apart, shortest_path(apart, search_s)) for _ in range(NUM_RUNS)
            ],
        }
        for search_s in SEARCHES_S
    ]
    if checkout is not None:
        started_at = time.perf_counter()
        path, found["revision"] = order_channels(checkout, rows, num_restarts)
        seconds = time.perf_counter() - started_at
        found["torchintegral"] = {"variation": path_length(apart, path), "s": seconds}
    return found


def summarize(
    found: dict[str, dict[str, Any]], lost: list[dict[str, Any]], settings: dict[str, Any]
) -> Report:
    report = Report(
        "ordering",
        f"Total variation of {NUM_CHANNELS} channels along the order that is found for them, and "
        f"the seconds it takes, "
        "one thread.",
        settings,
        raw={"paths": found, "lost": lost},
    )
    report.tables.append(_variation_table(found))
    for name, one in found.items():
        report.goals += _goals(name, one, settings["restarts"])
    report.tables.append(_search_table(found))
    report.tables += ordering_arms.tables(lost)
    report.notes.append(
        "Both arms start from the same tensors and make their distances themselves; the variation "
        "of both orders is computed by the same function, in float64. Each tensor counts as a "
        "share of its mean magnitude."
    )
    revisions = {one["revision"] for one in found.values() if "revision" in one}
    if revisions:
        report.versions["TorchIntegral"] = ", ".join(sorted(revisions))
        report.notes.append(
            "TorchIntegral's exchange compares the two new edges with twice the first old one "
            "instead of both old ones: it makes exchanges that lengthen the path, and leaves out "
            "some that would shorten it."
        )
    else:
        report.notes.append(
            "TorchIntegral was not measured: give a compiled checkout with --torchintegral."
        )
    return report


def _variation_table(found: dict[str, dict[str, Any]]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for name, one in found.items():
        worst = max(run["variation"] for run in one["ours"])
        seconds = statistics.median(run["s"] for run in one["ours"])
        rows.append((name, "as they came", f"{one['as it came']['variation']:.2f}", ""))
        rows.append((name, f"ours, worst of {NUM_RUNS}", f"{worst:.2f}", f"{seconds:.2f}"))
        if peer := one.get("torchintegral"):
            rows.append((name, "TorchIntegral", f"{peer['variation']:.2f}", f"{peer['s']:.1f}"))
    return Table(
        "Total variation and time", ("channels", "order", "total variation", "seconds"), rows
    )


def _goals(name: str, one: dict[str, Any], num_restarts: int) -> list[Goal]:
    """Length of our path and time to find it, beside TorchIntegral's where it was measured."""
    worst = max(run["variation"] for run in one["ours"])
    seconds = statistics.median(run["s"] for run in one["ours"])
    peer = one.get("torchintegral")
    return [
        Goal(
            f"{name}: total variation, our worst of {NUM_RUNS}",
            f"below TorchIntegral's best of {num_restarts} restarts",
            f"{worst:.2f}" + (f" to {peer['variation']:.2f}" if peer else ""),
            worst < peer["variation"] if peer else None,
        ),
        Goal(
            f"{name}: seconds",
            "at most 1/20 of TorchIntegral's",
            f"1/{peer['s'] / seconds:.0f}" if peer else f"{seconds:.2f} s",
            seconds <= TO_REACH * peer["s"] if peer else None,
        ),
    ]


def _search_table(found: dict[str, dict[str, Any]]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for name, one in found.items():
        best = min(min(search["variation"]) for search in one["searches"])
        above = (100 * (max(search["variation"]) / best - 1) for search in one["searches"])
        rows.append((name, *(f"{percent:.3f}" for percent in above)))
    return Table(
        f"How long to search: % above the best of all, worst of {NUM_RUNS}",
        ("channels", *(f"{search_s:g} s" for search_s in SEARCHES_S)),
        rows,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ordering", description=__doc__)
    parser.add_argument(
        "--epochs", type=int, default=10, help="of the network with 256 channels (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--restarts", type=int, default=NUM_RESTARTS, help="of TorchIntegral's (default: 100)"
    )
    parser.add_argument(
        "--torchintegral",
        type=Path,
        metavar="PATH",
        help="compiled checkout of TheStageAI/TorchIntegral",
    )
    parser.add_argument(
        "--tasks", type=int, default=2, help="that orders are compared on (default: 2)"
    )
    parser.add_argument("--seeds", type=int, default=2, help="of each (default: 2)")
    add_report_options(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kinds = {
        "trained": trained(options.epochs, options.seed),
        "smooth, shuffled": smooth(options.seed),
    }
    found = {}
    for name, rows in kinds.items():
        found[name] = measure(rows, options.torchintegral, options.restarts)
        print(f"{name}: {found[name]}"[:400], file=sys.stderr)
    chosen = [task for task in TASKS if task.family != "convnet"][: options.tasks]
    lost = [ordering_arms.execute(task, seed) for task in chosen for seed in range(options.seeds)]
    settings = {
        "dataset": DATASET,
        "family": FAMILY,
        "epochs": options.epochs,
        "seed": options.seed,
        "restarts": options.restarts,
        "tasks": [task._asdict() for task in chosen],
        "seeds": options.seeds,
        "shapes": {name: [list(one.shape) for one in rows] for name, rows in kinds.items()},
    }
    return conclude(summarize(found, lost, settings), options)


if __name__ == "__main__":
    sys.exit(main())
