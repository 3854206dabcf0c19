"""Layers with weights: convolutions, linear layers, matrix products, attention, normalization."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from inn_automl.integral.graph.axis import Axis
from inn_automl.integral.graph.propagation import (
    Shape,
    Tracker,
    WeightedLayer,
    argument,
    broadcast,
    rule,
)


def add_bias(tracker: Tracker, node: Node, source: Any, channels: Axis) -> None:
    if isinstance(source, Node):
        tracker.unify(tracker.shape(source)[-1], channels, node)


@rule("conv1d", "conv2d", "conv3d")
def convolution(tracker: Tracker, node: Node) -> Shape | None:
    data, weight = tracker.shape(node.args[0]), tracker.shape(node.args[1])
    groups = argument(node, 6, "groups", 1)
    variables = tracker.variables
    if len(data) != len(weight):  # a sample without a batch axis
        return None
    tracker.fix([*data[2:], *weight[2:]], node, "slides over channels")
    channels, out = data[1], weight[0]
    if groups == variables.size(channels) > 1:
        tracker.unify(variables.spread(channels, variables.size(out) // groups), out, node)
        tracker.conv_groups[tracker.module_path(node)] = channels
    else:
        tracker.part(out, groups, node)
        tracker.unify(tracker.part(channels, groups, node), weight[1], node)
        tracker.contract(node.args[1], 1, node)
    add_bias(tracker, node, argument(node, 2, "bias"), out)
    tracker.produce(node, node.args[1], out, "conv" if groups == 1 else "grouped_conv", weight[1:])
    return (data[0], out, *tracker.constants(node)[2:])


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(tracker: Tracker, node: Node) -> Shape | None:
    data, weight = tracker.shape(node.args[0]), tracker.shape(node.args[1])
    groups = argument(node, 6, "groups", 1)
    variables = tracker.variables
    if len(data) != len(weight):
        return None
    tracker.fix([*data[2:], *weight[2:]], node, "slides over channels")
    channels = data[1]
    tracker.unify(channels, weight[0], node)
    if groups == variables.size(channels) > 1:
        tracker.fix([weight[1]], node, "makes a fixed number of channels of each")
        out = variables.spread(channels, variables.size(weight[1]))
        tracker.conv_groups[tracker.module_path(node)] = channels
    else:
        tracker.part(channels, groups, node)
        out = weight[1] * groups
        tracker.contract(node.args[1], 0, node)
    add_bias(tracker, node, argument(node, 2, "bias"), out)
    tracker.produce(node, node.args[1], out, "conv_transpose", weight[1:])
    return (data[0], out, *tracker.constants(node)[2:])


@rule("linear")
def linear(tracker: Tracker, node: Node) -> Shape:
    data, weight = tracker.shape(node.args[0]), tracker.shape(node.args[1])
    tracker.unify(data[-1], weight[1], node)
    tracker.contract(node.args[1], 1, node)
    add_bias(tracker, node, argument(node, 2, "bias"), weight[0])
    tracker.produce(node, node.args[1], weight[0], "linear", weight[1:])
    return (*data[:-1], weight[0])


@rule("addmm")
def addmm(tracker: Tracker, node: Node) -> Shape:
    bias, left, right = node.args[:3]
    add_bias(tracker, node, bias, tracker.shape(right)[1])
    return product(tracker, node, left, right)


@rule("matmul", "mm", "bmm")
def matmul(tracker: Tracker, node: Node) -> Shape | None:
    left, right = node.args[:2]
    if min(len(tracker.shape(left)), len(tracker.shape(right))) < 2:
        return None
    return product(tracker, node, left, right)


def product(tracker: Tracker, node: Node, left: Any, right: Any) -> Shape:
    """A matrix product (..., n, k) x (..., k, m)."""
    first, second = tracker.shape(left), tracker.shape(right)
    tracker.unify(first[-1], second[-2], node)
    tracker.contract(left, -1, node)
    tracker.contract(right, -2, node)
    batch = broadcast(tracker, node, [first[:-2], second[:-2]], tracker.sizes(node)[:-2])
    inner = (first[-1],)
    if right not in tracker.activations:
        tracker.produce(node, right, second[-1], "linear", inner)
    elif left not in tracker.activations:
        tracker.produce(node, left, first[-2], "linear", inner)
    else:
        tracker.layers.append(WeightedLayer(str(node.name), "matmul", node, inner))
    return (*batch, first[-2], second[-1])


@rule("scaled_dot_product_attention")
def attention(tracker: Tracker, node: Node) -> Shape:
    query, key, value = (tracker.shape(source) for source in node.args[:3])
    tracker.unify(query[-1], key[-1], node)
    tracker.unify(key[-2], value[-2], node)
    batch = broadcast(tracker, node, [query[:-2], key[:-2], value[:-2]], tracker.sizes(node)[:-2])
    # of queries with keys, and of what they weigh with values
    products = tracker.variables.constant(2)
    tracker.layers.append(WeightedLayer(str(node.name), "attention", node, (key[-2], products)))
    return (*batch, query[-2], value[-1])


@rule("embedding")
def embedding(tracker: Tracker, node: Node) -> Shape:
    weight = tracker.shape(node.args[0])
    tracker.fix([weight[0]], node, "picks rows by their number")
    tracker.producers.append((tracker.name_of(node, node.args[0]), weight[1]))
    return (*tracker.shape(node.args[1]), weight[1])


@rule("batch_norm", "instance_norm")
def batch_norm(tracker: Tracker, node: Node) -> Shape:
    shape = tracker.shape(node.args[0])
    for source in node.args[1:5]:  # weight, bias, running mean and variance
        if isinstance(source, Node):
            tracker.unify(tracker.shape(source)[0], shape[1], node)
    return shape


@rule("layer_norm", "rms_norm")
def layer_norm(tracker: Tracker, node: Node) -> Shape:
    shape = tracker.shape(node.args[0])
    normalized = shape[-len(node.args[1]) :]  # type: ignore[arg-type]
    for source in node.args[2:4]:
        if isinstance(source, Node):
            for axis, own in zip(normalized, tracker.shape(source), strict=True):
                tracker.unify(axis, own, node)
    known = tracker.normalized_shapes.setdefault(tracker.module_path(node), normalized)
    for axis, own in zip(normalized, known, strict=True):
        tracker.unify(axis, own, node)
    return shape


@rule("group_norm")
def group_norm(tracker: Tracker, node: Node) -> Shape:
    shape, groups = tracker.shape(node.args[0]), node.args[1]
    tracker.part(shape[1], groups, node)  # type: ignore[arg-type]
    for source in node.args[2:4]:
        if isinstance(source, Node):
            tracker.unify(tracker.shape(source)[0], shape[1], node)
    return shape
