"""Layers with weights: convolutions, linear layers, matrix products, attention, normalization."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from inn_automl.integral.graph.axis import Axis
from inn_automl.integral.graph.propagation import (
    Propagation,
    Shape,
    WeightedLayer,
    argument,
    broadcast,
    rule,
)


def add_bias(propagation: Propagation, node: Node, source: Any, channels: Axis) -> None:
    if isinstance(source, Node):
        propagation.unify(propagation.shape(source)[-1], channels, node)


@rule("conv1d", "conv2d", "conv3d")
def convolution(propagation: Propagation, node: Node) -> Shape | None:
    data, weight = propagation.shape(node.args[0]), propagation.shape(node.args[1])
    groups = argument(node, 6, "groups", 1)
    variables = propagation.variables
    if len(data) != len(weight):  # a sample without a batch axis
        return None
    propagation.fix([*data[2:], *weight[2:]], node, "slides over channels")
    channels, out = data[1], weight[0]
    if groups == variables.size(channels) > 1:
        propagation.unify(variables.spread(channels, variables.size(out) // groups), out, node)
        propagation.conv_groups[propagation.module_path(node)] = channels
    else:
        propagation.chunk(out, groups, node)
        propagation.unify(propagation.chunk(channels, groups, node), weight[1], node)
        propagation.contract(node.args[1], 1, node)
    add_bias(propagation, node, argument(node, 2, "bias"), out)
    propagation.produce(
        node, node.args[1], out, "conv" if groups == 1 else "grouped_conv", weight[1:]
    )
    return (data[0], out, *propagation.constants(node)[2:])


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(propagation: Propagation, node: Node) -> Shape | None:
    data, weight = propagation.shape(node.args[0]), propagation.shape(node.args[1])
    groups = argument(node, 6, "groups", 1)
    variables = propagation.variables
    if len(data) != len(weight):
        return None
    propagation.fix([*data[2:], *weight[2:]], node, "slides over channels")
    channels = data[1]
    propagation.unify(channels, weight[0], node)
    if groups == variables.size(channels) > 1:
        propagation.fix([weight[1]], node, "makes a fixed number of channels of each")
        out = variables.spread(channels, variables.size(weight[1]))
        propagation.conv_groups[propagation.module_path(node)] = channels
    else:
        propagation.chunk(channels, groups, node)
        out = weight[1] * groups
        propagation.contract(node.args[1], 0, node)
    add_bias(propagation, node, argument(node, 2, "bias"), out)
    propagation.produce(node, node.args[1], out, "conv_transpose", weight[1:])
    return (data[0], out, *propagation.constants(node)[2:])


@rule("linear")
def linear(propagation: Propagation, node: Node) -> Shape:
    data, weight = propagation.shape(node.args[0]), propagation.shape(node.args[1])
    propagation.unify(data[-1], weight[1], node)
    propagation.contract(node.args[1], 1, node)
    add_bias(propagation, node, argument(node, 2, "bias"), weight[0])
    propagation.produce(node, node.args[1], weight[0], "linear", weight[1:])
    return (*data[:-1], weight[0])


@rule("addmm")
def addmm(propagation: Propagation, node: Node) -> Shape:
    bias, left, right = node.args[:3]
    add_bias(propagation, node, bias, propagation.shape(right)[1])
    return product(propagation, node, left, right)


@rule("matmul", "mm", "bmm")
def matmul(propagation: Propagation, node: Node) -> Shape | None:
    left, right = node.args[:2]
    if min(len(propagation.shape(left)), len(propagation.shape(right))) < 2:
        return None
    return product(propagation, node, left, right)


def product(propagation: Propagation, node: Node, left: Any, right: Any) -> Shape:
    """A matrix product (..., n, k) x (..., k, m)."""
    first, second = propagation.shape(left), propagation.shape(right)
    propagation.unify(first[-1], second[-2], node)
    propagation.contract(left, -1, node)
    propagation.contract(right, -2, node)
    batch = broadcast(propagation, node, [first[:-2], second[:-2]], propagation.sizes(node)[:-2])
    inner = (first[-1],)
    if right not in propagation.activations:
        propagation.produce(node, right, second[-1], "linear", inner)
    elif left not in propagation.activations:
        propagation.produce(node, left, first[-2], "linear", inner)
    else:
        propagation.layers.append(WeightedLayer(str(node.name), "matmul", node, inner))
    return (*batch, first[-2], second[-1])


@rule("scaled_dot_product_attention")
def attention(propagation: Propagation, node: Node) -> Shape:
    query, key, value = (propagation.shape(source) for source in node.args[:3])
    propagation.unify(query[-1], key[-1], node)
    propagation.unify(key[-2], value[-2], node)
    batch = broadcast(
        propagation, node, [query[:-2], key[:-2], value[:-2]], propagation.sizes(node)[:-2]
    )
    # of queries with keys, and of what they weigh with values
    products = propagation.variables.constant(2)
    propagation.layers.append(WeightedLayer(str(node.name), "attention", node, (key[-2], products)))
    return (*batch, query[-2], value[-1])


@rule("embedding")
def embedding(propagation: Propagation, node: Node) -> Shape:
    weight = propagation.shape(node.args[0])
    propagation.fix([weight[0]], node, "picks rows by their number")
    propagation.producers.append((propagation.name_of(node, node.args[0]), weight[1]))
    return (*propagation.shape(node.args[1]), weight[1])


@rule("batch_norm", "instance_norm")
def batch_norm(propagation: Propagation, node: Node) -> Shape:
    shape = propagation.shape(node.args[0])
    for source in node.args[1:5]:  # weight, bias, running mean and variance
        if isinstance(source, Node):
            propagation.unify(propagation.shape(source)[0], shape[1], node)
    return shape


@rule("layer_norm", "rms_norm")
def layer_norm(propagation: Propagation, node: Node) -> Shape:
    shape = propagation.shape(node.args[0])
    normalized = shape[-len(node.args[1]) :]  # type: ignore[arg-type]
    for source in node.args[2:4]:
        if isinstance(source, Node):
            for axis, own in zip(normalized, propagation.shape(source), strict=True):
                propagation.unify(axis, own, node)
    known = propagation.normalized_shapes.setdefault(propagation.module_path(node), normalized)
    for axis, own in zip(normalized, known, strict=True):
        propagation.unify(axis, own, node)
    return shape


@rule("group_norm")
def group_norm(propagation: Propagation, node: Node) -> Shape:
    shape, groups = propagation.shape(node.args[0]), node.args[1]
    propagation.chunk(shape[1], groups, node)  # type: ignore[arg-type]
    for source in node.args[2:4]:
        if isinstance(source, Node):
            propagation.unify(propagation.shape(source)[0], shape[1], node)
    return shape
