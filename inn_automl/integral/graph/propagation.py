"""Propagation of channel axes through a traced graph, from its inputs to its outputs.

`rules` holds one small rule an operation: it receives the `Propagation` and the traced node, and
returns the axes of the node's output. An operation without a rule freezes every channel that
reaches it: they stay at full width and are reported with the operation's name.

Operations are those of `torch.export`'s training graph (ATen before decomposition).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from inn_automl.integral.graph.axis import Axis, Variables

Shape = tuple[Axis, ...]
PropagationRule = Callable[["Propagation", Node], Any]

PROPAGATION_RULES: dict[str, PropagationRule] = {}


class Weight(NamedTuple):
    """A parameter, or a view of it that only rearranges its axes.

    `axes` says for each axis of the tensor which axis of the parameter it is.
    """

    name: str
    axes: tuple[int, ...]


class WeightedLayer(NamedTuple):
    """A layer that multiplies and accumulates.

    A layer does, per output element (or per input element for a transposed convolution), as many
    multiply-accumulates as the product of the sizes of `macs_axes`.
    """

    name: str
    kind: str
    node: Node
    macs_axes: tuple[Axis, ...]


class Propagation:
    """Axes of every traced tensor, and further properties that the rules record.

    Args:
        labels: name of the layer of each parameter or buffer, by the tensor's name.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.variables = Variables()
        self.shapes: dict[Node, Any] = {}
        self.parameters: dict[str, Node] = {}
        """The traced input of each parameter and buffer."""
        self.weights: dict[Node, Weight] = {}
        self.computed_weights: set[Node] = set()
        """Tensors that are computed from parameters or buffers alone."""
        self.activations: set[Node] = set()
        """The network's input and everything that is computed from it."""
        self.contracted: dict[tuple[Node, Node], set[int]] = {}
        """Axes of a parameter that a layer (the second node) sums over: the integral's inner
        variable.
        """
        self.producers: list[tuple[str, Axis]] = []
        """(layer, channel axis) of every weighted layer's output, in running order."""
        self.layers: list[WeightedLayer] = []
        self.conv_groups: dict[str, Axis] = {}
        """Input channels of convolutions with one group per channel, by module."""
        self.normalized_shapes: dict[str, Shape] = {}
        """Axes that a layer norm averages over, by the module that runs it."""
        self.frozen_weights: dict[str, tuple[int, str]] = {}
        """Layers whose weights reach an operation without a rule: their largest axis, and the
        reason.
        """
        self._labels = labels

    def shape(self, node: Any) -> Shape:
        return self.shapes[node]

    def sizes(self, node: Node) -> tuple[int, ...]:
        return tuple(int(size) for size in node.meta["val"].shape)

    def module_path(self, node: Node) -> str:
        """The innermost module that runs the node; empty for the traced module itself."""
        stack = node.meta.get("nn_module_stack") or {}
        return [path for path, _ in stack.values()][-1] if stack else ""

    def where(self, node: Node) -> str:
        """The operation and the module it stands in, for messages."""
        place = self.module_path(node) or "the module's own forward"
        return f"{operation(node)} in {place}"

    def constants(self, node: Node, reason: str = "") -> Any:
        """Constant axes for the node's output, or for each of its outputs."""

        def of(value: Any) -> Shape:
            if not isinstance(value, torch.Tensor):
                return ()
            return tuple(self.variables.constant(int(size), reason) for size in value.shape)

        value = node.meta.get("val")
        return [of(one) for one in value] if isinstance(value, list | tuple) else of(value)

    def unify(self, left: Axis, right: Axis, node: Node) -> None:
        self.variables.unify(left, right, self.where(node))

    def chunk(self, axis: Axis, count: int, node: Node) -> Axis:
        return self.variables.chunk(axis, count, self.where(node))

    def fix(self, axes: Sequence[Axis], node: Node, why: str = "cannot be traced through") -> None:
        self.variables.fix(axes, f"{self.where(node)} {why}")

    def contract(self, source: Any, axis: int, node: Node) -> None:
        """Notes that the node sums over an axis of a tensor; nothing is weighted if that tensor is
        an activation.
        """
        if source in self.weights:
            weight = self.weights[source]
            self.contracted.setdefault((source, node), set()).add(weight.axes[axis])
        elif source in self.computed_weights:
            self.fix(
                [self.shape(source)[axis]],
                node,
                "sums over channels of weights that are computed from others",
            )

    def name_of(self, node: Node, weight: Any) -> str:
        """Name of a weighted layer: that of its weight's layer, or where it runs if the weight is
        computed.
        """
        if weight in self.weights:
            return self._labels[self.weights[weight].name]
        return self.module_path(node) or str(node.name)

    def produce(
        self, node: Node, weight: Any, axis: Axis, kind: str, macs_axes: Sequence[Axis]
    ) -> None:
        """Notes a weighted layer, for names, units and costs."""
        name = self.name_of(node, weight)
        self.producers.append((name, axis))
        self.layers.append(WeightedLayer(name, kind, node, tuple(macs_axes)))

    def freeze(self, node: Node) -> Any:
        """Fixes whatever reaches a node; its outputs are constant."""
        reason = f"{self.where(node)} cannot be traced through"
        for source in node.all_input_nodes:
            axes = flatten_shapes(self.shapes[source])
            if source in self.weights and axes:
                size = max(self.variables.size(axis) for axis in axes)
                self.frozen_weights.setdefault(self.name_of(node, source), (size, reason))
            self.variables.fix(axes, reason)
        return self.constants(node, reason)

    def contracted_axes(self) -> dict[str, set[int]]:
        """Axes of each parameter that layers sum over. An axis that only some layers sum over is
        fixed.

        Quadrature weights of such an axis would be right for one of the layers and wrong for the
        other.
        """
        found: dict[str, set[int]] = {}
        uses: dict[str, list[tuple[Node, set[int]]]] = {}
        for source, weight in self.weights.items():
            for user in source.users:
                if user not in self.weights:
                    axes = self.contracted.get((source, user), set())
                    uses.setdefault(weight.name, []).append((user, axes))
        for name, by_user in uses.items():
            found[name] = set().union(*(axes for _, axes in by_user))
            by_all = found[name].intersection(*(axes for _, axes in by_user))
            for user, axes in by_user:
                shape = self.shape(self.parameters[name])
                self.fix(
                    [shape[axis] for axis in axes - by_all],
                    user,
                    f"sums over channels of {name}, another use does not",
                )
        return found


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


