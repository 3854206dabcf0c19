"""The order of channels: which of them come first, so that the first n are the n that tell most of
all.

With nested partitions a network at n channels holds the first n of each group. For a network that
was trained at full width only, the channels are put into the order in which a pivoted Cholesky
decomposition of their Gram matrix takes
them: each is the one that the channels before it can explain least, as the layers that read them
weigh them. One order serves every width. Column-pivoted QR of activations is another name for it:
S. Chandrasekaran and I. Ipsen, "On rank-revealing factorisations", SIAM J. Matrix Anal. Appl. 15
(1994).
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
    segment_columns,
    unit_of,
)
from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.network import IntegralNetwork

_EXHAUSTED = 1e-10
"""Share of the Gram matrix's trace below which what is left is noise."""


def rank_channels(network: IntegralNetwork, samples: Tensor) -> dict[str, Tensor]:
    """The order of each group's channels (of its units, where widths are multiples of several
    channels).

    Args:
        samples: (N, ...) inputs as the module takes them, a few hundred; no labels.

    Returns:
        By group, indices (n,) of all its samples, those that tell most first.

    Raises:
        InputError: there are too few samples, or all of them are alike.
    """
    layers = consumers(network)
    seen = capture_activations(network, samples, layers)
    sizes = network.coupling.full_counts()
    grams: dict[int, Tensor] = {}
    for one in layers:
        if one.path in seen:
            for group, gram in _weighted_grams(network, one, seen[one.path]).items():
                grams[group] = grams[group] + gram if group in grams else gram
    return {
        group.name: pivoted_cholesky(grams[i], sizes[i]) if i in grams else torch.arange(sizes[i])
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


def permute(network: IntegralNetwork, order: dict[str, Tensor]) -> None:
    """Puts the channels of each group into another order, in place; the full width computes what
    it did.

    Args:
        order: by group, a permutation of its samples; groups that are missing stay as they are.
    """
    tensors = {**dict(network.module.named_parameters()), **dict(network.module.named_buffers())}
    permute_tensors(network.coupling, tensors, order)
    permute_tensors(network.coupling, network.named_width_deltas(), order)


def permute_tensors(
    coupling: Coupling, tensors: Mapping[str, Tensor], order: Mapping[str, Tensor]
) -> None:
    """Does so with tensors of the shapes that the module's have.

    Args:
        tensors: by the names that the module has for them; not all need to be there.
        order: as `permute` takes it.
    """
    by_index = {
        i: order[group.name] for i, group in enumerate(coupling.groups) if group.name in order
    }
    sizes = coupling.full_counts()
    with torch.no_grad():
        for name, tensor in tensors.items():
            for dim, parts in enumerate(coupling.axes[name]):
                if any(part.group in by_index for part in parts):
                    index, start = [], 0
                    for part in parts:
                        num = sizes[part.group] if part.group >= 0 else 1
                        features = torch.arange(part.outer * num * part.inner).reshape(
                            part.outer, num, part.inner
                        )
                        if part.group in by_index:
                            features = features[:, by_index[part.group]]
                        index.append(features.flatten() + start)
                        start += features.numel()
                    tensor.copy_(tensor.index_select(dim, torch.cat(index).to(tensor.device)))


def _weighted_grams(
    network: IntegralNetwork, consumer: Consumer, seen: LayerActivations
) -> dict[int, Tensor]:
    """By group, the Gram matrix of its channels as one consumer weighs them, as a share of all
    that it takes in.
    """
    coupling, sizes = network.coupling, network.coupling.full_counts()
    weight = network.module.get_parameter(consumer.weight).detach().double()
    norms = weight.transpose(0, 1).flatten(1).norm(dim=1)  # of each feature
    rows = seen.inputs.double()
    rows = (rows - rows.mean(0)) * norms
    total = rows.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    found: dict[int, Tensor] = {}
    start = 0
    for part in consumer.parts:
        index = segment_columns(coupling, part.group, part.outer, part.inner, sizes) + start
        start += index.numel()
        if part.group >= 0:
            unit = unit_of(coupling, part.group, part.inner)
            x = rows[:, index].flatten(0, 1)  # (r * p, n * unit)
            gram = x.T @ x / total
            missing = coupling.groups[part.group].unit // unit
            # a unit whose channels are not told apart here counts for each of them alike
            if missing > 1:
                gram = torch.kron(gram, torch.eye(missing, dtype=gram.dtype)) / missing
            found[part.group] = found[part.group] + gram if part.group in found else gram
    return found
