"""Operations that reduce axes, run along one axis, or pool what stands behind the channel axis."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.fx import Node

from inn_automl.integral.graph.propagation import Propagation, Shape, argument, operation, rule
from inn_automl.integral.graph.rules.elementwise import pointwise


def axes_of(dims: Any, rank: int) -> set[int]:
    """Positions of the axes that an argument `dim` names; all if it names none."""
    if dims is None or dims == [] or isinstance(dims, bool):
        return set(range(rank))
    return {dim % rank for dim in (dims if isinstance(dims, list | tuple) else [dims])}


def reduced(propagation: Propagation, node: Node, axes: set[int]) -> Any:
    """The remaining axes of a shape, for each output of the node."""
    shape = propagation.shape(node.args[0])
    value = node.meta["val"]
    outputs = [value] if isinstance(value, torch.Tensor) else list(value)
    keeps = outputs[0].dim() == len(shape)
    out = tuple(
        propagation.variables.constant(1) if position in axes else axis
        for position, axis in enumerate(shape)
        if keeps or position not in axes
    )
    return out if isinstance(value, torch.Tensor) else [out for _ in outputs]


@rule("amax", "amin", "max", "mean", "min", "std", "var", "std_mean", "var_mean")
def mean(propagation: Propagation, node: Node) -> Any:
    """Reductions that do not grow with the number of channels: a mean over channels is an integral
    over them.
    """
    if operation(node) in ("max", "min") and isinstance(argument(node, 1, "dim"), Node):
        return pointwise(propagation, node)
    shape = propagation.shape(node.args[0])
    axes = axes_of(argument(node, 1, "dim"), len(shape))
    gives_positions = operation(node) in ("max", "min") and not isinstance(
        node.meta["val"], torch.Tensor
    )
    if gives_positions and any(output.args[1] == 1 and output.users for output in node.users):
        propagation.fix([shape[i] for i in axes], node, "gives the number of a channel")
    return reduced(propagation, node, axes)


@rule("linalg_vector_norm", "logsumexp", "norm", "prod", "sum")
def total(propagation: Propagation, node: Node) -> Any:
    """Reductions that grow with the number of channels: channels that are added up stay."""
    shape = propagation.shape(node.args[0])
    position = 2 if operation(node) in ("linalg_vector_norm", "norm") else 1
    axes = axes_of(argument(node, position, "dim"), len(shape))
    propagation.fix([shape[i] for i in axes], node, "adds up channels")
    return reduced(propagation, node, axes)


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "cumprod", "flip", "roll")
def along_axes(propagation: Propagation, node: Node) -> Shape:
    """Operations along axes, whose channels all depend on each other or change positions."""
    shape = propagation.shape(node.args[0])
    position, name = {"roll": (2, "dims"), "flip": (1, "dims")}.get(operation(node), (1, "dim"))
    axes = axes_of(argument(node, position, name), len(shape))
    propagation.fix([shape[i] for i in axes], node, "mixes channels in their order")
    return shape


@rule(
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool2d_with_indices",
)
@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d")
@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
@rule(
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
)
@rule(
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa",
)
def spatial(propagation: Propagation, node: Node) -> Any:
    """Operations on what stands behind the channel axis."""
    shape = propagation.shape(node.args[0])
    (dimensions,) = re.findall(r"[123](?=d)", operation(node))
    if len(shape) != int(dimensions) + 2:  # a sample without a batch axis
        return None
    propagation.fix(shape[2:], node, "slides over channels")
    behind = propagation.constants(node)
    if isinstance(behind, list):
        return [(*shape[:2], *one[2:]) for one in behind]
    return (*shape[:2], *behind[2:])
