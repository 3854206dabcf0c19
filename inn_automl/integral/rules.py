"""How each tensor operation couples channel axes: one small rule an operation.

A rule receives the `Tracker` and the traced node, and returns the axes of the node's output. An operation without a
rule is not followed: every channel that reaches it stays at full width and is reported with the operation's name.

Operations are those of `torch.export`'s training graph (ATen before decomposition).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from inn_automl.integral.axis import Axis, Segment, Variables, merge_reshape

Shape = tuple[Axis, ...]
Rule = Callable[["Tracker", Node], Any]

RULES: dict[str, Rule] = {}


class Tracker:
    """What is known while a traced graph is followed from its inputs to its outputs."""

    def __init__(self, modules_of_parameters: dict[str, str]) -> None:
        self.variables = Variables()
        self.shapes: dict[Node, Any] = {}
        self.parameters: dict[Node, str] = {}
        self.contracted: dict[str, set[int]] = {}
        """Axes of a parameter that the layer sums over: the integral's inner variable."""
        self.producers: list[tuple[str, Axis]] = []
        """(module, channel axis) of every weighted layer's output."""
        self.conv_groups: dict[str, Axis] = {}
        """Input axis of convolutions with one group per channel, by the module that owns the weight."""
        self.layers: list[tuple[str, str, Node, tuple[Axis, ...]]] = []
        """(module, kind, node, axes whose sizes multiply to the multiply-accumulates per output element)."""
        self._modules_of_parameters = modules_of_parameters

    def shape(self, node: Any) -> Shape:
        return self.shapes[node]  # type: ignore[no-any-return]

    def sizes(self, node: Node) -> tuple[int, ...]:
        return tuple(int(s) for s in node.meta["val"].shape)

    def where(self, node: Node) -> str:
        """The operation and the module it stands in, for messages."""
        stack = node.meta.get("nn_module_stack") or {}
        paths = [path for path, _ in stack.values()]
        module = paths[-1] if paths and paths[-1] else "the module's own forward"
        return f"{operation(node)} in {module}"

    def constants(self, node: Node) -> Shape:
        return tuple(self.variables.constant(size) for size in self.sizes(node))

    def unify(self, left: Axis, right: Axis, node: Node) -> None:
        self.variables.unify(left, right, self.where(node))

    def fix(self, axes: Sequence[Axis], node: Node, why: str = "cannot be followed") -> None:
        self.variables.fix(axes, f"{self.where(node)} {why}")

    def contract(self, parameter: Any, axis: int) -> None:
        if parameter in self.parameters:
            self.contracted.setdefault(self.parameters[parameter], set()).add(axis)

    def module_of(self, parameter: Any) -> str:
        name = self.parameters.get(parameter, "")
        return self._modules_of_parameters.get(name, name)

    def produce(self, node: Node, weight: Any, axis: Axis, kind: str, macs_axes: Sequence[Axis]) -> None:
        """Notes a weighted layer, for names, units and costs."""
        module = self.module_of(weight)
        self.producers.append((module, axis))
        self.layers.append((module, kind, node, tuple(macs_axes)))

    def unfollowed(self, node: Node) -> Any:
        inputs = [axis for source in node.all_input_nodes for axis in flatten_shapes(self.shapes[source])]
        self.fix(inputs, node)
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            return self.constants(node)
        if isinstance(value, list | tuple):
            return [
                tuple(self.variables.constant(int(s)) for s in v.shape) if isinstance(v, torch.Tensor) else ()
                for v in value
            ]
        return ()


def flatten_shapes(shape: Any) -> list[Axis]:
    """The axes of a shape, or of a list of shapes (an operation with several outputs)."""
    if isinstance(shape, list):
        return [axis for one in shape for axis in one]
    return list(shape)


def operation(node: Node) -> str:
    """Name of the traced operation without its overload, e.g. `conv2d`."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target.name().removeprefix("aten::").split(".")[0]
    return str(getattr(target, "__name__", target))


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def follow(tracker: Tracker, node: Node) -> Any:
    """Axes of the node's output."""
    found = RULES.get(operation(node))
    if found is None and isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags:
        found = pointwise
    if found is None:
        return tracker.unfollowed(node)
    result = found(tracker, node)
    return tracker.unfollowed(node) if result is None else result


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name, default)


# Pointwise operations: every operand's axis is the output's axis, aligned from the right.


