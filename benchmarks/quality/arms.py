"""The ways to get models of several widths that are compared: each trains, and gives one module a
width.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from benchmarks.quality.gradients import (
    Gradients,
    inn_paper,
    plain,
    train_peer,
    us_net,
    us_net_by_layer,
)
from benchmarks.quality.pruning import by_magnitude, by_package
from benchmarks.quality.tasks import Case
from benchmarks.quality.torchintegral import ConvertedPeer
from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import (
    CandidateBuilder,
    sample_candidate,
)
from inn_automl.integral import IntegralNetwork, Nested, Partition, Uniform, convert
from inn_automl.integral.conversion.channel_ranking import permute
from inn_automl.tasks import Task
from inn_automl.training.loop import train
from inn_automl.training.recipe import Recipe

RATIOS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
PASSES = 4
"""Forward and backward passes of one step of the sandwich: full, smallest and two random widths."""
PLAIN_FACTOR = 2 * PASSES / (1 + PASSES)
"""Steps for as many passes, where half of the epochs take one: 1.6."""
NUM_FITTED = 512
TUNING_RATE = 0.1
"""Learning rate of fine-tuning, as a share of the training's."""
CONVERTED_RATE = 0.03
"""The same of TorchIntegral, whose networks have no normalization left: at 0.1 that of mnist5k
comes apart.
"""
OURS = "ours"
PEER = "torchintegral"
"""The arm that takes a checkout of TorchIntegral."""


@dataclass
class Made:
    """Modules in eval mode, one for each of `RATIOS`, and the widths they have.

    Attributes:
        train_s: seconds of all training: of the processor on one thread, so what else the machine
            does is not in it; on a GPU of the wall.
        sampled: of an arm whose modules are fitted where that helps, what they would be otherwise.
        at: makes the module at any widths; None where each width was trained for itself.
        versions: of what else it was made with.
    """

    modules: list[nn.Module]
    widths: list[dict[str, int]]
    train_s: float
    sampled: list[nn.Module] = field(default_factory=list)
    at: Callable[[Mapping[str, int]], nn.Module] | None = None
    versions: dict[str, str] = field(default_factory=dict)


class _Clock:
    """Counts seconds: of the processor on a CPU, of the wall on a GPU."""

    def __init__(self, device: str) -> None:
        self.seconds = 0.0
        self._is_gpu = device != "cpu"

    @contextmanager
    def running(self) -> Iterator[None]:
        started_at = self._now()
        yield
        self.seconds += self._now() - started_at

    def _now(self) -> float:
        if not self._is_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.monotonic()


@dataclass(frozen=True)
class Setting:
    """What every arm is given.

    Attributes:
        checkout: of TorchIntegral, for its arm.
        device: that networks are trained and evaluated on.
    """

    dataset: Dataset
    task: Case
    recipe: Recipe
    seed: int
    checkout: Path | None = None
    device: str = "cpu"

    def clock(self) -> _Clock:
        return _Clock(self.device)

    def network(self, partition: Partition | None = None) -> IntegralNetwork:
        """With the initial weights of the seed."""
        torch.manual_seed(self.seed)
        module = self.task.build(self.dataset).to(self.device)
        return IntegralNetwork(module, self.example, partition=partition or Nested())

    @property
    def example(self) -> torch.Tensor:
        return torch.zeros(2, *self.dataset.input_shape, device=self.device)

    def sampled(
        self, network: IntegralNetwork, widths: Sequence[Mapping[str, int]]
    ) -> list[nn.Module]:
        """With re-estimated normalization statistics."""
        calibration = Task.from_dataset(self.dataset, device=self.device).recalibration_samples()
        return [sample_candidate(network, one, calibration) for one in widths]

    def made(self, network: IntegralNetwork, clock: _Clock) -> Made:
        """All widths, sampled from one network."""
        widths = _widths(network)
        return Made(
            self.sampled(network, widths),
            widths,
            clock.seconds,
            at=lambda one: self.sampled(network, [one])[0],
        )

    def fitted(self, network: IntegralNetwork, clock: _Clock) -> Made:
        """All widths, each sampled from one network or fitted, as a job does."""
        widths, candidates = (
            _widths(network),
            CandidateBuilder.from_network(
                network, Task.from_dataset(self.dataset, device=self.device)
            ),
        )
        return Made(
            [candidates.build(one).module for one in widths],
            widths,
            clock.seconds,
            self.sampled(network, widths),
            at=lambda one: candidates.build(one).module,
        )

    def recipe_for(self, *, epochs: int = 0, rate: float = 1.0) -> Recipe:
        """The recipe with other epochs, and a share of its learning rate; in float32 on every
        device, as peers are.
        """
        return dataclasses.replace(
            self.recipe,
            epochs=epochs or self.recipe.epochs,
            learning_rate=rate * self.recipe.learning_rate,
            mixed_precision=False,
        )

    def train(
        self, network: IntegralNetwork, gradients: Gradients, *, epochs: int = 0, rate: float = 1.0
    ) -> None:
        """Chooses the best epoch at full width where gradients are plain, else at three widths."""
        recipe = self.recipe_for(epochs=epochs, rate=rate)
        validated = [network.full_widths] if gradients is plain else None
        train_peer(network, self.dataset, recipe, self.seed, gradients, validated=validated)


