"""Coupled groups of a module, found by propagating channel axes through its traced operations.

The module is traced once with `torch.export` on an example input, and the channel axes of its
parameters are propagated through every operation (`rules`). Axes that meet become one coupled
group, the unit of the width search. Channels that reach an operation without a rule stay at full
width and are reported by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, InputSpec

from inn_automl.integral.graph import rules  # noqa: F401  (registers the rules)
from inn_automl.integral.graph.axis import Axis
from inn_automl.integral.graph.costs import LayerShape
from inn_automl.integral.graph.groups import Coupling, FrozenChannels, Group
from inn_automl.integral.graph.layout import CONSTANT, AxisLayout, Segment, groups_of, length
from inn_automl.integral.graph.propagation import (
    Propagation,
    Shape,
    Weight,
    WeightedLayer,
    flatten_shapes,
    operation,
    propagate,
)
from inn_automl.integral.graph.trace import trace
from inn_automl.integral.graph.zero_padding import supports_zero_padding

_IS_INPUT, _IS_OUTPUT = "it is an input of the network", "it is an output of the network"


class TracedModule:
    """A module whose channels were traced from its input to its outputs.

    `from_module` makes one.

    Args:
        tensors: parameters and buffers of the module by their first names.
        buffers: names of the buffers among them.
        graph: the traced operations.
        propagation: axes of every traced tensor.
        batch_size: number of samples of the example input.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        buffers: frozenset[str],
        graph: torch.fx.Graph,
        propagation: Propagation,
        batch_size: int,
    ) -> None:
        self._tensors = tensors
        self._buffers = buffers
        self._graph = graph
        self._propagation = propagation
        self._batch_size = batch_size
        self._contracted = propagation.contracted_axes()
        self._names, self._units = _name_groups(propagation, buffers)

    @classmethod
    def from_module(cls, module: nn.Module, example_input: Tensor) -> TracedModule:
        """Traces a module and propagates its channel axes.

        Args:
            module: any module that maps one tensor to one or more tensors.
            example_input: (N, ...) as the module's forward takes it.

        Raises:
            ModuleError: `torch.export` cannot trace the module.
        """
        exported = trace(module, example_input)
        propagation = Propagation(_labels(module))
        first_names = _first_names(module)
        inputs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
        for node in exported.graph.nodes:
            if node.op == "placeholder":
                shape = _enter(propagation, node, inputs[node.name], first_names)
                propagation.shapes[node] = shape
            elif node.op == "call_function":
                propagation.shapes[node] = propagate(propagation, node)
            elif node.op == "output":
                for source in node.all_input_nodes:
                    axes = flatten_shapes(propagation.shapes[source])
                    propagation.variables.fix(axes, _IS_OUTPUT)
            else:  # a subgraph that an operation without a rule takes
                propagation.shapes[node] = ()
        buffers = frozenset(name for name, _ in module.named_buffers())
        _fix_untrained(propagation, buffers)
        return cls(
            dict([*module.named_parameters(), *module.named_buffers()]),
            buffers,
            exported.graph,
            propagation,
            max(1, example_input.shape[0]) if example_input.dim() else 1,
        )

    def coupling(self, min_ratio: float, keep: Mapping[str, str]) -> Coupling:
        """The coupled groups, and the layout of every tensor.

        Args:
            min_ratio: smallest ratio of a group's channels that is allowed, in (0, 1].
            keep: groups by name that stay at full width, with the reason.
        """
        propagation = self._propagation
        groups, frozen = self._groups(min_ratio, keep)
        index = {group.name: position for position, group in enumerate(groups)}
        axes = {}
        for name, tensor in self._tensors.items():
            if name in propagation.parameters:
                axes[name] = self._layouts(propagation.shape(propagation.parameters[name]), index)
            else:  # the graph never reads it
                axes[name] = tuple((Segment(CONSTANT, 1, size),) for size in tensor.shape)
        return Coupling(
            groups=groups,
            axes=axes,
            buffers=self._buffers,
            contracted={
                name: tuple(sorted(found)) for name, found in self._contracted.items() if found
            },
            conv_groups={
                path: self._layouts((axis,), index)[0]
                for path, axis in propagation.conv_groups.items()
            },
            normalized_shapes={
                path: self._layouts(shape, index)
                for path, shape in propagation.normalized_shapes.items()
            },
            layers=tuple(self._layer(layer, index) for layer in propagation.layers),
            frozen=frozen,
            supports_zero_padding=all(
                supports_zero_padding(propagation, node) for node in _calls(self._graph)
            ),
        )

    def _groups(
        self, min_ratio: float, keep: Mapping[str, str]
    ) -> tuple[tuple[Group, ...], tuple[FrozenChannels, ...]]:
        """The channels that can be resized, and those that stay with a reason worth telling."""
        groups: list[Group] = []
        frozen: dict[str, FrozenChannels] = {}
        for var, name in self._names.items():
            unit, num_units = self._units[var], self._propagation.variables.variable_size(var)
            size = unit * num_units
            reason = keep.get(name, self._propagation.variables.fixed_reason(var))
            if reason is None:
                smallest = unit * max(1, math.ceil(num_units * min_ratio - 1e-9))
                groups.append(Group(name, size, unit, range(smallest, size + 1, unit)))
            elif reason not in ("", _IS_INPUT, _IS_OUTPUT):
                frozen[name] = FrozenChannels(name, size, reason)
        for name, (size, reason) in self._propagation.frozen_weights.items():
            frozen.setdefault(name, FrozenChannels(name, size, reason))
        return tuple(groups), tuple(frozen.values())

    def difference(
        self, coupling: Coupling, widths: Mapping[str, int], other: torch.export.ExportedProgram
    ) -> tuple[set[str], str] | None:
        """The first operation in which a discretized module differs from the prediction.

        Args:
            coupling: the coupling of this module.
            widths: of the discretized module.
            other: its trace.

        Returns:
            Names of the groups whose channels go wrong there and the reason; None if every tensor
            has the predicted size.
        """
        index = {group.name: position for position, group in enumerate(coupling.groups)}
        counts = coupling.counts(widths)
        own_calls, other_calls = _calls(self._graph), _calls(other.graph)
        for node, other_node in zip(own_calls, other_calls, strict=False):
            layouts = self._layouts(flatten_shapes(self._propagation.shapes[node]), index)
            expected = [length(layout, counts) for layout in layouts]
            found = _sizes(other_node)
            if operation(node) == operation(other_node) and expected == found:
                continue
            wrong = [
                layout
                for layout, want, have in zip(layouts, expected, found, strict=False)
                if want != have
            ]
            names = self._nearest_groups(coupling, node, (wrong, layouts), index)
            where = self._propagation.where(node)
            if operation(node) != operation(other_node):
                return names, f"at other widths {operation(other_node)} takes the place of {where}"
            sizes = f"{tuple(found)} instead of {tuple(expected)}"
            return names, f"{where} gives {sizes} at other widths"
        if len(own_calls) != len(other_calls):
            return set(index), "the module runs other operations at other widths"
        return None

    def _nearest_groups(
        self,
        coupling: Coupling,
        node: torch.fx.Node,
        candidates: Sequence[Sequence[AxisLayout]],
        index: Mapping[str, int],
    ) -> set[str]:
        """Names of the groups in the first candidate that has any, or in the node's inputs."""
        inputs = [
            axis
            for source in node.all_input_nodes
            for axis in flatten_shapes(self._propagation.shapes[source])
        ]
        for layouts in (*candidates, self._layouts(inputs, index)):
            found = groups_of(layouts)
            if found:
                return {coupling.groups[group].name for group in found}
        return set()

    def _layouts(self, shape: Sequence[Axis], index: Mapping[str, int]) -> tuple[AxisLayout, ...]:
        """Layouts of axes in terms of the groups that can be resized.

        Args:
            index: position of each group by name.
        """
        variables = self._propagation.variables

        def segment(var: int, outer: int, inner: int) -> Segment:
            group = index.get(self._names.get(var, ""), CONSTANT)
            if group < 0:
                inner *= variables.variable_size(var)
            return Segment(group, outer, inner)

        return tuple(tuple(segment(*one) for one in variables.resolve(axis)) for axis in shape)

    def _layer(self, layer: WeightedLayer, index: Mapping[str, int]) -> LayerShape:
        propagation, sources = self._propagation, layer.node.all_input_nodes
        given = next(
            (source for source in sources if source in propagation.activations), sources[0]
        )
        is_image = layer.kind in ("conv", "grouped_conv", "conv_transpose")

        def axes(node: torch.fx.Node) -> tuple[AxisLayout, ...]:
            """The channel axis first."""
            shape: list[Axis] = list(propagation.shape(node))
            return self._layouts([shape.pop(1 if is_image else -1), *shape], index)

        return LayerShape(
            name=layer.name,
            kind=layer.kind,
            output=axes(layer.node),
            input=axes(given),
            macs_axes=self._layouts(layer.macs_axes, index),
            parameters=tuple(
                propagation.weights[source].name
                for source in sources
                if source in propagation.weights
            ),
            batch_size=self._batch_size if layer.node in propagation.activations else 1,
        )


