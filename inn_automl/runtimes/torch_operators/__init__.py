"""ONNX's operators in torch: those that exported models of this project consist of, and their near
kin.

Each function of these modules makes, from a node's attributes and its constant inputs, what
computes the node. What it does not cover it refuses by name: a model that is computed another way
than the file says would be timed for nothing.

Source: https://onnx.ai/onnx/operators, opsets 13 to 20.
"""

from inn_automl.runtimes.torch_operators import elementwise, layers, rearranging
from inn_automl.runtimes.torch_operators.registry import MAKERS, Compute, make

__all__ = ["MAKERS", "Compute", "elementwise", "layers", "make", "rearranging"]
