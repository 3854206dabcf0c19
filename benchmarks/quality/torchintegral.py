"""The peer TorchIntegral, trained and sampled under the rules of the others.

As in its example for ImageNet: a network that was trained plainly is converted, which orders its
channels and folds batch normalization away; then each step draws a size of every group from its
`UniformDistribution`, on a uniform grid with cubic interpolation and the trapezoidal rule, and
learns from the labels alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.gradients import fit, validated_widths
from benchmarks.torchintegral import TorchIntegralNetwork, permutation_solver
from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import count_correct
from inn_automl.integral import IntegralNetwork
from inn_automl.tasks import Task
from inn_automl.training.optimizer import make_optimizer
from inn_automl.training.recipe import Recipe


class ConvertedPeer:
    """A network of ours at full width, converted by TorchIntegral; its widths have the names of
    ours.

    Args:
        checkout: folder of its repository, compiled.
        network: trained plainly; not changed.

    Attributes:
        version: revision of the checkout.

    Raises:
        SystemExit: the checkout is none, or is not compiled.
    """

    def __init__(
        self,
        checkout: Path,
        network: IntegralNetwork,
        input_shape: tuple[int, ...],
        *,
        ordered: bool = True,
    ) -> None:
        module, axes = network.discretize(network.full_widths), network.coupling.axes
        fixed = {
            name: [dim for dim in range(min(2, len(of))) if all(part.group < 0 for part in of[dim])]
            for name, of in axes.items()
        }
        self._peer = TorchIntegralNetwork(checkout, module, input_shape, fixed, ordered=ordered)
        self._names = [
            network.groups[axes[name][dim][0].group].name for name, dim in self._peer.axes
        ]
        self._smallest, self._validated = network.smallest_widths, validated_widths(network)
        self.version = self._peer.version

    def train(self, dataset: Dataset, recipe: Recipe, seed: int) -> None:
        """In place; the best epoch is chosen at the widths by which those of other peers are."""
        model, validation = self._peer.model, Task.from_dataset(dataset).validation
        self._peer.vary([self._smallest[name] for name in self._names])

        def step(x: Tensor, y: Tensor, rng: np.random.Generator) -> None:
            random.seed(int(rng.integers(2**32)))  # what its distribution draws from
            F.cross_entropy(model(x), y, label_smoothing=recipe.label_smoothing).backward()

        def score() -> int:
            return sum(count_correct(self.at(widths), validation) for widths in self._validated)

        optimizer, _ = make_optimizer(model, recipe)
        # It keeps a bias as a plane, which looks like a weight; no bias decays.
        biases = {
            id(parameter)
            for name, parameter in model.named_parameters()
            if "parametrizations.bias." in name
        }
        decayed, others = optimizer.param_groups
        others["params"] += [one for one in decayed["params"] if id(one) in biases]
        decayed["params"] = [one for one in decayed["params"] if id(one) not in biases]
        fit(model, optimizer, dataset, recipe, seed, step, score)

    def at(self, widths: Mapping[str, int]) -> nn.Module:
        """Makes a plain module in eval mode, without batch-norm statistics to recalibrate."""
        self._peer.model.eval()
        self._peer.set_sizes([widths[name] for name in self._names])
        return self._peer.discretize().eval()


def why_not(checkout: Path, network: IntegralNetwork, example: Tensor) -> str | None:
    """What TorchIntegral fails with on a network of this architecture; None where it serves.

    Raises:
        SystemExit: see `ConvertedPeer`.
    """
    permutation_solver(checkout)
    try:
        peer = ConvertedPeer(checkout, network, tuple(example.shape[1:]), ordered=False)
        for widths in (network.smallest_widths, network.full_widths):
            peer.at(widths)(example)
    except Exception as error:  # whatever its tracer or its sampling meets
        return f"{type(error).__name__}: {error}"
    return None
