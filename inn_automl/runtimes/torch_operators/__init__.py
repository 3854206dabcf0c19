"""ONNX's operators in torch: the ones in this project's exported models, and close relatives.

Each function of these modules makes, from the attributes and the constant inputs of a node, the
function that computes it. Whatever it does not cover is refused by name: timing a model that is
computed in another way than its file says would be useless.

They exist because no maintained library runs an ONNX file in torch (`onnx2torch` had its last
commit in 2024), and "torch-cpu" must time the very file that the other runtimes time.

Source: https://onnx.ai/onnx/operators, opsets 13 to 20.
"""

from inn_automl.runtimes.torch_operators import elementwise, layers, rearranging
from inn_automl.runtimes.torch_operators.registry import MAKERS, Compute, make

__all__ = ["MAKERS", "Compute", "elementwise", "layers", "make", "rearranging"]
