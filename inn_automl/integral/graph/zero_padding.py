"""Operations through which zero channels pass without an effect on other channels."""

from __future__ import annotations

from torch.fx import Node

from inn_automl.integral.graph.propagation import Propagation, flatten_shapes, operation

_INDEPENDENT = frozenset(
    [
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "linear",
        "batch_norm",
        "dropout",
        "feature_dropout",
        "add",
        "sub",
        "mul",
        "neg",
        "relu",
        "relu6",
        "hardtanh",
        "clamp",
        "leaky_relu",
        "elu",
        "prelu",
        "gelu",
        "silu",
        "mish",
        "sigmoid",
        "hardsigmoid",
        "hardswish",
        "tanh",
        "softplus",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_linear1d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "upsample_trilinear3d",
        "alias",
        "clone",
        "contiguous",
        "detach",
        "to",
        "_to_copy",
        "cat",
        "flatten",
        "reshape",
        "squeeze",
        "unsqueeze",
        "view",
    ]
)
"""No zero channel changes another channel here, nor becomes infinite, in outputs or gradients."""


def supports_zero_padding(propagation: Propagation, node: Node) -> bool:
    """Return whether channels that can be resized may be zero-padded in an operation."""

    def num_free(source: Node) -> int:
        return sum(map(propagation.variables.is_free, flatten_shapes(propagation.shapes[source])))

    num_given = sum(map(num_free, node.all_input_nodes))
    if operation(node) == "mean":  # over channels it divides by their number
        return num_free(node) == num_given
    in_place_too = operation(node).rstrip("_")
    return num_given == 0 or in_place_too in _INDEPENDENT
