"""Which channel axes of a module must be resized together.

The module is traced once with `torch.export` on an example input, and the channel axes of its parameters are followed
through every operation (`rules`). Axes that meet become one coupled group, the unit of the width search. What reaches
an operation without a rule stays at full width and is reported by name.

The idea of grouping dependent channels before they are resized: G. Fang et al., "DepGraph", CVPR 2023.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from inn_automl.errors import ModuleError
from inn_automl.integral import rules
from inn_automl.integral.axis import Axis
from inn_automl.integral.costs import Costs, LayerCost

CONSTANT = -1
_IS_INPUT, _IS_OUTPUT = "it is an input of the network", "it is an output of the network"


@dataclass(frozen=True)
class Group:
    """Channels that are resized together.

    Attributes:
        name: the module that first produces these channels.
        size: channels at full width.
        unit: widths are multiples of this many channels (the groups of a grouped convolution, attention heads).
        allowed: the widths that the group can take, ascending; the last one is `size`.
    """

    name: str
    size: int
    unit: int
    allowed: range


@dataclass(frozen=True)
class Part:
    """A run of `outer x n x inner` elements of an axis.

    `n` is the number of samples of coupled group `group`, or 1 where `group` is `CONSTANT`.
    """

    group: int
    outer: int
    inner: int


Parts = tuple[Part, ...]


@dataclass(frozen=True)
class Unfollowed:
    """Channels that stay at full width because an operation on their way could not be followed."""

    module: str
    size: int
    reason: str

    def __str__(self) -> str:
        return f"{self.module} stays at {self.size} channels: {self.reason}"


@dataclass(frozen=True)
class Layer:
    """Shape of a weighted layer in terms of the coupled groups, for costs."""

    name: str
    kind: str
    output: tuple[Parts, ...]
    input: tuple[Parts, ...]
    macs_axes: tuple[Parts, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Coupling:
    """The coupled groups of a module and how every parameter and buffer follows them.

    Attributes:
        axes: for each parameter and buffer, what its axes are made of.
        contracted: for each parameter, the axes that a layer sums over.
        conv_groups: modules whose `groups` equals their input channels, with those channels.
        layers: weighted layers in the order in which they run.
        unfollowed: channels that stay at full width, and why.
    """

    groups: tuple[Group, ...]
    axes: Mapping[str, tuple[Parts, ...]]
    contracted: Mapping[str, tuple[int, ...]]
    conv_groups: Mapping[str, Parts]
    layers: tuple[Layer, ...]
    unfollowed: tuple[Unfollowed, ...]
    _units: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_units", tuple(group.unit for group in self.groups))

    def samples(self, widths: Mapping[str, int]) -> tuple[int, ...]:
        """Number of samples of each group's variable at the widths (channels)."""
        return tuple(widths[group.name] // group.unit for group in self.groups)

    def length(self, parts: Parts, samples: tuple[int, ...]) -> int:
        """Number of elements of an axis."""
        return sum(p.outer * p.inner * (samples[p.group] if p.group >= 0 else 1) for p in parts)

    def costs(self, widths: Mapping[str, int]) -> Costs:
        """Parameters and multiply-accumulates (for one sample) at the widths."""
        samples = self.samples(widths)

        def volume(axes: tuple[Parts, ...]) -> int:
            elements = 1
            for parts in axes:
                elements *= self.length(parts, samples)
            return elements

        layers = []
        for layer in self.layers:
            outputs = volume(layer.output)
            inputs = volume(layer.input)
            source = inputs if layer.kind == "conv_transpose" else outputs
            layers.append(
                LayerCost(
                    name=layer.name,
                    kind=layer.kind,
                    macs=source * volume(layer.macs_axes),
                    params=sum(volume(self.axes[name]) for name in layer.parameters),
                    in_channels=self.length(layer.input[0], samples) if layer.input else 1,
                    out_channels=self.length(layer.output[0], samples) if layer.output else 1,
                    input_elements=inputs,
                    output_elements=outputs,
                )
            )
        params = sum(volume(self.axes[name]) for name in self._parameter_names)
        return Costs(params=params, macs=sum(layer.macs for layer in layers), layers=tuple(layers))

    @property
    def _parameter_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.axes if name not in self.buffers)

    buffers: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """A JSON value from which `from_json` builds an equal coupling."""

        def axes(value: tuple[Parts, ...]) -> list[list[list[int]]]:
            return [[[p.group, p.outer, p.inner] for p in parts] for parts in value]

        return {
            "groups": [
                {"name": g.name, "size": g.size, "unit": g.unit, "smallest": g.allowed.start} for g in self.groups
            ],
            "axes": {name: axes(value) for name, value in self.axes.items()},
            "contracted": {name: list(value) for name, value in self.contracted.items()},
            "conv_groups": {name: axes((value,))[0] for name, value in self.conv_groups.items()},
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "output": axes(layer.output),
                    "input": axes(layer.input),
                    "macs_axes": axes(layer.macs_axes),
                    "parameters": list(layer.parameters),
                }
                for layer in self.layers
            ],
            "unfollowed": [asdict(one) for one in self.unfollowed],
            "buffers": sorted(self.buffers),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Coupling:
        def axes(value: list[list[list[int]]]) -> tuple[Parts, ...]:
            return tuple(tuple(Part(*p) for p in parts) for parts in value)

        return cls(
            groups=tuple(
                Group(g["name"], g["size"], g["unit"], range(g["smallest"], g["size"] + 1, g["unit"]))
                for g in value["groups"]
            ),
            axes={name: axes(a) for name, a in value["axes"].items()},
            contracted={name: tuple(a) for name, a in value["contracted"].items()},
            conv_groups={name: axes([a])[0] for name, a in value["conv_groups"].items()},
            layers=tuple(
                Layer(
                    layer["name"],
                    layer["kind"],
                    axes(layer["output"]),
                    axes(layer["input"]),
                    axes(layer["macs_axes"]),
                    tuple(layer["parameters"]),
                )
                for layer in value["layers"]
            ),
            unfollowed=tuple(Unfollowed(**one) for one in value["unfollowed"]),
            buffers=frozenset(value["buffers"]),
        )


