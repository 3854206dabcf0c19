"""Channel order by the travelling salesman problem: neighbours are alike, weights are smooth.

K. Solodskikh et al., "Integral Neural Networks", CVPR 2023, section 4.1: of all orders of a
trained layer's channels, the one along which its weights have the least total variation, a
shortest Hamiltonian path. Partitions that interpolate between neighbours, or average over them
(`Uniform`, `CellAverages`), need it; `Nested` is served by `channel_ranking`.
"""

from __future__ import annotations

from collections.abc import Iterator

import fast_tsp
import numpy as np
import torch
from torch import Tensor

from inn_automl.core.errors import ModuleError
from inn_automl.integral.graph.layout import length
from inn_automl.integral.network import IntegralNetwork

_SEARCH_S_PER_POINT = 0.002
"""Half a second for 256 channels: ten times as long shortened their paths by less than 0.01 %."""
_LARGEST = 2**16 - 1
"""Largest integer distance that the solver takes."""


def tsp_order(network: IntegralNetwork) -> dict[str, Tensor]:
    """The order of each group's channels with the least total variation of the parameters.

    Takes 2 ms a channel. The solver is a timed random search: lengths differ from run to run by
    less than 0.1 %.

    Returns:
        By group, indices (n,) of all its channels (units).

    Raises:
        ModuleError: a parameter holds numbers that are not finite.
    """
    return {
        group.name: shortest_path(distances)
        for group, distances in zip(network.groups, channel_distances(network), strict=True)
    }


def channel_distances(network: IntegralNetwork) -> list[Tensor]:
    """Distances (n, n) between the channels of each group, float64: the L1 distance of all
    parameters that belong to them.

    Raises:
        ModuleError: a parameter holds numbers that are not finite.
    """
    found = [
        torch.zeros(size, size, dtype=torch.float64) for size in network.coupling.full_counts()
    ]
    for group, rows in channel_rows(network):
        found[group] += torch.cdist(rows, rows, p=1) / rows.shape[1]
    return found


def channel_rows(network: IntegralNetwork) -> Iterator[tuple[int, Tensor]]:
    """Slices (n, f) of the parameters that produce or read a group's channels, with the index of
    the group.

    Each parameter relative to its own mean magnitude, in float64 on the CPU.

    Raises:
        ModuleError: a parameter holds numbers that are not finite.
    """
    counts = network.coupling.full_counts()
    for name, parameter in network.module.named_parameters():
        value = parameter.detach().double().cpu()
        if not torch.isfinite(value).all():
            raise ModuleError(
                f"{name!r} holds numbers that are not finite: give a network whose training went "
                f"well."
            )
        value = value / value.abs().mean().clamp(min=torch.finfo(torch.float64).tiny)
        for dim, layout in enumerate(network.coupling.axes[name]):
            lengths = [length((segment,), counts) for segment in layout]
            for segment, piece in zip(layout, value.split(lengths, dim), strict=True):
                if segment.group >= 0:
                    shape = (segment.outer, counts[segment.group], segment.inner)
                    split = piece.movedim(dim, 0).unflatten(0, shape)
                    yield segment.group, split.transpose(0, 1).flatten(1)


def shortest_path(distances: Tensor, search_s: float | None = None) -> Tensor:
    """Indices (n,) along a short path through all points; for up to 19 points, the shortest.

    Args:
        distances: (n, n), finite, not negative, symmetric.
        search_s: seconds to search for, 2 ms a point by default.
    """
    num = len(distances)
    longest = float(distances.max()) if num else 0.0
    if num < 3 or longest == 0:
        return torch.arange(num)
    # One more point that is at no distance from any: a shortest tour, cut there, is a shortest
    # path.
    scaled = np.zeros((num + 1, num + 1), np.uint16)
    scaled[:num, :num] = np.rint(distances.numpy() * (_LARGEST / longest))
    tour = fast_tsp.find_tour(scaled, duration_seconds=search_s or _SEARCH_S_PER_POINT * num)
    cut = tour.index(num)
    path = [*tour[cut + 1 :], *tour[:cut]]
    return torch.tensor(path if path[0] < path[-1] else path[::-1])


def path_length(distances: Tensor, path: Tensor) -> float:
    """The sum of distances from each point of a path to the next."""
    return float(distances[path[:-1], path[1:]].sum())
