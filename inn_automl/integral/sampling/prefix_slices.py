"""The leading blocks of many tensors at once, with their width_deltas added: x[:n, :m] + width_coordinate *
width_delta[:n, :m].

What is wanted larger than its block is padded_sizes up with zeros.

One operation for a whole network, whose gradient writes each tensor once: slices and sums of their
own for each of them cost as much as the forward and backward of a small network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Sizes = tuple[int, ...]
Prefix = tuple[Tensor, Tensor | None, Sizes, Sizes, float]
"""A tensor, its width_delta (or None), the sizes of the block, those with zeros behind it, and what the
width_delta counts.
"""


def prefix_slices(wanted: Sequence[Prefix]) -> tuple[Tensor, ...]:
    """The first elements of each tensor along each dimension, in its memory layout.

    Differentiable, once, in tensors and width_deltas.
    """
    if not wanted:
        return ()
    tensors, width_deltas, sizes, padded_sizes, width_coordinate = zip(*wanted, strict=True)
    blocks: tuple[Tensor, ...] = _PrefixSlices.apply(
        sizes, padded_sizes, width_coordinate, *tensors, *width_deltas
    )
    return blocks


class _PrefixSlices(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sizes: Sequence[Sizes],
        padded_sizes: Sequence[Sizes],
        width_coordinate: Sequence[float],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        num = len(sizes)
        ctx.sizes, ctx.width_coordinate, ctx.tensors = sizes, width_coordinate, tensors[:num]
        blocks = []
        for tensor, width_delta, size, padded_size, factor in zip(
            tensors[:num], tensors[num:], sizes, padded_sizes, width_coordinate, strict=True
        ):
            block = _block(tensor, size)
            # Two operations: a fused one rounds otherwise than readers of exported weights do.
            sampled = (
                block.clone()
                if width_delta is None
                else torch.mul(_block(width_delta, size), factor).add_(block)
            )
            blocks.append(
                sampled
                if padded_size == size
                else zero_padded(sampled, torch.zeros_like(_block(tensor, padded_size)))
            )
        return tuple(blocks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        num = len(ctx.sizes)
        wanted = ctx.needs_input_grad[3:]
        of_tensors: list[Tensor | None] = [None] * num
        of_deltas: list[Tensor | None] = [None] * num
        for i, (gradient, tensor) in enumerate(zip(gradients, ctx.tensors, strict=True)):
            if wanted[i] or wanted[num + i]:
                whole = of_tensors[i] = torch.zeros_like(tensor)
                _block(whole, ctx.sizes[i]).copy_(_block(gradient, ctx.sizes[i]))
                if wanted[num + i]:
                    of_deltas[i] = whole * ctx.width_coordinate[i]
        return (None, None, None, *of_tensors, *of_deltas)


def zero_padded(block: Tensor, zeros: Tensor) -> Tensor:
    """`zeros`, with the block in place of its first elements along each dimension."""
    _block(zeros, tuple(block.shape)).copy_(block)
    return zeros


def _block(tensor: Tensor, sizes: Sizes) -> Tensor:
    """A view of the first elements along each dimension."""
    return tensor.as_strided(sizes, tensor.stride(), tensor.storage_offset())