def find_coupling(
    module: nn.Module, example_input: Tensor, *, min_ratio: float, keep: Mapping[str, str] | None = None
) -> Coupling:
    """Follows the channels of a module.

    Args:
        module: any module that maps one tensor to one or more tensors.
        example_input: (N, ...) as the module's forward takes it, N of 1 or more.
        min_ratio: smallest share of a group's channels that is allowed, in (0, 1].
        keep: groups by name that stay at full width, with the reason.

    Raises:
        ModuleError: `torch.export` cannot trace the module.
    """
    training = module.training
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of its own internals, nothing that a caller can change
            exported = torch.export.export(module, (example_input,), strict=False)
    except Exception as error:  # the tracer raises many kinds, none of them documented
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModuleError(
            f"{type(module).__name__} cannot be traced by torch.export with an input of shape "
            f"{tuple(example_input.shape)} ({reason}): make its forward traceable, without control flow on values."
        ) from error
    finally:
        module.train(training)
    return _Follower(module, exported).coupling(min_ratio, keep or {})


class _Follower:
    def __init__(self, module: nn.Module, exported: torch.export.ExportedProgram) -> None:
        owners = {
            f"{path}.{name}" if path else name: path
            for path, owner in module.named_modules()
            for name, _ in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]
        }
        self.tracker = tracker = rules.Tracker(owners)
        self.buffers: set[str] = set()
        self.names: dict[str, torch.fx.Node] = {}
        # Tied parameters have several names; the first one of named_parameters() stands for all.
        first_names = {id(value): name for name, value in [*module.named_parameters(), *module.named_buffers()]}
        every_name = dict(
            [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        )
        inputs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
        for node in exported.graph.nodes:
            if node.op == "placeholder":
                spec = inputs[node.name]
                value = node.meta.get("val")
                if not isinstance(value, Tensor):
                    tracker.shapes[node] = ()
                elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target is not None:
                    name = first_names[id(every_name[spec.target])]
                    tracker.parameters[node] = name
                    if name in self.names:
                        tracker.shapes[node] = tracker.shapes[self.names[name]]
                        continue
                    tracker.shapes[node] = tuple(tracker.variables.new(int(size)) for size in value.shape)
                    self.names[name] = node
                    if spec.kind is InputKind.BUFFER:
                        self.buffers.add(name)
                else:
                    tracker.shapes[node] = tuple(tracker.variables.constant(int(s), _IS_INPUT) for s in value.shape)
            elif node.op == "call_function":
                tracker.shapes[node] = rules.follow(tracker, node)
            elif node.op == "output":
                for source in node.all_input_nodes:
                    tracker.variables.fix(rules.flatten_shapes(tracker.shapes[source]), _IS_OUTPUT)
            else:
                tracker.shapes[node] = tracker.constants(node)
        # A parameter or buffer that the graph never reads is left as it is.
        self.unread = {
            name: tuple(value.shape)
            for name, value in [*module.named_parameters(), *module.named_buffers()]
            if name not in self.names
        }
        self.buffers |= {name for name, _ in module.named_buffers()} & set(self.unread)

    def coupling(self, min_ratio: float, keep: Mapping[str, str]) -> Coupling:
        variables = self.tracker.variables
        names, units = self._name_groups()
        index: dict[int, int] = {}
        groups: list[Group] = []
        unfollowed: dict[str, Unfollowed] = {}
        for var, name in names.items():
            unit = units[var]
            size = unit * variables.variable_size(var)
            reason = variables.fixed_reason(var)
            if name in keep:
                reason = keep[name]
            if reason is None:
                smallest = unit * max(1, math.ceil(size // unit * min_ratio - 1e-9))
                index[var] = len(groups)
                groups.append(Group(name, size, unit, range(smallest, size + 1, unit)))
            elif reason not in (_IS_INPUT, _IS_OUTPUT) and size > 1:
                unfollowed[name] = Unfollowed(name, size, reason or "it meets a constant of the module's own")

        def parts(axis: Axis) -> Parts:
            return tuple(
                Part(index[s.var], s.outer, s.inner)
                if s.var in index
                else Part(CONSTANT, s.outer, s.inner * variables.variable_size(s.var))
                for s in variables.resolve(axis)
            )

        tracker = self.tracker
        axes = {name: tuple(parts(a) for a in tracker.shapes[node]) for name, node in self.names.items()}
        for name, shape in self.unread.items():
            axes[name] = tuple((Part(CONSTANT, 1, size),) for size in shape)
        return Coupling(
            groups=tuple(groups),
            axes=axes,
            contracted={name: tuple(sorted(found)) for name, found in tracker.contracted.items()},
            conv_groups={name: parts(axis) for name, axis in tracker.conv_groups.items()},
            layers=tuple(self._layer(*layer, parts) for layer in tracker.layers),
            unfollowed=tuple(unfollowed.values()),
            buffers=frozenset(self.buffers),
        )

    def _name_groups(self) -> tuple[dict[int, str], dict[int, int]]:
        """Name and unit of each variable that a weighted layer produces."""
        variables = self.tracker.variables
        names: dict[int, str] = {}
        units: dict[int, int] = {}
        weighted = [axis for node in self.names.values() for axis in self.tracker.shapes[node]]
        used = {segment.var for axis in weighted for segment in variables.resolve(axis)}
        taken: set[str] = set()
        for module, axis in self.tracker.producers:
            resolved = variables.resolve(axis)
            for position, segment in enumerate(resolved):
                if segment.var not in used:
                    continue
                repeats = sum(s.outer * s.inner for s in resolved if s.var == segment.var)
                units[segment.var] = min(units.get(segment.var, repeats), repeats)
                if segment.var in names:
                    continue
                name = module if len(resolved) == 1 else f"{module}.{position}"
                while name in taken:
                    name += "'"
                taken.add(name)
                names[segment.var] = name
        return names, units

    def _layer(self, name: str, kind: str, node: torch.fx.Node, macs_axes: tuple[Axis, ...], parts: Any) -> Layer:
        shapes, parameters = self.tracker.shapes, self.tracker.parameters
        data = [source for source in node.all_input_nodes if source not in parameters]
        rank_first = 1 if kind not in ("linear", "attention", "matmul") else -1
        output, given = shapes[node], shapes[data[0]] if data else ()
        return Layer(
            name=name or str(node.name),
            kind=kind,
            output=_channels_first([parts(axis) for axis in output], rank_first),
            input=_channels_first([parts(axis) for axis in given], rank_first),
            macs_axes=tuple(parts(axis) for axis in macs_axes),
            parameters=tuple(parameters[source] for source in node.all_input_nodes if source in parameters),
        )


def _channels_first(axes: list[Parts], channel: int) -> tuple[Parts, ...]:
    """The axes of one sample (without the batch axis) with the channel axis in front."""
    if len(axes) < 2:
        return tuple(axes)
    channels = axes[channel]
    rest = axes[2:] if channel == 1 else axes[1:-1]
    return (channels, *rest)