@rule("dropout", "dropout_", "feature_dropout", "contiguous", "clone", "detach", "detach_", "to", "_to_copy", "alias")
@rule("relu6", "relu_", "silu_", "lift_fresh_copy", "type_as", "float", "rrelu", "alpha_dropout", "hardtanh_", "selu")
@rule("zeros_like", "ones_like", "rand_like", "randn_like", "native_dropout")
def pointwise(tracker: Tracker, node: Node) -> Shape:
    sizes = tracker.sizes(node)
    out: list[Axis | None] = [None] * len(sizes)
    for source in node.all_input_nodes:
        shape = tracker.shape(source)
        for offset, axis in enumerate(reversed(shape), start=1):
            position = len(sizes) - offset
            if position < 0 or tracker.variables.size(axis) != sizes[position]:
                continue
            known = out[position]
            if known is None:
                out[position] = axis
            else:
                tracker.unify(known, axis, node)
    return tuple(axis or tracker.variables.constant(size) for axis, size in zip(out, sizes, strict=True))


@rule("prelu")
def prelu(tracker: Tracker, node: Node) -> Shape:
    shape, weight = tracker.shape(node.args[0]), tracker.shape(node.args[1])
    if tracker.variables.size(weight[0]) > 1:
        tracker.unify(shape[1], weight[0], node)
    return shape


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "flip", "roll", "glu_jvp")
def along_one_axis(tracker: Tracker, node: Node) -> Shape:
    shape = tracker.shape(node.args[0])
    dims = argument(node, 2 if operation(node) == "roll" else 1, "dim" if operation(node) != "flip" else "dims", [])
    for dim in dims if isinstance(dims, list | tuple) else [dims]:
        tracker.fix([shape[dim]], node, "depends on all channels at once")
    return shape


# Weighted layers.


@rule("conv1d", "conv2d", "conv3d", "convolution")
def convolution(tracker: Tracker, node: Node) -> Shape | None:
    if operation(node) == "convolution" and argument(node, 6, "transposed", False):
        return None
    data, weight = tracker.shape(node.args[0]), tracker.shape(node.args[1])
    groups = argument(node, 8 if operation(node) == "convolution" else 6, "groups", 1)
    variables = tracker.variables
    if len(data) != len(weight):  # an unbatched sample
        return None
    variables.fix(weight[2:], "")
    channels, out = data[1], weight[0]
    if groups == 1:
        tracker.unify(channels, weight[1], node)
        tracker.contract(node.args[1], 1)
    elif groups == variables.size(channels):
        multiplier = variables.size(out) // groups
        spread = tuple(Segment(s.var, s.outer, s.inner * multiplier) for s in variables.resolve(channels))
        tracker.unify(spread, out, node)
        variables.fix([weight[1]], "")
        tracker.conv_groups[tracker.module_of(node.args[1])] = channels
    else:
        part_in, part_out = variables.factor(channels, groups), variables.factor(out, groups)
        if part_in is None or part_out is None:
            tracker.fix([channels, out], node, f"has {groups} groups that its channels cannot be split into")
        else:
            tracker.unify(part_in, weight[1], node)
            tracker.contract(node.args[1], 1)
    bias(tracker, node, argument(node, 2, "bias"), out)
    tracker.produce(node, node.args[1], out, "conv" if groups == 1 else "grouped_conv", weight[1:])
    return (data[0], out, *(variables.constant(s) for s in tracker.sizes(node)[2:]))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(tracker: Tracker, node: Node) -> Shape | None:
    data, weight = tracker.shape(node.args[0]), tracker.shape(node.args[1])
    groups = argument(node, 6, "groups", 1)
    variables = tracker.variables
    if len(data) != len(weight):
        return None
    variables.fix(weight[2:], "")
    channels = data[1]
    tracker.unify(channels, weight[0], node)
    if groups == 1:
        out = weight[1]
    elif groups == variables.size(channels):
        multiplier = variables.size(weight[1])
        out = tuple(Segment(s.var, s.outer, s.inner * multiplier) for s in variables.resolve(channels))
        variables.fix([weight[1]], "")
        tracker.conv_groups[tracker.module_of(node.args[1])] = channels
    else:
        if variables.factor(channels, groups) is None:
            tracker.fix([channels], node, f"has {groups} groups that its channels cannot be split into")
        out = tuple(s for _ in range(groups) for s in variables.resolve(weight[1]))
    if groups != variables.size(channels) or groups == 1:
        tracker.contract(node.args[1], 0)
    bias(tracker, node, argument(node, 2, "bias"), out)
    # Per input element: every output channel of its group, at every tap. Counted per output element through `layers`.
    tracker.produce(node, node.args[1], out, "conv_transpose", weight[1:])
    return (data[0], out, *(variables.constant(s) for s in tracker.sizes(node)[2:]))


