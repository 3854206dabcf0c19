"""Integral neural networks: continuous weights that are sampled to any width.

network = IntegralNetwork(module, example_input)
small = network.discretize(network.uniform_widths(0.5))
"""

from inn_automl.integral.conversion import ConvertedNetwork, convert
from inn_automl.integral.coupling import Group, Unfollowed
from inn_automl.integral.network import IntegralNetwork, Widths
from inn_automl.integral.normalization import reestimate_normalization
from inn_automl.integral.partition import CellAverages, Nested, Partition, Trainable, Uniform

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
