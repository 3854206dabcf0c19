"""Time to discretize a CIFAR ResNet-18 (11 M parameters) with all coupled groups at a share of
their channels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from benchmarks.timing import COLUMNS, Ratio, Timings, ratio, take_turns
from benchmarks.torchintegral import TorchIntegralNetwork
from inn_automl.integral import CellAverages, IntegralNetwork, Nested, Partition, Uniform
from inn_automl.models.resnet import resnet18_cifar

INPUT_SHAPE = (3, 32, 32)
FIXED = {"stem.0.weight": [1], "classifier.weight": [0], "classifier.bias": [0]}

PARTITIONS: dict[str, Partition] = {
    "nested, first n": Nested(),
    "nested, van der Corput": Nested("van_der_corput"),
    "uniform, cubic": Uniform(),
    "cell averages": CellAverages(),
}
PEER = "TorchIntegral"
TO_REACH = {"nested, first n": 1 / 10, "uniform, cubic": 1 / 3}


def measure(ratio_of_channels: float, num_rounds: int, checkout: Path | None) -> Report:
    """All partitions, and TorchIntegral where a checkout is given."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = resnet18_cifar().eval()
    example = torch.zeros(2, *INPUT_SHAPE)
    networks = {
        name: IntegralNetwork(module, example, partition=p).eval() for name, p in PARTITIONS.items()
    }
    widths = next(iter(networks.values())).uniform_widths(ratio_of_channels)
    functions: dict[str, Callable[[], nn.Module]] = {
        name: (lambda network=network: network.discretize(widths))  # type: ignore[misc]
        for name, network in networks.items()
    }
    report = Report(
        "discretize",
        "How long it takes to turn a continuous ResNet-18 for 32x32 images into a plain module "
        "with "
        f"{ratio_of_channels} of the channels of every coupled group, one thread.",
        {
            "ratio": ratio_of_channels,
            "rounds": num_rounds,
            "parameters": sum(p.numel() for p in module.parameters()),
        },
    )
    if checkout is not None:
        functions[PEER] = _peer(report, module, ratio_of_channels, checkout)
    else:
        report.notes.append(
            "TorchIntegral was not measured: give a checkout of its repository with "
            "--torchintegral."
        )
    with torch.no_grad():
        _check_shapes({name: function() for name, function in functions.items()})
        timings = take_turns(functions, num_rounds=num_rounds)
    add_timings(report, timings)
    return report


def _peer(
    report: Report, module: nn.Module, ratio_of_channels: float, checkout: Path
) -> Callable[[], nn.Module]:
    """TorchIntegral's discretization of the same module; its version and a note in the report."""
    peer = TorchIntegralNetwork(checkout, module, INPUT_SHAPE, FIXED)
    peer.resize(ratio_of_channels)
    report.versions["TorchIntegral"] = peer.version
    report.notes.append(
        "TorchIntegral's grids are set before, untimed: only `get_unparametrized_model` counts. "
        "It resamples the convolutions and the classifier of the network with batch normalization "
        "folded away (it cannot resample batch normalization); ours resamples the 20 batch "
        "normalization layers too. Channels are not ordered."
    )
    return peer.discretize


def add_timings(report: Report, timings: dict[str, Timings]) -> None:
    """Times as a table and as goals: fractions of TorchIntegral's, where it was measured."""
    report.raw = {name: timing.to_dict() for name, timing in timings.items()}
    shares: dict[str, Ratio] = {}
    columns: tuple[str, ...] = ("partition", *COLUMNS)
    rows: list[tuple[object, ...]] = [(name, *timing.cells()) for name, timing in timings.items()]
    if PEER in timings:
        peer = timings[PEER]
        shares = {name: ratio(timing, peer) for name, timing in timings.items()}
        by_cpu = {name: ratio(timing, peer, by="cpu_ms") for name, timing in timings.items()}
        columns += ("fraction of TorchIntegral's time (95 % interval)", "by processor time")
        rows = [(*row, shares[name], by_cpu[name]) for name, row in zip(timings, rows, strict=True)]
    report.tables.append(Table("Time for one discretization", columns, rows))
    for name, bound in TO_REACH.items():
        report.goals.append(
            Goal(
                f"discretize, {name}",
                f"at most {bound:.3g} of TorchIntegral's time",
                str(shares[name]) if shares else f"{timings[name].median_ms:.3g} ms",
                shares[name].median <= bound if shares else None,
            )
        )


def _check_shapes(modules: dict[str, nn.Module]) -> None:
    """All arms must have made the same network, but for normalization."""
    shapes = {
        name: [tuple(p.shape) for p in module.parameters() if p.ndim > 1]
        for name, module in modules.items()
    }
    expected = next(iter(shapes.values()))
    different = [name for name, found in shapes.items() if found != expected]
    if different:
        raise AssertionError(
            f"{different[0]!r} made weights of other shapes: {shapes[different[0]]}, not {expected}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks discretize", description=__doc__)
    parser.add_argument(
        "--ratio", type=float, default=0.6, help="share of the channels that is kept (default: 0.6)"
    )
    parser.add_argument("--rounds", type=int, default=31, help="timed rounds (default: 31)")
    parser.add_argument(
        "--torchintegral", type=Path, metavar="PATH", help="checkout of TheStageAI/TorchIntegral"
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    return conclude(measure(options.ratio, options.rounds, options.torchintegral), options)


if __name__ == "__main__":
    sys.exit(main())
