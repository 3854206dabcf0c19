"""The order of channels along a shortest path: neighbours are alike, so that weights are smooth
functions of x.

K. Solodskikh et al., "Integral Neural Networks", CVPR 2023, section 4.1: of all orders of a
trained layer's channels the one is taken along which its weights vary least in total, a shortest
Hamiltonian path. Partitions that interpolate between neighbours, or average over them (`Uniform`,
`CellAverages`), need it; the nested one does not: see `ordering`.
"""

from __future__ import annotations

from collections.abc import Iterator

import fast_tsp
import numpy as np
import torch
from torch import Tensor

from inn_automl.core.errors import ModuleError
from inn_automl.integral.graph.groups import length
from inn_automl.integral.network import IntegralNetwork

_SEARCH_S_PER_POINT = 0.002
"""Half a second for 256 channels: ten times as long shortened their paths by less than 0.01 %."""
_LARGEST = 2**16 - 1
"""The solver takes integer distances up to this."""


def tsp_order(network: IntegralNetwork) -> dict[str, Tensor]:
    """Each group's channels along a path on which the network's parameters vary least in total.

    Takes 2 ms a channel. The solver is a timed random search: what it finds differs from run to
    run, by less than 0.1 % of the length.

    Returns:
        By group, indices (n,) of all its samples.

    Raises:
        ModuleError: a parameter holds numbers that are not finite.
    """
    return {
        group.name: shortest_path(distances)
        for group, distances in zip(network.groups, channel_distances(network), strict=True)
    }


def channel_distances(network: IntegralNetwork) -> list[Tensor]:
    """How far apart the channels of each group are: (n, n) float64, the L1 distance of all that
    belongs to them.

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
    """A group's slices (n, f) of a parameter with its channels, of those that make them and those
    that read them.

    Each parameter as a share of its own mean magnitude, in float64 on the CPU.

    Raises:
        ModuleError: a parameter holds numbers that are not finite.
    """
    sizes = network.coupling.full_counts()
    for name, parameter in network.module.named_parameters():
        value = parameter.detach().double().cpu()
        if not torch.isfinite(value).all():
            raise ModuleError(
                f"{name!r} holds numbers that are not finite: give a network whose training went "
                f"well."
            )
        value = value / value.abs().mean().clamp(min=torch.finfo(torch.float64).tiny)
        for dim, parts in enumerate(network.coupling.axes[name]):
            lengths = [length((part,), sizes) for part in parts]
            for part, piece in zip(parts, value.split(lengths, dim), strict=True):
                if part.group >= 0:
                    split = piece.movedim(dim, 0).unflatten(
                        0, (part.outer, sizes[part.group], part.inner)
                    )
                    yield part.group, split.transpose(0, 1).flatten(1)


def shortest_path(distances: Tensor, search_s: float | None = None) -> Tensor:
    """Indices (n,) along a path through all points, as short as a search finds; up to 19 points,
    the shortest.

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
