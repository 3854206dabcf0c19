"""The full width as it was on average over the latest steps: a steadier teacher of the reduced
widths than the full width of this very step.

A. Tarvainen and H. Valpola, "Mean teachers are better role models", NeurIPS 2017.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork


class AveragedTeacher:
    """An exponential moving average of a network's parameters.

    Args:
        network: on its device, in the memory layout that it is trained in.
        window: steps after which the weight of a step falls to 1/e; at first fewer, as many as
            were taken.

    Attributes:
        module: the average at full width. It normalizes with the statistics of each batch, and
            drops nothing out.
        num_updates: number of updates.
    """

    def __init__(self, network: IntegralNetwork, window: float) -> None:
        self.module: nn.Module = copy.deepcopy(network.module).requires_grad_(False).eval()
        for layer in self.module.modules():
            layer.train(isinstance(layer, _NormBase))
        self._window = max(1.0, window)
        self.num_updates = 0

    @torch.no_grad()
    def update(self, network: IntegralNetwork) -> None:
        """Takes the network's parameters into the average."""
        self.num_updates += 1
        weight = max(1 / self._window, 9 / (self.num_updates + 9))
        for own, other in zip(self.module.parameters(), network.module.parameters(), strict=True):
            own.lerp_(other, weight)

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor:
        """The average's outputs for a standardized batch."""
        outputs: Tensor = self.module(x)
        return outputs
