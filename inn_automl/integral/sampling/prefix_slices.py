"""Prefix slices of many tensors in one operation, with width deltas and zero padding.

A prefix slice is `x[:n, :m] + width_coordinate * delta[:n, :m]`. One autograd operation for a
whole network, whose gradient writes each tensor once: separate slices and sums for each tensor
cost as much as forward and backward of a small network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Sizes = tuple[int, ...]


class PrefixSlice(NamedTuple):
    """A slice of a tensor from its first element along each axis.

    Attributes:
        tensor: the full tensor.
        delta: its width delta, of the same shape; None without one.
        sizes: of the slice.
        padded_sizes: of the result, zeros behind the slice.
        width_coordinate: factor of the width delta.
    """

    tensor: Tensor
    delta: Tensor | None
    sizes: Sizes
    padded_sizes: Sizes
    width_coordinate: float


def prefix_slices(slices: Sequence[PrefixSlice]) -> tuple[Tensor, ...]:
    """The sampled tensors (`padded_sizes`), each in the memory layout of its full tensor.

    Differentiable, once, in tensors and width deltas.
    """
    if not slices:
        return ()
    tensors, deltas, sizes, padded_sizes, coordinates = zip(*slices, strict=True)
    sampled: tuple[Tensor, ...] = _PrefixSlices.apply(
        sizes, padded_sizes, coordinates, *tensors, *deltas
    )
    return sampled


class _PrefixSlices(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sizes: Sequence[Sizes],
        padded_sizes: Sequence[Sizes],
        coordinates: Sequence[float],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        num = len(sizes)
        ctx.sizes, ctx.coordinates, ctx.tensors = sizes, coordinates, tensors[:num]
        out = []
        for tensor, delta, size, padded_size, coordinate in zip(
            tensors[:num], tensors[num:], sizes, padded_sizes, coordinates, strict=True
        ):
            own = _prefix(tensor, size)
            # Two operations: a fused one rounds otherwise than readers of exported weights do.
            sampled = (
                own.clone()
                if delta is None
                else torch.mul(_prefix(delta, size), coordinate).add_(own)
            )
            if padded_size != size:
                sampled = zero_padded(sampled, torch.zeros_like(_prefix(tensor, padded_size)))
            out.append(sampled)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        num = len(ctx.sizes)
        needed = ctx.needs_input_grad[3:]
        of_tensors: list[Tensor | None] = [None] * num
        of_deltas: list[Tensor | None] = [None] * num
        for i, (gradient, tensor) in enumerate(zip(gradients, ctx.tensors, strict=True)):
            if needed[i] or needed[num + i]:
                whole = of_tensors[i] = torch.zeros_like(tensor)
                _prefix(whole, ctx.sizes[i]).copy_(_prefix(gradient, ctx.sizes[i]))
                if needed[num + i]:
                    of_deltas[i] = whole * ctx.coordinates[i]
        return (None, None, None, *of_tensors, *of_deltas)


def zero_padded(tensor: Tensor, zeros: Tensor) -> Tensor:
    """`zeros`, with the tensor in place of its first elements along each dimension."""
    _prefix(zeros, tuple(tensor.shape)).copy_(tensor)
    return zeros


def _prefix(tensor: Tensor, sizes: Sizes) -> Tensor:
    """A view of the first elements along each dimension."""
    return tensor.as_strided(sizes, tensor.stride(), tensor.storage_offset())