@rule("linear")
def linear(tracker: Tracker, node: Node) -> Shape:
    data, weight = tracker.shape(node.args[0]), tracker.shape(node.args[1])
    tracker.unify(data[-1], weight[1], node)
    tracker.contract(node.args[1], 1)
    bias(tracker, node, argument(node, 2, "bias"), weight[0])
    tracker.produce(node, node.args[1], weight[0], "linear", weight[1:])
    return (*data[:-1], weight[0])


@rule("matmul", "mm", "bmm")
def matmul(tracker: Tracker, node: Node) -> Shape | None:
    left, right = tracker.shape(node.args[0]), tracker.shape(node.args[1])
    if len(left) < 2 or len(right) < 2:
        return None
    tracker.unify(left[-1], right[-2], node)
    tracker.contract(node.args[0], len(left) - 1)
    tracker.contract(node.args[1], len(right) - 2)
    batch = max(left[:-2], right[:-2], key=len)
    for offset in range(1, min(len(left), len(right)) - 1):
        a, b = left[-2 - offset], right[-2 - offset]
        if tracker.variables.size(a) == tracker.variables.size(b):
            tracker.unify(a, b, node)
    if any(tracker.variables.size(axis) == 1 for axis in batch):
        batch = tuple(tracker.variables.constant(s) for s in tracker.sizes(node)[:-2])
    weight = node.args[1] if node.args[1] in tracker.parameters else node.args[0]
    if weight in tracker.parameters:
        tracker.produce(node, weight, right[-1], "linear", (left[-1],))
    else:
        tracker.layers.append(("", "matmul", node, (left[-1],)))
    return (*batch, left[-2], right[-1])


@rule("addmm")
def addmm(tracker: Tracker, node: Node) -> Shape:
    left, right = tracker.shape(node.args[1]), tracker.shape(node.args[2])
    tracker.unify(left[-1], right[0], node)
    tracker.contract(node.args[2], 0)
    bias(tracker, node, node.args[0], right[1])
    tracker.produce(node, node.args[2], right[1], "linear", (left[-1],))
    return (left[0], right[1])


@rule("scaled_dot_product_attention")
def attention(tracker: Tracker, node: Node) -> Shape:
    query, key, value = (tracker.shape(source) for source in node.args[:3])
    tracker.unify(query[-1], key[-1], node)
    for a, b in zip(query[:-2], key[:-2], strict=True):
        tracker.unify(a, b, node)
    for a, b in zip(query[:-2], value[:-2], strict=True):
        tracker.unify(a, b, node)
    tracker.layers.append(("", "attention", node, (key[-2], tracker.variables.constant(2))))
    return (*query[:-1], value[-1])


@rule("embedding")
def embedding(tracker: Tracker, node: Node) -> Shape:
    weight = tracker.shape(node.args[0])
    tracker.variables.fix([weight[0]], "")
    tracker.producers.append((tracker.module_of(node.args[0]), weight[1]))
    return (*tracker.shape(node.args[1]), weight[1])


def bias(tracker: Tracker, node: Node, source: Any, channels: Axis) -> None:
    if isinstance(source, Node):
        tracker.unify(tracker.shape(source)[-1], channels, node)


# Normalization.


@rule("batch_norm", "instance_norm")
def batch_norm(tracker: Tracker, node: Node) -> Shape:
    shape = tracker.shape(node.args[0])
    for source in node.args[1:5]:
        if isinstance(source, Node):
            tracker.unify(tracker.shape(source)[0], shape[1], node)
    return shape


@rule("layer_norm", "rms_norm")
def layer_norm(tracker: Tracker, node: Node) -> Shape:
    shape = tracker.shape(node.args[0])
    for source in node.args[2:4]:
        if isinstance(source, Node):
            for left, right in zip(reversed(shape), reversed(tracker.shape(source)), strict=False):
                tracker.unify(left, right, node)
    return shape


