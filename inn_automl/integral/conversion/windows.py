"""Rows of the least-squares problem of a layer: its inputs and outputs at some positions of each
sample.

A position is a pixel of an image or a time step of a signal. Convolutions apply the
same weights at every position, so that a few positions of each sample are enough.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

MAX_ROWS = 8192
"""Rows sampled of a layer's input or output: samples times positions."""


def choose_positions(layer: nn.Module, x: Tensor) -> Tensor:
    """Positions (k,) in each sample of a layer's input or output; at most `MAX_ROWS` in all.

    Spread at random, the same on every call.
    """
    num_positions = x[0].numel() // x.shape[_channel_dim(layer)]
    order = torch.randperm(num_positions, generator=torch.Generator().manual_seed(0))
    return order[: max(1, MAX_ROWS // len(x))].to(x.device)


def rows_at(layer: nn.Module, x: Tensor, positions: Tensor) -> Tensor:
    """(N * k, channels) of a layer's input or output at `k` positions of each sample."""
    dim = _channel_dim(layer)
    by_position = x.movedim(dim, -1).reshape(len(x), -1, x.shape[dim])
    return by_position[:, positions].flatten(0, 1)


def windows_at(layer: nn.Module, x: Tensor, positions: Tensor) -> Tensor:
    """Inputs that a layer multiplies with its weights for `k` outputs of each sample.

    Args:
        layer: linear or convolutional, not transposed.
        x: its input.
        positions: (k,) flat positions in its output.

    Returns:
        (N * k, f), `f` as in the flattened weights of one output channel.
    """
    if isinstance(layer, nn.Linear):
        return rows_at(layer, x, positions)
    assert isinstance(layer, _ConvNd)
    padded = _padded(layer, x)
    sizes = padded.shape[2:]
    steps = list(zip(sizes, layer.kernel_size, layer.stride, layer.dilation, strict=True))
    out = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, dilation in steps
    ]
    corners = torch.stack(torch.unravel_index(positions, out), dim=1)
    corners = corners * positions.new_tensor(layer.stride)
    axes = [torch.arange(kernel, device=x.device) * dilation for _, kernel, _, dilation in steps]
    offsets = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    index = corners[:, None] + offsets
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    flat = (index * positions.new_tensor(strides)).sum(-1)  # (k, kernel elements)
    taken = padded.flatten(2)[:, :, flat.flatten()].unflatten(2, flat.shape)
    return taken.transpose(1, 2).flatten(2).flatten(0, 1)


def _padded(layer: _ConvNd, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        amounts = [(total // 2, total - total // 2) for total in totals]
    elif layer.padding == "valid":
        amounts = [(0, 0) for _ in layer.kernel_size]
    else:
        amounts = [(int(amount), int(amount)) for amount in layer.padding]
    flat = [amount for pair in reversed(amounts) for amount in pair]
    return functional.pad(x, flat, mode=mode) if any(flat) else x


def _channel_dim(layer: nn.Module) -> int:
    """Position of the channel axis in a layer's input and output."""
    return -1 if isinstance(layer, nn.Linear) else 1