def rule(*names: str) -> Callable[[PropagationRule], PropagationRule]:
    """Registers a function as the rule of operations."""

    def register(function: PropagationRule) -> PropagationRule:
        for name in names:
            PROPAGATION_RULES[name] = function
        return function

    return register


def propagate(propagation: Propagation, node: Node) -> Any:
    """Axes of the node's output: a shape, or a list of shapes for an operation with several
    outputs.
    """
    found = PROPAGATION_RULES.get(operation(node))
    if (
        found is None
        and isinstance(node.target, torch._ops.OpOverload)
        and torch.Tag.pointwise in node.target.tags
    ):
        found = PROPAGATION_RULES["pointwise"]
    result = None
    if found is not None:
        try:
            result = found(propagation, node)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            result = None  # called in a way that the rule was not written for
    _note_origin(propagation, node)
    if result is None or not _fits(propagation, node, result):
        return propagation.freeze(node)
    return result


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """An argument that may be given by position or by name."""
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name, default)


def broadcast(
    propagation: Propagation, node: Node, shapes: Sequence[Shape], sizes: Sequence[int]
) -> Shape:
    """Couples shapes that are aligned from the right; returns the axes of their common shape."""
    out: list[Axis] = []
    for offset, size in enumerate(reversed(sizes), start=1):
        axes = [shape[-offset] for shape in shapes if len(shape) >= offset]
        axes = [axis for axis in axes if propagation.variables.size(axis) == size]
        for other in axes[1:]:
            propagation.unify(axes[0], other, node)
        out.append(axes[0] if axes else propagation.variables.constant(size))
    return tuple(reversed(out))


def _fits(propagation: Propagation, node: Node, result: Any) -> bool:
    """Return whether axes have the traced sizes."""
    value = node.meta.get("val")
    values = list(value) if isinstance(value, list | tuple) else [value]
    shapes = result if isinstance(result, list) else [result]
    expected = [tuple(v.shape) if isinstance(v, torch.Tensor) else () for v in values]
    return [
        tuple(propagation.variables.size(axis) for axis in shape) for shape in shapes
    ] == expected


def _note_origin(propagation: Propagation, node: Node) -> None:
    """Notes whether a tensor comes from the network's input, or from which of its weights."""
    sources = node.all_input_nodes
    if not propagation.activations.isdisjoint(sources):
        propagation.activations.add(node)
        return
    weights = [source for source in sources if source in propagation.weights]
    if len(sources) == len(weights) == 1:
        weight = propagation.weights[sources[0]]
        axes = _rearranged(node, weight.axes)
        if axes is not None:
            propagation.weights[node] = Weight(weight.name, axes)
            return
    if weights or not propagation.computed_weights.isdisjoint(sources):
        propagation.computed_weights.add(node)


def _rearranged(node: Node, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of a parameter after an operation that only rearranges it; None after any other
    operation.
    """
    name = operation(node)
    if name in ("alias", "clone", "contiguous", "detach", "to", "_to_copy"):
        return axes
    if name in ("t", "numpy_T"):
        return axes[::-1]
    if name in ("transpose", "swapaxes"):
        order = list(range(len(axes)))
        a, b = node.args[1:3]
        order[a], order[b] = order[b], order[a]  # type: ignore[index]
        return tuple(axes[i] for i in order)
    if name == "permute":
        return tuple(axes[i] for i in node.args[1])  # type: ignore[union-attr,index]
    return None
