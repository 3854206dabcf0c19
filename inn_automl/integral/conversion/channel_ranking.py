"""Channel ranking by pivoted Cholesky: the most informative channels first.

With nested partitions a network at n channels holds the first n of each group. For a network that
was trained at full width only, channels are put into the order in which a pivoted Cholesky
decomposition of their Gram matrix takes them: each is the one that the channels before it explain
least, weighted by the layers that read it. One order serves every width.

The same order is known as column-pivoted QR of activations: S. Chandrasekaran and I. Ipsen, "On
rank-revealing factorisations", SIAM J. Matrix Anal. Appl. 15 (1994).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inn_automl.integral.conversion.activations import (
    Consumer,
    LayerActivations,
    capture_activations,
    consumers,
)
from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.graph.layout import AxisLayout, Segment
from inn_automl.integral.network import IntegralNetwork

_EXHAUSTED = 1e-10
"""Fraction of the Gram matrix's trace below which the remainder is noise."""


def rank_channels(network: IntegralNetwork, samples: Tensor) -> dict[str, Tensor]:
    """The order of each group's channels, the most informative ones first.

    Args:
        samples: (N, ...) inputs as the module takes them, a few hundred; no labels.

    Returns:
        By group, indices (n,) of all its channels (of its units, where widths are multiples of
        several channels).

    Raises:
        InputError: there are too few samples, or all of them are alike.
    """
    layers = consumers(network)
    activations = capture_activations(network, samples, layers)
    counts = network.coupling.full_counts()
    grams: dict[int, Tensor] = {}
    for layer in layers:
        if layer.path in activations:
            weighted = _weighted_grams(network, layer, activations[layer.path])
            for group, gram in weighted.items():
                grams[group] = grams[group] + gram if group in grams else gram
    return {
        group.name: (
            pivoted_cholesky(grams[i], counts[i]) if i in grams else torch.arange(counts[i])
        )
        for i, group in enumerate(network.groups)
    }


def pivoted_cholesky(gram: Tensor, num: int) -> Tensor:
    """The order in which a pivoted Cholesky decomposition takes blocks of columns.

    Args:
        gram: (num * u, num * u), symmetric, positive semidefinite; blocks of u columns stand
            together.

    Returns:
        Indices (num,) of all blocks.
    """
    left = gram.double().clone()
    unit = len(gram) // num
    energy = left.diagonal().reshape(num, unit).sum(1).clone()
    by_energy = energy.argsort(descending=True, stable=True)
    taken = torch.zeros(num, dtype=torch.bool, device=gram.device)
    order: list[int] = []
    for _ in range(num):
        rest = left.diagonal().reshape(num, unit).sum(1).masked_fill(taken, -1.0)
        best = int(rest.argmax())
        if rest[best] <= _EXHAUSTED * energy.sum():
            break
        order.append(best)
        taken[best] = True
        block = slice(best * unit, (best + 1) * unit)
        column, middle = left[:, block].clone(), left[block, block].clone()
        middle.diagonal().add_(1e-12 * energy.sum())
        left -= column @ torch.linalg.solve(middle, column.T)
    order += [i for i in by_energy.tolist() if not taken[i]]
    return torch.tensor(order)


def permute(network: IntegralNetwork, order: Mapping[str, Tensor]) -> None:
    """Puts the channels of each group into another order, in place; the output at full width
    stays.

    Args:
        order: by group, a permutation of its channels (units); missing groups stay as they are.
    """
    tensors = {**dict(network.module.named_parameters()), **dict(network.module.named_buffers())}
    permute_tensors(network.coupling, tensors, order)
    permute_tensors(network.coupling, network.named_width_deltas(), order)


def permute_tensors(
    coupling: Coupling, tensors: Mapping[str, Tensor], order: Mapping[str, Tensor]
) -> None:
    """Permutes channels of tensors in place, such as the optimizer's state.

    Args:
        tensors: of the shapes of the module's tensors, by their names; not all need to be there.
        order: see `permute`.
    """
    by_index = {
        i: order[group.name] for i, group in enumerate(coupling.groups) if group.name in order
    }
    with torch.no_grad():
        for name, tensor in tensors.items():
            for dim, layout in enumerate(coupling.axes[name]):
                if any(segment.group in by_index for segment in layout):
                    index = _permuted_elements(layout, coupling.full_counts(), by_index)
                    tensor.copy_(tensor.index_select(dim, index.to(tensor.device)))


def _permuted_elements(
    layout: AxisLayout, counts: tuple[int, ...], order: Mapping[int, Tensor]
) -> Tensor:
    """Indices of an axis's elements after its channels are permuted.

    Args:
        order: by index of the group.
    """
    index, start = [], 0
    for segment in layout:
        num = counts[segment.group] if segment.group >= 0 else 1
        elements = torch.arange(segment.outer * num * segment.inner)
        elements = elements.reshape(segment.outer, num, segment.inner)
        if segment.group in order:
            elements = elements[:, order[segment.group]]
        index.append(elements.flatten() + start)
        start += elements.numel()
    return torch.cat(index)


def _weighted_grams(
    network: IntegralNetwork, consumer: Consumer, activations: LayerActivations
) -> dict[int, Tensor]:
    """Gram matrix of a group's channels, weighted by one consumer, by index of the group.

    A fraction of the energy of all inputs of the consumer.
    """
    coupling, counts = network.coupling, network.coupling.full_counts()
    weight = network.module.get_parameter(consumer.weight).detach().double()
    norms = weight.transpose(0, 1).flatten(1).norm(dim=1)  # of each feature
    rows = activations.inputs.double()
    rows = (rows - rows.mean(0)) * norms
    total = rows.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    found: dict[int, Tensor] = {}
    start = 0
    for segment in consumer.layout:
        index = _segment_columns(coupling, segment, counts) + start
        start += index.numel()
        if segment.group >= 0:
            unit = _unit_of(coupling, segment)
            x = rows[:, index].flatten(0, 1)  # (r * p, n * unit)
            gram = x.T @ x / total
            missing = coupling.groups[segment.group].unit // unit
            # a unit whose channels are not distinguished here counts for each of them alike
            if missing > 1:
                gram = torch.kron(gram, torch.eye(missing, dtype=gram.dtype)) / missing
            found[segment.group] = found.get(segment.group, 0) + gram
    return found


def _segment_columns(coupling: Coupling, segment: Segment, counts: tuple[int, ...]) -> Tensor:
    """(p, n * unit) elements of a segment, one row for each repetition of its channels."""
    group, outer, inner = segment.group, segment.outer, segment.inner
    if group < 0:
        return torch.arange(outer * inner).reshape(1, -1)
    unit = _unit_of(coupling, segment)
    elements = torch.arange(outer * counts[group] * inner)
    return (
        elements.reshape(outer, counts[group], unit, inner // unit)
        .permute(0, 3, 1, 2)
        .flatten(2)
        .flatten(0, 1)
    )


def _unit_of(coupling: Coupling, segment: Segment) -> int:
    """Channels of one unit of a group that are distinct channels in a segment."""
    unit = coupling.groups[segment.group].unit
    return unit if segment.inner % unit == 0 else 1
