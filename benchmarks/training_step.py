"""Time of a training step at reduced widths, as a multiple of the same step of the plain
discretized module.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.tasks import NAMED_NETWORKS
from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from benchmarks.timing import COLUMNS, Timings, ratio, take_turns
from benchmarks.torchintegral import TorchIntegralNetwork
from inn_automl.integral import IntegralNetwork, Nested, Partition, Uniform

INPUT_SHAPE = (3, 32, 32)
NUM_CLASSES = 10
FIXED = {"stem.0.weight": [1], "classifier.weight": [0], "classifier.bias": [0]}
PARTITIONS: dict[str, Partition] = {"nested, first n": Nested(), "uniform, cubic": Uniform()}
PLAIN = "plain module"
PLAIN_FOLDED = "plain module, batch norm folded"
PEER = "TorchIntegral"
JUDGED = "nested, first n"
JUDGED_BATCH = 32
TO_REACH = 1.15

Compared = tuple[Callable[[Tensor], Tensor], nn.Module, str]
"""Forward, the module whose parameters are trained, and the name of the plain module that it is
compared to.
"""


class Step:
    """One step: forward, cross-entropy, backward, SGD with momentum.

    Args:
        forward: from (N, C, H, W) to logits.
        trained: whose parameters the step changes.
    """

    def __init__(
        self, forward: Callable[[Tensor], Tensor], trained: nn.Module, x: Tensor, y: Tensor
    ) -> None:
        self._forward, self._x, self._y = forward, x, y
        self._optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9)

    def __call__(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self._forward(self._x), self._y).backward()
        self._optimizer.step()


def measure(
    model: str,
    ratio_of_channels: float,
    batch_sizes: Sequence[int],
    layout: str,
    num_rounds: int,
    checkout: Path | None,
) -> Report:
    """Each partition beside its plain module, and TorchIntegral beside its own where a checkout is
    given.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = NAMED_NETWORKS[model][1](INPUT_SHAPE, NUM_CLASSES).train()
    report = Report(
        f"training_step-{model}",
        f"One training step of a {model} for 32x32 images at {ratio_of_channels} of the channels "
        f"of every coupled "
        "group, one thread, as a multiple of the same step of a plain module.",
        {
            "model": model,
            "ratio": ratio_of_channels,
            "batch_sizes": list(batch_sizes),
            "layout": layout,
            "rounds": num_rounds,
            "parameters": sum(p.numel() for p in module.parameters()),
        },
    )
    report.notes.append(
        "A step is forward, cross-entropy, backward and SGD with momentum, all on the clock. The "
        "integral network's optimizer updates the control points of the full width, the plain "
        "module's only its own parameters: a cost that does not depend on the batch and so weighs "
        f"more the smaller it is. A batch of {JUDGED_BATCH} is judged."
    )
    compared = compare(module, ratio_of_channels)
    if checkout is not None:
        compared |= _peer(report, module, ratio_of_channels, checkout)
    else:
        report.notes.append(
            "TorchIntegral was not measured: give a checkout of its repository with "
            "--torchintegral."
        )
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    for _, trained, _ in compared.values():
        trained.train().to(memory_format=memory_format)  # type: ignore[call-overload]
    for batch_size in batch_sizes:
        x = torch.randn(batch_size, *INPUT_SHAPE).contiguous(memory_format=memory_format)
        y = torch.randint(NUM_CLASSES, (batch_size,))
        steps = {
            name: Step(forward, trained, x, y) for name, (forward, trained, _) in compared.items()
        }
        timings = take_turns(steps, num_rounds=num_rounds)
        plain_names = {name: plain for name, (_, _, plain) in compared.items()}
        add_timings(report, model, batch_size, timings, plain_names)
    return report


def _peer(
    report: Report, module: nn.Module, ratio_of_channels: float, checkout: Path
) -> dict[str, Compared]:
    """TorchIntegral's network and its plain module; its version and a note in the report."""
    peer = TorchIntegralNetwork(checkout, module, INPUT_SHAPE, FIXED)
    peer.resize(ratio_of_channels)
    plain = peer.discretize()
    report.versions["TorchIntegral"] = peer.version
    report.notes.append(
        "TorchIntegral folds batch normalization away, so its step is compared to that of its "
        "own plain module."
    )
    return {
        PEER: (peer.model, peer.model, PLAIN_FOLDED),
        PLAIN_FOLDED: (plain, plain, PLAIN_FOLDED),
    }


def add_timings(
    report: Report,
    model: str,
    batch_size: int,
    timings: dict[str, Timings],
    plain_names: dict[str, str],
) -> None:
    """A table of one batch size's steps, and the goal where it is the one that is judged.

    Args:
        timings: by name of the network.
        plain_names: the plain module that each network is compared to, by its name.
    """
    report.raw[f"batch {batch_size}"] = {name: timing.to_dict() for name, timing in timings.items()}
    multiples, by_cpu = (
        {name: ratio(timings[name], timings[plain], by=by) for name, plain in plain_names.items()}
        for by in ("wall_ms", "cpu_ms")
    )
    columns = (
        "step of",
        *COLUMNS,
        "multiple of the plain module's time (95 % interval)",
        "by processor time",
    )
    rows: list[tuple[object, ...]] = [
        (name, *timing.cells(), multiples[name], by_cpu[name]) for name, timing in timings.items()
    ]
    report.tables.append(Table(f"Time of one step, batch of {batch_size}", columns, rows))
    if batch_size == JUDGED_BATCH:
        report.goals.append(
            Goal(
                f"training step, {model}, {JUDGED}, batch of {batch_size}",
                f"at most {TO_REACH} times the plain module's",
                str(multiples[JUDGED]),
                multiples[JUDGED].median <= TO_REACH,
            )
        )


def compare(module: nn.Module, ratio_of_channels: float) -> dict[str, Compared]:
    """The integral network with each partition, and the plain module of the same widths."""
    compared: dict[str, Compared] = {}
    for name, partition in PARTITIONS.items():
        network = IntegralNetwork(module, torch.zeros(2, *INPUT_SHAPE), partition=partition)
        widths = network.uniform_widths(ratio_of_channels)
        compared[name] = (functools.partial(network, widths=widths), network, PLAIN)
        if PLAIN not in compared:
            plain = network.discretize(widths)
            compared[PLAIN] = (plain, plain, PLAIN)
    return compared


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks training_step", description=__doc__)
    parser.add_argument("--model", choices=NAMED_NETWORKS, default="resnet18")
    parser.add_argument(
        "--ratio", type=float, default=0.6, help="share of the channels (default: 0.6)"
    )
    parser.add_argument(
        "--batch-sizes",
        type=int,
        nargs="+",
        default=[JUDGED_BATCH],
        metavar="N",
        help="(default: 32)",
    )
    parser.add_argument(
        "--layout",
        choices=("channels_last", "contiguous"),
        default="channels_last",
        help="of images and weights; channels_last is what training uses (default)",
    )
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default: 15)")
    parser.add_argument(
        "--torchintegral", type=Path, metavar="PATH", help="checkout of TheStageAI/TorchIntegral"
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    report = measure(
        options.model,
        options.ratio,
        options.batch_sizes,
        options.layout,
        options.rounds,
        options.torchintegral,
    )
    return conclude(report, options)


if __name__ == "__main__":
    sys.exit(main())