@dataclass(frozen=True)
class Arm:
    what: str
    make: Callable[[Setting], Made]


def _widths(network: IntegralNetwork) -> list[dict[str, int]]:
    return [network.uniform_widths(ratio) for ratio in RATIOS]


def ours(setting: Setting, *, epochs_factor: float = 1.0) -> Made:
    clock, network = setting.clock(), setting.network()
    recipe = setting.recipe_for(epochs=round(epochs_factor * setting.recipe.epochs))
    with clock.running():
        train(
            network,
            Task.from_dataset(setting.dataset, device=setting.device),
            recipe,
            seed=setting.seed,
        )
    return setting.fitted(network, clock)


def _one_model(
    gradients: Gradients, partition: Partition, epochs_factor: int, setting: Setting
) -> Made:
    clock, network = setting.clock(), setting.network(partition)
    with clock.running():
        setting.train(network, gradients, epochs=epochs_factor * setting.recipe.epochs)
    return setting.made(network, clock)


def separate(setting: Setting) -> Made:
    """Each network starts from weights of its own, scaled for its widths."""
    clock, full = setting.clock(), setting.network()
    widths, modules = _widths(full), []
    for one in widths:
        module = full.discretize(one)
        torch.manual_seed(setting.seed)
        for layer in module.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
        network = IntegralNetwork(module, setting.example, min_ratio=1.0)
        with clock.running():
            setting.train(network, plain)
        modules += setting.sampled(network, [network.full_widths])
    return Made(modules, widths, clock.seconds)


def _plainly_trained(setting: Setting, clock: _Clock) -> IntegralNetwork:
    network = setting.network()
    with clock.running():
        setting.train(network, plain)
    return network


def converted(setting: Setting) -> Made:
    clock = setting.clock()
    network = _plainly_trained(setting, clock)
    samples = (
        Task.from_dataset(setting.dataset, device=setting.device)
        .recalibration_samples()
        .standardized(slice(0, NUM_FITTED))
    )
    module = network.discretize(network.full_widths).eval()
    return setting.fitted(convert(module, setting.example, samples=samples).network, clock)


def pruned(setting: Setting) -> Made:
    clock = setting.clock()
    network = _plainly_trained(setting, clock)
    permute(network, by_magnitude(network))
    return setting.made(network, clock)


