"""Operations on each element by itself: every operand's axis is the output's axis, aligned from
the right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from inn_automl.integral.graph.propagation import Propagation, Shape, broadcast, rule


# What torch tags as pointwise, and what it forgot to tag.
@rule("pointwise", "hardswish", "hardswish_", "log_sigmoid", "where", "masked_fill", "masked_fill_")
@rule("copy_", "fill_", "zero_")
def pointwise(propagation: Propagation, node: Node) -> Shape:
    return broadcast(
        propagation,
        node,
        [propagation.shape(source) for source in node.all_input_nodes],
        propagation.sizes(node),
    )


@rule(
    "alias",
    "clone",
    "contiguous",
    "detach",
    "detach_",
    "lift_fresh_copy",
    "to",
    "_to_copy",
    "type_as",
)
@rule(
    "dropout",
    "dropout_",
    "feature_dropout",
    "feature_dropout_",
    "alpha_dropout",
    "feature_alpha_dropout",
)
@rule("empty_like", "full_like", "ones_like", "rand_like", "randn_like", "zeros_like")
def same(propagation: Propagation, node: Node) -> Shape:
    """The first operand gives the shape; others do not meet it."""
    return propagation.shape(node.args[0])


@rule("prelu")
def prelu(propagation: Propagation, node: Node) -> Shape:
    shape, weight = propagation.shape(node.args[0]), propagation.shape(node.args[1])
    if propagation.variables.size(weight[0]) > 1:
        propagation.unify(shape[1], weight[0], node)
    return shape


@rule(
    "arange",
    "empty",
    "eye",
    "full",
    "linspace",
    "ones",
    "rand",
    "randn",
    "scalar_tensor",
    "tensor",
    "zeros",
)
@rule("new_empty", "new_full", "new_ones", "new_zeros", "sym_size", "sym_numel")
def fresh(propagation: Propagation, node: Node) -> Any:
    """Tensors made from sizes alone."""
    return propagation.constants(node) if isinstance(node.meta.get("val"), torch.Tensor) else ()


@rule(
    "_assert_async",
    "_assert_scalar",
    "_assert_tensor_metadata",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
)
def check(propagation: Propagation, node: Node) -> Shape:
    """Checks that the tracer wrote down; they change nothing."""
    return ()
