"""Finds the coupled groups of a module.

The module is traced once with `torch.export` on an example input, and the channel axes of its
parameters are followed through every operation (`rules`). Axes that meet become one coupled group,
the unit of the width search. What reaches an operation without a rule stays at full width and is
reported by name.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, InputSpec
from torch.nn.parameter import is_lazy

from inn_automl.core.errors import ModuleError
from inn_automl.integral.graph import rules  # noqa: F401  (registers the rules)
from inn_automl.integral.graph.axis import Axis
from inn_automl.integral.graph.groups import (
    CONSTANT,
    AxisLayout,
    Coupling,
    FrozenChannels,
    Group,
    LayerShape,
    Segment,
    length,
)
from inn_automl.integral.graph.propagation import (
    Propagation,
    Shape,
    Weight,
    WeightedLayer,
    flatten_shapes,
    follow,
    operation,
)

# No channel of zeros changes another one here, nor becomes infinite, in outputs or gradients. In
# place or not.
_LEAVES_OTHERS_ALONE = frozenset(
    {
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
    }
)

_IS_INPUT, _IS_OUTPUT = "it is an input of the network", "it is an output of the network"


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and each of its layers back into its own mode."""
    modes = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, training in modes:
            one.training = training


def trace(module: nn.Module, example_input: Tensor) -> torch.export.ExportedProgram:
    """The operations of a module in evaluation mode.

    Raises:
        ModuleError: `torch.export` cannot trace it, or it has lazy parameters.
    """
    if any(is_lazy(tensor) for tensor in [*module.parameters(), *module.buffers()]):
        raise ModuleError(
            f"{type(module).__name__} has parameters without a size yet: run it once before."
        )
    try:
        with evaluating(module), warnings.catch_warnings():
            # the tracer warns of its own internals, nothing that a caller can change
            warnings.simplefilter("ignore")
            return torch.export.export(module, (example_input,), strict=False)
    except Exception as error:  # the tracer raises many kinds, none of them documented
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModuleError(
            f"{type(module).__name__} cannot be traced by torch.export with an input of shape "
            f"{tuple(example_input.shape)} ({reason}): make its forward traceable, without control "
            f"flow on values."
        ) from error


