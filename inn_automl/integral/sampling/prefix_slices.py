"""The leading blocks of many tensors at once, with their slopes added: x[:n, :m] + narrowness *
slope[:n, :m].

What is wanted larger than its block is filled up with zeros.

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
Leading = tuple[Tensor, Tensor | None, Sizes, Sizes, float]
"""A tensor, its slope (or None), the sizes of the block, those with zeros behind it, and what the
slope counts.
"""


def leading_blocks(wanted: Sequence[Leading]) -> tuple[Tensor, ...]:
    """The first elements of each tensor along each dimension, in its memory layout.

    Differentiable, once, in tensors and slopes.
    """
    if not wanted:
        return ()
    tensors, slopes, sizes, filled, narrowness = zip(*wanted, strict=True)
    blocks: tuple[Tensor, ...] = _LeadingBlocks.apply(sizes, filled, narrowness, *tensors, *slopes)
    return blocks


class _LeadingBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sizes: Sequence[Sizes],
        filled: Sequence[Sizes],
        narrowness: Sequence[float],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        num = len(sizes)
        ctx.sizes, ctx.narrowness, ctx.tensors = sizes, narrowness, tensors[:num]
        blocks = []
        for tensor, slope, size, room, factor in zip(
            tensors[:num], tensors[num:], sizes, filled, narrowness, strict=True
        ):
            block = _block(tensor, size)
            # Two operations: a fused one rounds otherwise than readers of exported weights do.
            sampled = (
                block.clone()
                if slope is None
                else torch.mul(_block(slope, size), factor).add_(block)
            )
            blocks.append(
                sampled
                if room == size
                else filled_up(sampled, torch.zeros_like(_block(tensor, room)))
            )
        return tuple(blocks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        num = len(ctx.sizes)
        wanted = ctx.needs_input_grad[3:]
        of_tensors: list[Tensor | None] = [None] * num
        of_slopes: list[Tensor | None] = [None] * num
        for i, (gradient, tensor) in enumerate(zip(gradients, ctx.tensors, strict=True)):
            if wanted[i] or wanted[num + i]:
                whole = of_tensors[i] = torch.zeros_like(tensor)
                _block(whole, ctx.sizes[i]).copy_(_block(gradient, ctx.sizes[i]))
                if wanted[num + i]:
                    of_slopes[i] = whole * ctx.narrowness[i]
        return (None, None, None, *of_tensors, *of_slopes)


def filled_up(block: Tensor, zeros: Tensor) -> Tensor:
    """`zeros`, with the block in place of its first elements along each dimension."""
    _block(zeros, tuple(block.shape)).copy_(block)
    return zeros


def _block(tensor: Tensor, sizes: Sizes) -> Tensor:
    """A view of the first elements along each dimension."""
    return tensor.as_strided(sizes, tensor.stride(), tensor.storage_offset())
