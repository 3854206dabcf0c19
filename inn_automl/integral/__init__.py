"""Integral neural networks: continuous weights that are sampled to any width.

network = IntegralNetwork(module, example_input)
small = network.discretize(network.uniform_widths(0.5))
"""

from inn_automl.integral.batch_norm import reestimate_normalization
from inn_automl.integral.conversion.convert import ConvertedNetwork, convert
from inn_automl.integral.graph.groups import Group, Unfollowed
from inn_automl.integral.network import IntegralNetwork, Widths
from inn_automl.integral.sampling.partition import (
    CellAverages,
    Nested,
    Partition,
    Trainable,
    Uniform,
)

__all__ = [
    "CellAverages",
    "ConvertedNetwork",
    "Group",
    "IntegralNetwork",
    "Nested",
    "Partition",
    "Trainable",
    "Unfollowed",
    "Uniform",
    "Widths",
    "convert",
    "reestimate_normalization",
]
