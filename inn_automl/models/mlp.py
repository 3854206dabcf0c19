"""Multilayer perceptron on the flattened input; the depth counts hidden layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inn_automl.models.family import Family, scaled

HIDDEN = 256


class MLP(nn.Module):
    """Linear, batch norm, ReLU for each hidden size, then a linear classifier.

    Args:
        num_features: values per sample.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, num_features: int, num_classes: int, hidden: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size_in, size_out in zip([num_features, *hidden], hidden, strict=False):
            layers += [
                nn.Linear(size_in, size_out, bias=False),
                nn.BatchNorm1d(size_out),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(hidden[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> logits (N, num_classes)."""
        return self.classifier(self.features(torch.flatten(x, 1)))


def make(input_shape: tuple[int, ...], num_classes: int, width: float, depth: int) -> MLP:
    return MLP(math.prod(input_shape), num_classes, [scaled(HIDDEN, width)] * depth)


FAMILY = Family("mlp", ("image", "signal"), 2, (1, 2, 3, 4), (0.5, 1.0, 2.0), make)