def _labels(module: nn.Module) -> dict[str, str]:
    """What the layer of each parameter and buffer is called: its path, or the tensor's own name in
    a user's module.
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


class TracedModule:
    """A module whose channels have been followed from its input to its outputs.

    Args:
        module: any module that maps one tensor to one or more tensors.
        example_input: (N, ...) as the module's forward takes it.

    Raises:
        ModuleError: `torch.export` cannot trace the module.
    """

    def __init__(self, module: nn.Module, example_input: Tensor) -> None:
        exported = trace(module, example_input)
        self._batch_size = max(1, example_input.shape[0]) if example_input.dim() else 1
        self._tensors = dict([*module.named_parameters(), *module.named_buffers()])
        self._buffers = frozenset(name for name, _ in module.named_buffers())
        # Tied parameters have several names; the first one stands for all.
        first_names = {id(tensor): name for name, tensor in self._tensors.items()}
        every_name: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
        every_name.update(module.named_buffers(remove_duplicate=False))
        self._first_names = {name: first_names[id(tensor)] for name, tensor in every_name.items()}
        self._graph = exported.graph
        self._propagation = Propagation(_labels(module))
        inputs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
        for node in self._graph.nodes:
            if node.op == "placeholder":
                self._propagation.shapes[node] = self._enter(node, inputs[node.name])
            elif node.op == "call_function":
                self._propagation.shapes[node] = follow(self._propagation, node)
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self._propagation.variables.fix(
                        flatten_shapes(self._propagation.shapes[source]), _IS_OUTPUT
                    )
            else:  # a subgraph that an operation without a rule takes
                self._propagation.shapes[node] = ()
        self._contracted = self._propagation.contracted_axes()
        self._names, self._units = self._name_groups()

    def _enter(self, node: torch.fx.Node, spec: InputSpec) -> Shape:
        """Axes of an input of the traced graph."""
        propagation, value = self._propagation, node.meta.get("val")
        if not isinstance(value, Tensor):
            return ()
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target is not None:
            name = self._first_names[spec.target]
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

    def coupling(self, min_ratio: float, keep: Mapping[str, str]) -> Coupling:
        """The coupled groups, and what every tensor is made of.

        Args:
            min_ratio: smallest share of a group's channels that is allowed, in (0, 1].
            keep: groups by name that stay at full width, with the reason.
        """
        propagation, variables = self._propagation, self._propagation.variables
        groups: list[Group] = []
        frozen: dict[str, FrozenChannels] = {}
        for var, name in self._names.items():
            unit, num_control_points = self._units[var], variables.variable_size(var)
            reason = keep.get(name, variables.fixed_reason(var))
            if reason is None:
                smallest = unit * max(1, math.ceil(num_control_points * min_ratio - 1e-9))
                groups.append(
                    Group(
                        name,
                        unit * num_control_points,
                        unit,
                        range(smallest, unit * num_control_points + 1, unit),
                    )
                )
            elif reason not in ("", _IS_INPUT, _IS_OUTPUT):
                frozen[name] = FrozenChannels(name, unit * num_control_points, reason)
        for name, (size, reason) in propagation.frozen_weights.items():
            frozen.setdefault(name, FrozenChannels(name, size, reason))
        index = {group.name: position for position, group in enumerate(groups)}
        axes = {}
        for name, tensor in self._tensors.items():
            if name in propagation.parameters:
                axes[name] = self._parts(propagation.shape(propagation.parameters[name]), index)
            else:  # the graph never reads it
                axes[name] = tuple((Segment(CONSTANT, 1, size),) for size in tensor.shape)
        return Coupling(
            groups=tuple(groups),
            axes=axes,
            buffers=self._buffers,
            contracted={
                name: tuple(sorted(found)) for name, found in self._contracted.items() if found
            },
            conv_groups={
                path: self._parts((axis,), index)[0]
                for path, axis in propagation.conv_groups.items()
            },
            normalized_shapes={
                path: self._parts(shape, index)
                for path, shape in propagation.normalized_shapes.items()
            },
            layers=tuple(self._layer(layer, index) for layer in propagation.layers),
            frozen=tuple(frozen.values()),
            supports_zero_padding=all(
                self._leaves_others_alone(n) for n in self._graph.nodes if n.op == "call_function"
            ),
        )

    def _leaves_others_alone(self, node: torch.fx.Node) -> bool:
        """Whether a channel that can be resized changes no other one in an operation."""

        def num_free(one: torch.fx.Node) -> int:
            return sum(
                map(
                    self._propagation.variables.is_free,
                    flatten_shapes(self._propagation.shapes[one]),
                )
            )

        num_given = sum(map(num_free, node.all_input_nodes))
        if operation(node) == "mean":  # over channels it divides by their number
            return num_free(node) == num_given
        return num_given == 0 or operation(node).rstrip("_") in _LEAVES_OTHERS_ALONE

    def difference(
        self, coupling: Coupling, widths: Mapping[str, int], resized: torch.export.ExportedProgram
    ) -> Any:
        """Where a resized module does something else than what was followed.

        Args:
            resized: the trace of the module at the widths.

        Returns:
            Names of the groups at fault and a sentence that says where they go wrong; None if all
            is as it should be.
        """
        index = {group.name: position for position, group in enumerate(coupling.groups)}
        counts = coupling.counts(widths)
        mine = [node for node in self._graph.nodes if node.op == "call_function"]
        others = [node for node in resized.graph.nodes if node.op == "call_function"]
        for node, other in zip(mine, others, strict=False):
            axes = self._parts(flatten_shapes(self._propagation.shapes[node]), index)
            expected = [length(parts, counts) for parts in axes]
            value = other.meta.get("val")
            values = list(value) if isinstance(value, list | tuple) else [value]
            found = [int(size) for one in values if isinstance(one, Tensor) for size in one.shape]
            if operation(node) == operation(other) and expected == found:
                continue
            around = [
                axis
                for source in node.all_input_nodes
                for axis in flatten_shapes(self._propagation.shapes[source])
            ]
            at_fault = [
                parts
                for parts, want, have in zip(axes, expected, found, strict=False)
                if want != have
            ]
            for candidates in (at_fault, axes, self._parts(around, index)):
                names = {
                    coupling.groups[p.group].name
                    for parts in candidates
                    for p in parts
                    if p.group >= 0
                }
                if names:
                    break
            where = self._propagation.where(node)
            if operation(node) != operation(other):
                return names, f"at other widths {operation(other)} takes the place of {where}"
            return (
                names,
                f"{where} gives {tuple(found)} instead of {tuple(expected)} at other widths",
            )
        if len(mine) != len(others):
            return set(index), "the module runs other operations at other widths"
        return None

    def _parts(self, shape: Any, index: Mapping[str, int]) -> tuple[AxisLayout, ...]:
        """What axes are made of, in terms of the groups that can be resized."""
        variables = self._propagation.variables

        def part(var: int, outer: int, inner: int) -> Segment:
            group = index.get(self._names.get(var, ""), CONSTANT)
            return Segment(
                group, outer, inner if group >= 0 else inner * variables.variable_size(var)
            )

        return tuple(tuple(part(*segment) for segment in variables.resolve(axis)) for axis in shape)

    def _name_groups(self) -> tuple[dict[int, str], dict[int, int]]:
        """Name and unit of each variable that a weighted layer produces."""
        variables = self._propagation.variables
        shapes = [self._propagation.shape(node) for node in self._propagation.parameters.values()]
        used = {
            segment.var for shape in shapes for axis in shape for segment in variables.resolve(axis)
        }
        names: dict[int, str] = {}
        units: dict[int, int] = {}
        for layer, axis in self._propagation.producers:
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

    def _layer(self, layer: WeightedLayer, index: Mapping[str, int]) -> LayerShape:
        propagation, sources = self._propagation, layer.node.all_input_nodes
        given = next(
            (source for source in sources if source in propagation.activations), sources[0]
        )
        is_image = layer.kind in ("conv", "grouped_conv", "conv_transpose")

        def axes(node: torch.fx.Node) -> tuple[AxisLayout, ...]:
            """The channel axis first."""
            shape: list[Axis] = list(propagation.shape(node))
            return self._parts([shape.pop(1 if is_image else -1), *shape], index)

        return LayerShape(
            name=layer.name,
            kind=layer.kind,
            output=axes(layer.node),
            input=axes(given),
            macs_axes=self._parts(layer.macs_axes, index),
            parameters=tuple(
                propagation.weights[source].name
                for source in sources
                if source in propagation.weights
            ),
            batch_size=self._batch_size if layer.node in propagation.activations else 1,
        )