def _calls(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    """The operations of a traced graph."""
    return [node for node in graph.nodes if node.op == "call_function"]


def _sizes(node: torch.fx.Node) -> list[int]:
    """Sizes of all axes of all outputs of a traced operation."""
    value = node.meta.get("val")
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [int(size) for one in values if isinstance(one, Tensor) for size in one.shape]


def _labels(module: nn.Module) -> dict[str, str]:
    """Name of the layer of each parameter and buffer: its path, or the tensor's own name in a
    user's module.
    """
    labels = {}
    for path, owner in module.named_modules():
        is_layer = type(owner).__module__.startswith("torch.nn.")
        for name, _ in [
            *owner.named_parameters(recurse=False),
            *owner.named_buffers(recurse=False),
        ]:
            full = f"{path}.{name}" if path else name
            labels[full] = path if path and (is_layer or name == "weight") else full
    return labels


def _first_names(module: nn.Module) -> dict[str, str]:
    """The first name of each parameter and buffer by all of its names: tied ones have several."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    first_names = {id(tensor): name for name, tensor in tensors}
    every_name = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    return {name: first_names[id(tensor)] for name, tensor in every_name}


def _enter(
    propagation: Propagation, node: torch.fx.Node, spec: InputSpec, first_names: Mapping[str, str]
) -> Shape:
    """Axes of an input of the traced graph."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return ()
    if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target is not None:
        name = first_names[spec.target]
        propagation.weights[node] = Weight(name, tuple(range(value.dim())))
        if name in propagation.parameters:
            return propagation.shape(propagation.parameters[name])
        propagation.parameters[name] = node
        if value.is_floating_point():
            return tuple(propagation.variables.new(int(size)) for size in value.shape)
        return tuple(
            propagation.variables.constant(int(size), f"{name} holds no real numbers")
            for size in value.shape
        )
    if spec.kind is InputKind.USER_INPUT:
        propagation.activations.add(node)
        reason = _IS_INPUT
    else:
        reason = f"it meets the constant tensor {spec.target}"
    return tuple(propagation.variables.constant(int(size), reason) for size in value.shape)


def _trained(propagation: Propagation, buffers: frozenset[str]) -> set[int]:
    """Variables that axes of parameters have."""
    return {
        segment.var
        for name, node in propagation.parameters.items()
        if name not in buffers
        for axis in propagation.shape(node)
        for segment in propagation.variables.resolve(axis)
    }


def _fix_untrained(propagation: Propagation, buffers: frozenset[str]) -> None:
    """Keeps channels that buffers alone have, such as frequencies of a Fourier transform: nothing
    of them is learned.
    """
    trained = _trained(propagation, buffers)
    for name in buffers & propagation.parameters.keys():
        for axis in propagation.shape(propagation.parameters[name]):
            parts = [s for s in propagation.variables.resolve(axis) if s.var not in trained]
            propagation.variables.fix([(part,) for part in parts], "")


def _name_groups(
    propagation: Propagation, buffers: frozenset[str]
) -> tuple[dict[int, str], dict[int, int]]:
    """Name and unit of each variable that a weighted layer produces."""
    variables = propagation.variables
    used = _trained(propagation, buffers)
    names: dict[int, str] = {}
    units: dict[int, int] = {}
    for layer, axis in propagation.producers:
        resolved = variables.resolve(axis)
        for position, segment in enumerate(resolved):
            if segment.var not in used or variables.variable_size(segment.var) == 1:
                continue
            repeats = sum(s.outer * s.inner for s in resolved if s.var == segment.var)
            units[segment.var] = min(units.get(segment.var, repeats), repeats)
            if segment.var not in names:
                name = layer if len(resolved) == 1 else f"{layer}.{position}"
                while name in names.values():
                    name += "'"
                names[segment.var] = name
    return names, units