@rule("group_norm")
def group_norm(tracker: Tracker, node: Node) -> Shape:
    shape, groups = tracker.shape(node.args[0]), node.args[1]
    if tracker.variables.factor(shape[1], groups) is None:  # type: ignore[arg-type]
        tracker.fix([shape[1]], node, f"has {groups} groups that its channels cannot be split into")
    for source in node.args[2:4]:
        if isinstance(source, Node):
            tracker.unify(tracker.shape(source)[0], shape[1], node)
    return shape


# Reductions and pooling.


@rule("mean", "amax", "amin", "max", "var", "std")
def reduction(tracker: Tracker, node: Node) -> Any:
    shape = tracker.shape(node.args[0])
    if operation(node) == "max" and len(node.args) > 1 and isinstance(node.args[1], Node):
        return pointwise(tracker, node)
    dims = argument(node, 1, "dim")
    if operation(node) in ("var", "std") and not isinstance(dims, list | tuple | int):
        return None
    keep = bool(argument(node, 2, "keepdim", False)) if operation(node) not in ("var", "std") else None
    value = node.meta["val"]
    if keep is None:
        keep = isinstance(value, torch.Tensor) and value.dim() == len(shape)
    reduced = reduced_axes(dims, len(shape))
    out = tuple(
        tracker.variables.constant(1) if position in reduced else axis
        for position, axis in enumerate(shape)
        if keep or position not in reduced
    )
    return out if isinstance(value, torch.Tensor) else [out for _ in value]


@rule("sum", "linalg_vector_norm", "norm", "logsumexp")
def total(tracker: Tracker, node: Node) -> Shape:
    """A sum over channels grows with their number, so that channels that are summed up stay."""
    shape = tracker.shape(node.args[0])
    position = 2 if operation(node) in ("linalg_vector_norm", "norm") else 1
    reduced = reduced_axes(argument(node, position, "dim"), len(shape))
    tracker.fix([axis for i, axis in enumerate(shape) if i in reduced], node, "adds up channels")
    keep = len(tracker.sizes(node)) == len(shape)
    return tuple(
        tracker.variables.constant(1) if i in reduced else axis
        for i, axis in enumerate(shape)
        if keep or i not in reduced
    )


def reduced_axes(dims: Any, rank: int) -> set[int]:
    if dims is None or dims == []:
        return set(range(rank))
    return {dim % rank for dim in (dims if isinstance(dims, list | tuple) else [dims])}


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d")
@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool2d_with_indices")
@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d")
@rule("upsample_bicubic2d", "upsample_trilinear3d", "lp_pool2d", "max_pool1d_with_indices", "unfold")
def spatial(tracker: Tracker, node: Node) -> Any:
    """Operations that act on what stands behind the channel axis only."""
    if operation(node) == "unfold":
        return None
    shape = tracker.shape(node.args[0])
    value = node.meta["val"]
    if isinstance(value, torch.Tensor):
        return (*shape[:2], *(tracker.variables.constant(s) for s in tracker.sizes(node)[2:]))
    return [(*shape[:2], *(tracker.variables.constant(int(s)) for s in v.shape[2:])) for v in value]