def pruned_tuned(setting: Setting) -> Made:
    """As many passes as a sandwich: a quarter plainly, the rest shared among the widths."""
    clock = setting.clock()
    network = _plainly_trained(setting, clock)
    permute(network, by_magnitude(network))
    widths, modules = _widths(network), []
    epochs = max(1, round((PASSES - 1) * setting.recipe.epochs / len(RATIOS)))
    for one, module in zip(widths, setting.sampled(network, widths), strict=True):
        tuned = IntegralNetwork(module, setting.example, min_ratio=1.0)
        if one != network.full_widths:
            with clock.running():
                setting.train(tuned, plain, epochs=epochs, rate=TUNING_RATE)
        modules += setting.sampled(tuned, [tuned.full_widths])
    return Made(modules, widths, clock.seconds)


def torch_pruning(setting: Setting) -> Made:
    clock = setting.clock()
    network = _plainly_trained(setting, clock)
    found = [by_package(network, setting.example, ratio) for ratio in RATIOS]
    modules: list[nn.Module] = []
    for module, _ in found:
        alone = IntegralNetwork(module, setting.example, min_ratio=1.0)
        modules += setting.sampled(alone, [alone.full_widths])
    versions = {"torch-pruning": metadata.version("torch-pruning")}
    return Made(modules, [widths for _, widths in found], clock.seconds, versions=versions)


def torchintegral(setting: Setting) -> Made:
    """As many passes as a sandwich: a quarter plainly, the rest after conversion."""
    if setting.checkout is None:
        raise SystemExit(
            f"the arm {PEER!r} needs a checkout: give its folder with --torchintegral."
        )
    clock = setting.clock()
    network = _plainly_trained(setting, clock)
    peer = ConvertedPeer(setting.checkout, network, setting.dataset.input_shape)
    recipe = setting.recipe_for(epochs=(PASSES - 1) * setting.recipe.epochs, rate=CONVERTED_RATE)
    with clock.running():
        peer.train(setting.dataset, recipe, setting.seed)
    widths = _widths(network)
    versions = {"TorchIntegral": peer.version}
    return Made(
        [peer.at(one) for one in widths], widths, clock.seconds, at=peer.at, versions=versions
    )


def _peer(what: str, gradients: Gradients, partition: Partition, epochs_factor: int = 1) -> Arm:
    return Arm(what, lambda setting: _one_model(gradients, partition, epochs_factor, setting))


ARMS: dict[str, Arm] = {
    OURS: Arm(
        "`inn-automl run`: weights that depend on the width; half of the epochs at full width "
        "alone, then a sandwich "
        "with a share of the labels; weights fitted where validation gains",
        ours,
    ),
    "ours-x1.6": Arm(
        "the same with 1.6 times the steps, so as many passes as a US-Net",
        partial(ours, epochs_factor=PLAIN_FACTOR),
    ),
    "usnet": _peer(
        "US-Net as published: one share for all layers, soft targets alone", us_net, Nested()
    ),
    "usnet-by-layer": _peer("US-Net with a width for each layer", us_net_by_layer, Nested()),
    "separate": Arm("a network for each width, each trained for as many steps", separate),
    "paper": _peer(
        "INN paper: uniform cubic samples, trapezoid, one size a step", inn_paper, Uniform()
    ),
    "paper-x4": _peer(
        "the same with 4 times the steps, so as many passes as a US-Net",
        inn_paper,
        Uniform(),
        PASSES,
    ),
    "converted": Arm(
        "one plain training, then converted; a quarter of a US-Net's passes", converted
    ),
    "pruned": Arm("the same plain training, the largest weights kept", pruned),
    "pruned-tuned": Arm(
        "the same, each width fine-tuned; as many passes as a US-Net in all", pruned_tuned
    ),
    "torch-pruning": Arm(
        "the same plain training, pruned by torch-pruning's group norm", torch_pruning
    ),
    PEER: Arm(
        "the peer itself: the same plain training, converted by TorchIntegral (channels ordered; "
        "batch norm folded "
        "away, so no statistics are re-estimated), then trained at a random size of every group a "
        "step by labels "
        f"alone, at {CONVERTED_RATE:g} of the learning rate; as many passes as a US-Net in all",
        torchintegral,
    ),
}
