"""Magnitude pruning: the channels with the largest weights are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inn_automl.integral import IntegralNetwork


def by_magnitude(network: IntegralNetwork) -> dict[str, Tensor]:
    """Each group's channels, those with the largest weights (into and out of them, in the mean square) first."""
    sizes = network.coupling.full_samples()
    energy = [torch.zeros(size, dtype=torch.float64) for size in sizes]
    for name, parameter in network.module.named_parameters():
        if parameter.ndim < 2:
            continue
        for dim, parts in enumerate(network.coupling.axes[name]):
            squared = parameter.detach().double().square().movedim(dim, 0).flatten(1).sum(1)
            for part, values in zip(parts, squared.split([_size(p, sizes) for p in parts]), strict=True):
                if part.group >= 0:
                    energy[part.group] += values.reshape(part.outer, sizes[part.group], part.inner).sum((0, 2))
    return {group.name: e.argsort(descending=True) for group, e in zip(network.groups, energy, strict=True)}


def _size(part: Any, sizes: Sequence[int]) -> int:
    return int(part.outer * part.inner * (sizes[part.group] if part.group >= 0 else 1))