@rule("pixel_shuffle")
def pixel_shuffle(tracker: Tracker, node: Node) -> Shape | None:
    shape, factor = tracker.shape(node.args[0]), int(node.args[1]) ** 2  # type: ignore[arg-type]
    if len(shape) != 4:
        return None
    channels = tracker.variables.new(tracker.variables.size(shape[1]) // factor)
    tracker.unify(tuple(Segment(s.var, s.outer, s.inner * factor) for s in channels), shape[1], node)
    return (shape[0], channels, *(tracker.variables.constant(s) for s in tracker.sizes(node)[2:]))


@rule("pad", "constant_pad_nd")
def pad(tracker: Tracker, node: Node) -> Shape:
    shape = tracker.shape(node.args[0])
    sizes = tracker.sizes(node)
    changed = [i for i, axis in enumerate(shape) if tracker.variables.size(axis) != sizes[i]]
    tracker.fix([shape[i] for i in changed], node, "changes the number of channels by a constant")
    return tuple(tracker.variables.constant(sizes[i]) if i in changed else axis for i, axis in enumerate(shape))


# Axes that are joined, cut and rearranged.


@rule("cat", "concat", "concatenate")
def concatenate(tracker: Tracker, node: Node) -> Shape:
    shapes = [tracker.shape(source) for source in node.args[0]]  # type: ignore[union-attr]
    rank = len(shapes[0])
    dim = argument(node, 1, "dim", 0) % rank
    for other in shapes[1:]:
        for position in range(rank):
            if position != dim:
                tracker.unify(shapes[0][position], other[position], node)
    joined = tuple(segment for shape in shapes for segment in shape[dim])
    return tuple(joined if position == dim else axis for position, axis in enumerate(shapes[0]))


@rule("stack")
def stack(tracker: Tracker, node: Node) -> Shape:
    shapes = [tracker.shape(source) for source in node.args[0]]  # type: ignore[union-attr]
    for other in shapes[1:]:
        for a, b in zip(shapes[0], other, strict=True):
            tracker.unify(a, b, node)
    dim = argument(node, 1, "dim", 0) % (len(shapes[0]) + 1)
    return (*shapes[0][:dim], tracker.variables.constant(len(shapes)), *shapes[0][dim:])


@rule("chunk", "split", "split_with_sizes", "tensor_split")
def cut(tracker: Tracker, node: Node) -> list[Shape] | None:
    shape = tracker.shape(node.args[0])
    dim = argument(node, 2, "dim", 0) % len(shape)
    sizes = [int(value.shape[dim]) for value in node.meta["val"]]
    if operation(node) == "chunk" and len(set(sizes)) == 1:
        part = tracker.variables.factor(shape[dim], len(sizes))
        if part is None:
            return None
        parts = [part] * len(sizes)
    else:
        parts = [tracker.variables.new(size) for size in sizes]
        tracker.unify(tuple(segment for part in parts for segment in part), shape[dim], node)
    return [tuple(part if i == dim else axis for i, axis in enumerate(shape)) for part in parts]


@rule("unbind")
def unbind(tracker: Tracker, node: Node) -> list[Shape]:
    shape = tracker.shape(node.args[0])
    dim = argument(node, 1, "dim", 0) % len(shape)
    tracker.fix([shape[dim]], node, "takes every channel apart")
    return [tuple(axis for i, axis in enumerate(shape) if i != dim) for _ in node.meta["val"]]


@rule("getitem")
def getitem(tracker: Tracker, node: Node) -> Shape | None:
    shapes = tracker.shapes[node.args[0]]
    return shapes[node.args[1]] if isinstance(shapes, list) else None  # type: ignore[no-any-return]


@rule("slice", "select", "narrow", "index_select", "topk", "sort")
def part_of_axis(tracker: Tracker, node: Node) -> Any:
    if operation(node) in ("topk", "sort"):
        return None
    shape = tracker.shape(node.args[0])
    dim = argument(node, 1, "dim", 0) % len(shape)
    sizes = tracker.sizes(node)
    whole = len(sizes) == len(shape) and sizes[dim] == tracker.variables.size(shape[dim])
    if whole and operation(node) == "slice":
        return shape
    tracker.fix([shape[dim]], node, "picks channels by their number")
    if operation(node) == "select":
        return tuple(axis for i, axis in enumerate(shape) if i != dim)
    return tuple(tracker.variables.constant(sizes[dim]) if i == dim else axis for i, axis in enumerate(shape))


@rule("permute")
def permute(tracker: Tracker, node: Node) -> Shape:
    shape = tracker.shape(node.args[0])
    return tuple(shape[dim] for dim in node.args[1])  # type: ignore[union-attr,index,misc]


@rule("transpose", "swapaxes", "t", "numpy_T")
def transpose(tracker: Tracker, node: Node) -> Shape:
    shape = list(tracker.shape(node.args[0]))
    if operation(node) in ("t", "numpy_T"):
        return tuple(reversed(shape))
    a, b = node.args[1], node.args[2]
    shape[a], shape[b] = shape[b], shape[a]  # type: ignore[index]
    return tuple(shape)


@rule("movedim")
def movedim(tracker: Tracker, node: Node) -> Shape:
    shape = tracker.shape(node.args[0])
    order = torch.movedim(torch.empty([0] * len(shape)).new_zeros(list(range(2, len(shape) + 2))), *node.args[1:])  # type: ignore[arg-type]
    return tuple(shape[size - 2] for size in order.shape)


@rule("expand", "expand_as", "broadcast_to")
def expand(tracker: Tracker, node: Node) -> Shape:
    shape, sizes = tracker.shape(node.args[0]), tracker.sizes(node)
    lead = len(sizes) - len(shape)
    kept = [None] * lead + list(shape)
    out: list[Axis] = []
    for axis, size in zip(kept, sizes, strict=True):
        same = axis is not None and tracker.variables.size(axis) == size
        out.append(axis if same and axis is not None else tracker.variables.constant(size))
    if operation(node) == "expand_as":
        for position, (a, b) in enumerate(zip(out, tracker.shape(node.args[1]), strict=True)):
            source = kept[position]
            if source is not None and tracker.variables.size(source) == tracker.variables.size(b):
                tracker.unify(a, b, node)
            else:
                out[position] = b
    return tuple(out)


@rule("flatten", "view", "reshape", "_unsafe_view", "unflatten", "squeeze", "unsqueeze", "view_as", "ravel")
def reshape(tracker: Tracker, node: Node) -> Shape | None:
    shape = tracker.shape(node.args[0])
    variables = tracker.variables
    before, after = [variables.size(axis) for axis in shape], list(tracker.sizes(node))
    out: list[Axis] = [variables.constant(1)] * len(after)
    big_before = [i for i, size in enumerate(before) if size != 1]
    big_after = [i for i, size in enumerate(after) if size != 1]
    for left, right in merge_reshape([before[i] for i in big_before], [after[i] for i in big_after]):
        sources, targets = [shape[big_before[i]] for i in left], [big_after[i] for i in right]
        flat = flatten_axes(variables, sources)
        if flat is None:
            tracker.fix(sources, node, "mixes axes in an order that cannot be followed")
            flat = variables.constant(math.prod(before[big_before[i]] for i in left))
        parts = unflatten_axis(variables, flat, [after[i] for i in targets])
        if parts is None:
            tracker.fix(sources, node, "splits channels in a way that cannot be followed")
            parts = [variables.constant(after[i]) for i in targets]
        for position, part in zip(targets, parts, strict=True):
            out[position] = part
    return tuple(out)


def flatten_axes(variables: Variables, axes: Sequence[Axis]) -> Axis | None:
    """One axis of several, in row-major order. At most one of them may be resizable."""
    free = [i for i, axis in enumerate(axes) if variables.is_free(axis)]
    if len(free) > 1:
        return None
    if not free:
        return axes[0] if len(axes) == 1 else variables.constant(math.prod(variables.size(axis) for axis in axes))
    before = math.prod(variables.size(axis) for axis in axes[: free[0]])
    behind = math.prod(variables.size(axis) for axis in axes[free[0] + 1 :])
    channel = variables.resolve(axes[free[0]])
    spread = tuple(Segment(s.var, s.outer, s.inner * behind) for s in channel)
    if before == 1:
        return spread
    if len(spread) == 1:
        return (Segment(spread[0].var, spread[0].outer * before, spread[0].inner),)
    return None


def unflatten_axis(variables: Variables, axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
    """The axes that a row-major split of one axis gives. The resizable part goes where its repeats allow it."""
    if len(sizes) == 1:
        return [axis]
    resolved = variables.resolve(axis)
    if not variables.is_free(resolved):
        return [variables.constant(size) for size in sizes]
    if len(resolved) > 1:
        part = variables.factor(resolved, sizes[0])
        rest = unflatten_axis(variables, part, sizes[1:]) if part is not None else None
        return None if rest is None else [variables.constant(sizes[0]), *rest]
    segment = resolved[0]
    # Trailing axes that lie inside of the segment's inner part are constant.
    behind, inner = len(sizes), 1
    while behind > 1 and segment.inner % (inner * sizes[behind - 1]) == 0:
        behind -= 1
        inner *= sizes[behind]
    lead = math.prod(sizes[: behind - 1])
    # What stands in front of the remaining axis is a fixed number of parts (heads, groups).
    part = variables.factor((Segment(segment.var, segment.outer, segment.inner // inner),), lead)
    if part is None:
        return None
    return [
        *(variables.constant(size) for size in sizes[: behind - 1]),
        part,
        *(variables.constant(size) for size in sizes[behind:]),
    ]


@rule("sym_size", "sym_numel", "arange", "zeros", "ones", "full", "empty", "scalar_tensor", "tensor", "rand", "randn")
def fresh(tracker: Tracker, node: Node) -> Shape:
    return tracker.constants(node) if isinstance(node.meta.get("val"), torch.Tensor) else ()
