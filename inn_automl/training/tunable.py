"""A candidate as a network of its own, with the parts that can be fine-tuned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from inn_automl.core.errors import InputError
from inn_automl.integral import IntegralNetwork, Partition, Trainable, Widths

PARTS = ("partition", "affine", "weights")
LEARNING_RATE = 3e-3
"""Of Adam: about how far a parameter moves in a step; a point, in distances of the points."""


@dataclass(frozen=True)
class TunableCandidate:
    """A candidate as an integral network of its own, with its channels as control points."""

    network: IntegralNetwork
    """Has the candidate's outputs, until its parameters are changed."""
    parameters: dict[str, list[Tensor]]
    """Parameters to fine-tune, by part; no others have gradients."""

    def optimizer(self) -> torch.optim.Adam:
        """An optimizer, with each parameter group's highest learning rate as its `highest`."""
        deltas = {
            id(p.delta): p.delta
            for p in self.network.trainable_partitions
            if isinstance(p, Trainable)
        }
        others = [p for part in PARTS for p in self.parameters[part] if id(p) not in deltas]
        groups: list[dict[str, Any]] = (
            [{"params": others, "highest": LEARNING_RATE}] if others else []
        )
        for delta in deltas.values():
            # The last of n points moves by the sum of n distances, each of which is the square of
            # its delta.
            distance = float(delta.detach().mean()) / len(delta)
            groups.append({"params": [delta], "highest": LEARNING_RATE * distance})
        return torch.optim.Adam(groups)

    def discretize(self) -> nn.Module:
        """The module in its present state, with tensors of its own."""
        return self.network.discretize(self.network.full_widths).requires_grad_(True)


def make_tunable(
    network: IntegralNetwork, module: nn.Module, widths: Widths, parts: Collection[str]
) -> TunableCandidate:
    """Makes a candidate's parts trainable. A group of one channel has no partition to fine-tune.

    Args:
        network: that the candidate was made from.
        module: the candidate; copied.
        widths: of the candidate.

    Raises:
        InputError: there is nothing to fine-tune in it.
    """
    partitions: dict[str, Partition] = {}
    for group in network.groups:
        num_points = widths[group.name] // group.unit
        if "partition" in parts and num_points > 1:
            partitions[group.name] = Trainable(num_points, has_factors=True)
    coupling = network.coupling.discretized(widths)
    own = IntegralNetwork(
        module, torch.empty(0), coupling=coupling, partition=partitions, min_ratio=1.0
    )
    own.requires_grad_(False)
    affine = _affine(own.module)
    weights: list[Tensor] = [
        p for p in own.module.parameters() if all(p is not other for other in affine)
    ]
    parameters: dict[str, list[Tensor]] = {
        "partition": list(own.trainable_partitions.parameters()),
        "affine": affine if "affine" in parts else [],
        "weights": weights if "weights" in parts else [],
    }
    chosen = [parameter for part in parameters.values() for parameter in part]
    if not chosen:
        raise InputError(
            f"the model has no {' or '.join(parts)} to fine-tune: a partition of one point has "
            "none, nor has a layer without bias and normalization an affine; fine-tune other "
            "parts, or wider models."
        )
    for parameter in chosen:
        parameter.requires_grad_(True)
    return TunableCandidate(own, parameters)


def _affine(module: nn.Module) -> list[Tensor]:
    """Scales and shifts of normalization layers, and the biases of all others."""
    found: dict[int, Tensor] = {}
    for layer in module.modules():
        is_norm = isinstance(layer, _NormBase | nn.LayerNorm | nn.GroupNorm)
        for name in ("weight", "bias") if is_norm else ("bias",):
            parameter = layer._parameters.get(name)
            if parameter is not None:
                found[id(parameter)] = parameter
    return list(found.values())
