"""Operations that join, cut, repeat and rearrange axes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from inn_automl.integral.graph.axis import Axis, merge_reshape
from inn_automl.integral.graph.propagation import Propagation, Shape, argument, operation, rule


@rule("cat", "concat", "concatenate")
def concatenate(propagation: Propagation, node: Node) -> Shape:
    shapes = [propagation.shape(source) for source in node.args[0]]  # type: ignore[union-attr]
    first, *others = shapes
    dim = argument(node, 1, "dim", 0) % len(first)
    for other in others:
        for position, (a, b) in enumerate(zip(first, other, strict=True)):
            if position != dim:
                propagation.unify(a, b, node)
    joined = tuple(segment for shape in shapes for segment in shape[dim])
    return (*first[:dim], joined, *first[dim + 1 :])


@rule("stack")
def stack(propagation: Propagation, node: Node) -> Shape:
    shapes = [propagation.shape(source) for source in node.args[0]]  # type: ignore[union-attr]
    first, *others = shapes
    for other in others:
        for a, b in zip(first, other, strict=True):
            propagation.unify(a, b, node)
    dim = argument(node, 1, "dim", 0) % (len(first) + 1)
    return (*first[:dim], propagation.variables.constant(len(shapes)), *first[dim:])


@rule("chunk", "split", "split_with_sizes", "tensor_split")
def cut(propagation: Propagation, node: Node) -> list[Shape]:
    """Pieces of one size are taken to be a fraction of the channels each: they stay of one size."""
    shape = propagation.shape(node.args[0])
    dim = argument(node, 2, "dim", 0) % len(shape)
    sizes = [int(value.shape[dim]) for value in node.meta["val"]]
    if len(set(sizes)) == 1:
        pieces = [propagation.chunk(shape[dim], len(sizes), node)] * len(sizes)
    else:
        pieces = [propagation.variables.new(size) for size in sizes]
        propagation.unify(tuple(segment for piece in pieces for segment in piece), shape[dim], node)
    return [(*shape[:dim], piece, *shape[dim + 1 :]) for piece in pieces]


@rule("glu")
def gate(propagation: Propagation, node: Node) -> Shape:
    shape = propagation.shape(node.args[0])
    dim = argument(node, 1, "dim", -1) % len(shape)
    return (*shape[:dim], propagation.chunk(shape[dim], 2, node), *shape[dim + 1 :])


@rule("unbind")
def unbind(propagation: Propagation, node: Node) -> list[Shape]:
    shape = propagation.shape(node.args[0])
    dim = argument(node, 1, "dim", 0) % len(shape)
    propagation.fix([shape[dim]], node, "takes every channel apart")
    return [(*shape[:dim], *shape[dim + 1 :]) for _ in node.meta["val"]]


@rule("getitem")
def getitem(propagation: Propagation, node: Node) -> Any:
    return propagation.shapes[node.args[0]][node.args[1]]  # type: ignore[index]


@rule("slice", "select", "narrow", "index_select")
def part_of_axis(propagation: Propagation, node: Node) -> Shape:
    shape = propagation.shape(node.args[0])
    dim = argument(node, 1, "dim", 0) % len(shape)
    constants = propagation.constants(node)
    if operation(node) == "slice" and propagation.variables.size(
        shape[dim]
    ) == propagation.variables.size(constants[dim]):
        return shape
    propagation.fix([shape[dim]], node, "picks channels by their number")
    remaining = () if operation(node) == "select" else (constants[dim],)
    return (*shape[:dim], *remaining, *shape[dim + 1 :])


@rule("permute")
def permute(propagation: Propagation, node: Node) -> Shape:
    shape = propagation.shape(node.args[0])
    return tuple(shape[dim] for dim in node.args[1])  # type: ignore[union-attr,index]


@rule("transpose", "swapaxes", "t", "numpy_T", "mT")
def transpose(propagation: Propagation, node: Node) -> Shape:
    shape = list(propagation.shape(node.args[0]))
    if operation(node) in ("t", "numpy_T"):
        return tuple(reversed(shape))
    a, b = (-1, -2) if operation(node) == "mT" else node.args[1:3]
    shape[a], shape[b] = shape[b], shape[a]  # type: ignore[index]
    return tuple(shape)


@rule("movedim", "moveaxis")
def movedim(propagation: Propagation, node: Node) -> Shape:
    shape = propagation.shape(node.args[0])
    # An empty tensor whose axes tell their positions by their sizes.
    source, target = node.args[1:3]
    empty = torch.empty(tuple(range(len(shape))))
    order = torch.movedim(empty, source, target)  # type: ignore[arg-type]
    return tuple(shape[size] for size in order.shape)


@rule("expand", "expand_as", "broadcast_to")
def expand(propagation: Propagation, node: Node) -> Shape:
    """New axes and those that grow from one element are constant, or those of the tensor that
    gives the shape.
    """
    sizes = propagation.sizes(node)
    given = propagation.shape(node.args[0])
    out = list(
        propagation.shape(node.args[1])
        if operation(node) == "expand_as"
        else propagation.constants(node)
    )
    for position, axis in enumerate(given, start=len(sizes) - len(given)):
        if propagation.variables.size(axis) == sizes[position]:
            if operation(node) == "expand_as":
                propagation.unify(axis, out[position], node)
            out[position] = axis
    return tuple(out)


@rule("repeat", "tile")
def repeat(propagation: Propagation, node: Node) -> Shape:
    shape, sizes = propagation.shape(node.args[0]), propagation.sizes(node)
    new = len(sizes) - len(shape)
    behind = [
        axis * (size // propagation.variables.size(axis))
        for axis, size in zip(shape, sizes[new:], strict=True)
    ]
    return (*propagation.constants(node)[:new], *behind)


@rule("repeat_interleave")
def repeat_interleave(propagation: Propagation, node: Node) -> Shape | None:
    shape, times, dim = propagation.shape(node.args[0]), node.args[1], argument(node, 2, "dim")
    if not isinstance(times, int) or dim is None:
        return None
    return (
        *shape[:dim],
        propagation.variables.spread(shape[dim], times),
        *shape[dim % len(shape) + 1 :],
    )


@rule("pad", "constant_pad_nd")
def pad(propagation: Propagation, node: Node) -> Shape:
    shape, out = propagation.shape(node.args[0]), list(propagation.constants(node))
    pads: Any = node.args[1]
    padded = {len(shape) - 1 - i // 2 for i, amount in enumerate(pads) if amount}
    propagation.fix(
        [shape[i] for i in padded], node, "changes the number of channels by a constant"
    )
    return tuple(out[i] if i in padded else axis for i, axis in enumerate(shape))


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(propagation: Propagation, node: Node) -> Shape | None:
    """Blocks of r x r channels become r x r pixels of one channel, or the other way."""
    shape = propagation.shape(node.args[0])
    factor = int(node.args[1]) ** 2  # type: ignore[arg-type]
    if len(shape) != 4:
        return None
    propagation.fix(shape[2:], node, "rearranges pixels")
    if operation(node) == "pixel_unshuffle":
        channels = propagation.variables.spread(shape[1], factor)
    else:
        channels = propagation.variables.new(propagation.variables.size(shape[1]) // factor)
        propagation.unify(propagation.variables.spread(channels, factor), shape[1], node)
    return (shape[0], channels, *propagation.constants(node)[2:])


@rule("channel_shuffle")
def channel_shuffle(propagation: Propagation, node: Node) -> Shape:
    shape, groups = propagation.shape(node.args[0]), int(node.args[1])  # type: ignore[arg-type]
    part = propagation.chunk(shape[1], groups, node)
    return (shape[0], propagation.variables.spread(part, groups), *shape[2:])


@rule(
    "flatten",
    "ravel",
    "reshape",
    "squeeze",
    "unflatten",
    "unsqueeze",
    "view",
    "view_as",
    "_unsafe_view",
)
def reshape(propagation: Propagation, node: Node) -> Shape | None:
    """Axes keep their order in memory: the smallest runs of them with equal products hold the same
    elements.
    """
    shape, variables = propagation.shape(node.args[0]), propagation.variables
    before, after = [variables.size(axis) for axis in shape], propagation.sizes(node)
    if math.prod(before) != math.prod(after) or 0 in after:  # a view as another type
        return None
    out: list[Axis] = [variables.constant(1) for _ in after]
    remaining = _remaining(propagation, node)
    old = [i for i, size in enumerate(before) if size != 1]
    new = [i for i, size in enumerate(after) if size != 1]
    for left, right in merge_reshape([before[i] for i in old], [after[i] for i in new]):
        sources, targets = [shape[old[i]] for i in left], [new[i] for i in right]
        flat = variables.flatten(sources)
        if flat is None:
            propagation.fix(sources, node, "mixes axes in an order that cannot be traced through")
            flat = variables.constant(
                math.prod(before[old[i]] for i in left), variables.reason(sources)
            )
        given = targets.index(remaining) if remaining in targets else None
        parts = variables.unflatten(
            flat, [after[i] for i in targets], propagation.where(node), given
        )
        for position, part in zip(targets, parts, strict=True):
            out[position] = part
    return tuple(out)


def _remaining(propagation: Propagation, node: Node) -> int | None:
    """The axis of a reshape's output whose size is given as -1, "what remains"; None if there is
    none.
    """
    first, sizes = 0, argument(node, 1, "size")
    if operation(node) == "unflatten":
        dim, sizes = argument(node, 1, "dim"), argument(node, 2, "sizes")
        first = dim % len(propagation.shape(node.args[0]))
    return first + sizes.index(-1) if isinstance(sizes, list | tuple) and -1 in sizes else None
