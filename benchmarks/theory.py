"""What theory promises of partitions, measured, and drawn for docs/explanation/theory.md.

Orders of convergence of quadratures and interpolations; what a layer of a trained network loses
when its channel function is sampled at fewer places, in the channels' own order and along a
shortest path; accuracy of one network a partition, trained for all widths in the same way.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import theory_figures
from benchmarks.quality.arms import RATIOS, Setting
from benchmarks.quality.gradients import plain, us_net
from benchmarks.quality.runs import recipe_of
from benchmarks.quality.tasks import Case, load_task
from benchmarks.report import ROOT, SCRATCH, Report, Table, add_report_options, conclude
from inn_automl.evaluation.candidates import count_correct
from inn_automl.integral import CellAverages, IntegralNetwork, Nested, Partition, Uniform
from inn_automl.integral.conversion.activations import capture_activations, consumers
from inn_automl.integral.conversion.channel_ranking import permute
from inn_automl.integral.conversion.tsp_ordering import tsp_order
from inn_automl.integral.conversion.windows import windows_at
from inn_automl.integral.sampling.interpolation import (
    CubicConvolution,
    Interpolation,
    Linear,
    Nearest,
)
from inn_automl.integral.sampling.quadrature import (
    GaussLegendre,
    Quadrature,
    Riemann,
    Simpson,
    Trapezoid,
)
from inn_automl.tasks import Task

QUADRATURES: dict[str, tuple[Quadrature, int]] = {
    "equal weights, both ends": (Riemann(), 1),
    "equal weights, middles of cells": (Riemann(), 2),
    "trapezoid": (Trapezoid(), 2),
    "Simpson": (Simpson(), 4),
    "Gauss-Legendre, 2 a panel": (GaussLegendre(2), 4),
    "Gauss-Legendre, 3 a panel": (GaussLegendre(3), 6),
}
INTERPOLATIONS: dict[str, Interpolation] = {
    "nearest": Nearest(),
    "linear": Linear(),
    "cubic": CubicConvolution(),
}
PARTITIONS: dict[str, Partition] = {
    "nested, first n": Nested(),
    "nested, van der Corput": Nested("van_der_corput"),
    "uniform, cell averages": CellAverages(),
    "uniform, linear, equal weights": Uniform(Linear(), Riemann()),
    "uniform, cubic, trapezoid (the paper's)": Uniform(),
}
SAMPLINGS: dict[str, Partition] = {
    "point samples": Uniform(Linear(), Riemann()),
    "cell averages": CellAverages(),
}
LAYER = "features.11"
"""The last convolution of the signal network, which sums over 64 channels."""


def quadrature_errors() -> dict[str, dict[int, float]]:
    """Of F_O = int_0^1 cos(2x) e^x dx, an integral layer of one input and one output, by rule and
    number of points.
    """
    exact = (math.e * (math.cos(2) + 2 * math.sin(2)) - 1) / 5
    errors: dict[str, dict[int, float]] = {}
    for name, (rule, _) in QUADRATURES.items():
        panels = rule.points_per_panel if isinstance(rule, GaussLegendre) else 1
        plus = 1 if isinstance(rule, Trapezoid | Simpson) or name.endswith("ends") else 0
        for exponent in range(2, 9):
            num = panels * round(2**exponent / panels) + plus
            points, weights = rule.rule(num)
            if name.endswith("ends"):
                points = Trapezoid().rule(num)[0]
            errors.setdefault(name, {})[num] = abs(
                float(weights @ (torch.cos(2 * points) * points.exp())) - exact
            )
    return errors


def interpolation_errors() -> dict[str, dict[int, float]]:
    """The largest of e^(2x) on [0, 1], by rule and number of nodes."""
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    errors: dict[str, dict[int, float]] = {}
    for name, rule in INTERPOLATIONS.items():
        for num in (2**exponent + 1 for exponent in range(2, 9)):
            nodes = (2 * torch.linspace(0, 1, num, dtype=torch.float64)).exp()
            index, coefficient = rule.coefficients(x * (num - 1), num)
            errors.setdefault(name, {})[num] = float(
                ((nodes[index] * coefficient).sum(-1) - (2 * x).exp()).abs().max()
            )
    return errors


def observed_order(errors: dict[int, float]) -> float:
    """From the finest pair that is above rounding."""
    usable = [(num, error) for num, error in errors.items() if error > 1e-13]
    (num_a, error_a), (num_b, error_b) = usable[-2:]
    return math.log(error_a / error_b) / math.log(num_b / num_a)


def aliasing(task: Case, seed: int) -> dict[str, Any]:
    """One layer of a plainly trained network: a channel function, and the error of its output at n
    of m channels.
    """
    setting = _setting(task, seed)
    network = setting.network()
    setting.train(network, plain)
    samples = Task.from_dataset(setting.dataset).recalibration_samples().standardized(slice(0, 256))
    found: dict[str, Any] = {"error": {}, "function": {}}
    (consumer,) = [one for one in consumers(network) if one.path == LAYER]
    for order in ("as trained", "along a path"):
        if order == "along a path":
            # its own outputs stay where they are
            read = network.groups[consumer.layout[0].group].name
            permute(network, {read: tsp_order(network)[read]})
        weight, inputs = _layer(network, consumer.path, samples)
        wanted = torch.einsum("ock,rck->ro", weight, inputs)
        if not found["function"]:
            output, tap = divmod(int(weight.abs().sum(1).argmax()), weight.shape[2])
        found["function"][order] = weight[output, :, tap].tolist()
        num = weight.shape[1]
        for name, partition in SAMPLINGS.items():
            errors = {}
            for share in range(1, 17):
                sampling = partition.sampling(num, num * share // 16)
                narrow = (
                    sampling.apply(weight, 1, integrate=True),
                    sampling.apply(inputs, 1, integrate=False),
                )
                made = torch.einsum("ock,rck->ro", *narrow)
                errors[num * share // 16] = float((made - wanted).norm() / wanted.norm())
            found["error"][f"{name}, {order}"] = errors
    return found


def _layer(network: IntegralNetwork, path: str, samples: Tensor) -> tuple[Tensor, Tensor]:
    """A convolution's weight (o, c, k) and what it is multiplied with (r, c, k), centred, both
    float64.
    """
    layer = network.module.get_submodule(path)
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        network.eval()(samples)
    hook.remove()
    places = capture_activations(network, samples, consumers(network))[path].places
    weight = layer.get_parameter("weight").detach().double()
    inputs = windows_at(layer, seen[0], places)[:4096].double().unflatten(1, weight.shape[1:])
    return weight, inputs - inputs.mean(0)


def accuracy(task: Case, seeds: int) -> list[dict[str, Any]]:
    """Measures test accuracy in % at each of `RATIOS`, by partition and seed, as US-Nets."""
    runs = []
    for seed in range(seeds):
        setting = _setting(task, seed)
        test = Task.from_dataset(setting.dataset).split("test")
        for name, partition in PARTITIONS.items():
            started_at = time.monotonic()
            network = setting.network(partition)
            setting.train(network, us_net)
            modules = setting.sampled(network, [network.uniform_widths(ratio) for ratio in RATIOS])
            found = [100 * count_correct(module, test) / len(test) for module in modules]
            seconds = round(time.monotonic() - started_at, 1)
            runs.append({"partition": name, "seed": seed, "accuracy": found, "seconds": seconds})
            print(
                f"{name}, seed {seed}: {statistics.fmean(found):.2f} % in {seconds} s",
                file=sys.stderr,
                flush=True,
            )
    return runs


def _setting(task: Case, seed: int) -> Setting:
    dataset = load_task(task.dataset)
    return Setting(dataset, task, recipe_of(task, len(dataset.train)), seed)


def summarize(found: dict[str, Any], settings: dict[str, Any]) -> Report:
    report = Report("theory", "What theory promises of partitions, measured.", settings, raw=found)
    rows: list[tuple[Any, ...]] = [
        (name, order, f"{observed_order(found['quadrature'][name]):.2f}")
        for name, (_, order) in QUADRATURES.items()
    ]
    rows += [
        (f"{name} interpolation", rule.order, f"{observed_order(found['interpolation'][name]):.2f}")
        for name, rule in INTERPOLATIONS.items()
    ]
    report.tables.append(Table("Order of convergence", ("rule", "promised", "observed"), rows))
    errors = found["aliasing"]["error"]
    shown = [num for num in next(iter(errors.values())) if num % 8 == 0]
    report.tables.append(
        Table(
            f"Relative error of the output of {LAYER} at n channels of {max(shown)}",
            ("samples, order of channels", *map(str, shown)),
            [(name, *(f"{by_num[num]:.2f}" for num in shown)) for name, by_num in errors.items()],
        )
    )
    rows = []
    for name in PARTITIONS:
        runs = [run["accuracy"] for run in found["accuracy"] if run["partition"] == name]
        means = [statistics.fmean(run[i] for run in runs) for i in range(len(RATIOS))]
        rows.append((name, *(f"{mean:.1f}" for mean in means), f"{statistics.fmean(means):.2f}"))
    columns = ("partition", *(f"{ratio:g}" for ratio in RATIOS), "mean over widths")
    title = f"Test accuracy in % at a share of all channels, mean of {settings['seeds']} seeds"
    report.tables.append(Table(title, columns, rows))
    report.notes.append(
        "Each network is trained with the sandwich rule of US-Nets for the same number of steps "
        "from the same weights; "
        "normalization statistics are re-estimated for every width. Nothing is chosen on the test "
        "split."
    )
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks theory", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=2, help="trainings of each partition (default: 2)"
    )
    parser.add_argument("--epochs", type=int, default=20, help="of each training (default: 20)")
    add_report_options(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = Case("mnist1d", "signal", options.epochs)
    found = {
        "quadrature": quadrature_errors(),
        "interpolation": interpolation_errors(),
        "aliasing": aliasing(task, seed=0),
        "accuracy": accuracy(task, options.seeds),
    }
    theory_figures.write(found, RATIOS, ROOT / "docs" / "explanation" if options.keep else SCRATCH)
    settings = {
        "dataset": task.dataset,
        "family": task.family,
        "epochs": task.epochs,
        "seeds": options.seeds,
    }
    return conclude(summarize(found, settings), options)


if __name__ == "__main__":
    sys.exit(main())
