"""A network of a user."""

from __future__ import annotations

from torch import nn


def make(num_outputs: int, input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, num_outputs),
    )
