"""Magnitude pruning: the channels with the largest weights are kept, by our coupling or by that of
torch-pruning.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inn_automl.integral import IntegralNetwork


def by_magnitude(network: IntegralNetwork) -> dict[str, Tensor]:
    """Each group's channels, those with the largest weights (into and out of them, in the mean
    square) first.
    """
    sizes = network.coupling.full_counts()
    energy = [torch.zeros(size, dtype=torch.float64) for size in sizes]
    for name, parameter in network.module.named_parameters():
        if parameter.ndim < 2:
            continue
        for dim, parts in enumerate(network.coupling.axes[name]):
            squared = parameter.detach().double().square().movedim(dim, 0).flatten(1).sum(1)
            for part, values in zip(
                parts, squared.split([_size(p, sizes) for p in parts]), strict=True
            ):
                if part.group >= 0:
                    energy[part.group] += values.reshape(
                        part.outer, sizes[part.group], part.inner
                    ).sum((0, 2))
    return {
        group.name: e.argsort(descending=True)
        for group, e in zip(network.groups, energy, strict=True)
    }


def by_package(
    network: IntegralNetwork, example: Tensor, ratio: float
) -> tuple[nn.Module, dict[str, int]]:
    """What torch-pruning leaves of the network's module at a share of the channels of every layer,
    and its widths.

    By its group norm (G. Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023,
    section 3.3), each layer by itself, in one step. Its own tracer finds what goes together; the
    last layer keeps its classes.
    """
    import torch_pruning  # of the dev extra, which no other benchmark that prunes needs

    module = copy.deepcopy(network.module).eval()
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    torch_pruning.pruner.BasePruner(
        module, example, importance=importance, pruning_ratio=1 - ratio, ignored_layers=[last]
    ).step()
    widths = {}
    for name, parameter in module.named_parameters():
        for dim, parts in enumerate(network.coupling.axes[name]):
            if len(parts) == 1 and parts[0].group >= 0:
                widths[network.groups[parts[0].group].name] = parameter.shape[dim] // (
                    parts[0].outer * parts[0].inner
                )
    return module, widths


def _size(part: Any, sizes: Sequence[int]) -> int:
    return int(part.outer * part.inner * (sizes[part.group] if part.group >= 0 else 1))
