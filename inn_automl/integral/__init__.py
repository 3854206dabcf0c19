"""Integral neural networks: continuous weights that can be sampled at any width.

network = IntegralNetwork(module, example_input)
small = network.discretize(network.uniform_widths(0.5))
"""

from inn_automl.integral.batch_norm import recalibrate_batch_norm
from inn_automl.integral.conversion.convert import ConvertedNetwork, convert
from inn_automl.integral.graph.groups import FrozenChannels, Group
from inn_automl.integral.network import IntegralNetwork
from inn_automl.integral.sampling.partition import (
    CellAverages,
    Nested,
    Partition,
    Trainable,
    Uniform,
)
from inn_automl.integral.widths import Widths

__all__ = [
    "CellAverages",
    "ConvertedNetwork",
    "FrozenChannels",
    "Group",
    "IntegralNetwork",
    "Nested",
    "Partition",
    "Trainable",
    "Uniform",
    "Widths",
    "convert",
    "recalibrate_batch_norm",
]
