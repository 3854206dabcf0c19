"""Coupled groups: which channel axes of a module are resized together, and what every tensor is
made of.

The idea of grouping dependent channels before they are resized: G. Fang et al., "DepGraph", CVPR
2023.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from torch import nn

from inn_automl.core.costs import Costs, LayerCost
from inn_automl.core.errors import ModuleError

CONSTANT = -1
_MAX_KNOWN = 100_000
"""Combinations kept for each layer."""
T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """Channels that are resized together.

    Attributes:
        name: the layer that first produces these channels.
        size: channels at full width.
        unit: widths are multiples of this many channels (the groups of a grouped convolution,
            attention heads).
        allowed: the widths that the group can take, ascending; the last one is `size`.
    """

    name: str
    size: int
    unit: int
    allowed: range


@dataclass(frozen=True)
class Segment:
    """A run of `outer x n x inner` elements of an axis.

    `n` is the number of counts of coupled group `group`, or 1 where `group` is `CONSTANT`.
    """

    group: int
    outer: int
    inner: int


AxisLayout = tuple[Segment, ...]


@dataclass(frozen=True)
class FrozenChannels:
    """Channels that stay at full width because an operation on their way could not be followed."""

    module: str
    size: int
    reason: str

    def __str__(self) -> str:
        return f"{self.module} stays at {self.size} channels: {self.reason}"


@dataclass(frozen=True)
class LayerShape:
    """Shape of a weighted layer in terms of the coupled groups, for costs.

    Attributes:
        output, input: axes of the tensors, the channel axis first; they hold `batch_size`
            counts.
        macs_axes: axes whose sizes multiply to the multiply-accumulates per output element (per
            input element for a transposed convolution).
        parameters: names of the parameters that the layer itself reads.
    """

    name: str
    kind: str
    output: tuple[AxisLayout, ...]
    input: tuple[AxisLayout, ...]
    macs_axes: tuple[AxisLayout, ...]
    parameters: tuple[str, ...]
    batch_size: int


@dataclass(frozen=True)
class Coupling:
    """The coupled groups of a module and how every parameter and buffer follows them.

    Attributes:
        axes: for each parameter and buffer, what its axes are made of; tied ones stand under their
            first name.
        buffers: which of these are buffers.
        contracted: for each parameter and buffer, the axes that a layer sums over.
        conv_groups: modules whose `groups` equals their input channels, with those channels.
        normalized_shapes: layer norms, with the axes that they average over.
        layers: weighted layers in the order in which they run.
        frozen: channels that stay at full width, and why.
        supports_zero_padding: whether channels of zeros may stand beside those of a group: what the module
            makes of them, layers with weights of zeros leave out.
    """

    groups: tuple[Group, ...]
    axes: Mapping[str, tuple[AxisLayout, ...]]
    buffers: frozenset[str]
    contracted: Mapping[str, tuple[int, ...]]
    conv_groups: Mapping[str, AxisLayout]
    normalized_shapes: Mapping[str, tuple[AxisLayout, ...]]
    layers: tuple[LayerShape, ...]
    frozen: tuple[FrozenChannels, ...]
    supports_zero_padding: bool = False

    def counts(self, widths: Mapping[str, int]) -> tuple[int, ...]:
        """Number of counts of each group's variable at the widths (channels)."""
        return tuple(widths[group.name] // group.unit for group in self.groups)

    def full_counts(self) -> tuple[int, ...]:
        return tuple(group.size // group.unit for group in self.groups)

    def width_coordinate(self, name: str, counts: Sequence[int]) -> float:
        """How far a parameter is on its way from full width, 0, to the smallest, 1: the mean over
        its resized axes.
        """
        return self._width_coordinate[name](counts)

    @functools.cached_property
    def _width_coordinate(self) -> dict[str, _Local[float]]:
        return {
            name: _Local(_groups(axes), functools.partial(_width_coordinate, self.groups, axes))
            for name, axes in self.axes.items()
            if name not in self.buffers
        }

    def at(self, widths: Mapping[str, int]) -> Coupling:
        """That of the plain module at the widths, whose channels are all that there is: they are
        its full width.
        """
        groups = (
            replace(g, size=widths[g.name], allowed=range(widths[g.name], widths[g.name] + 1))
            for g in self.groups
        )
        return replace(self, groups=tuple(groups))

    def costs(self, widths: Mapping[str, int]) -> Costs:
        """Parameters and multiply-accumulates (for one sample) at the widths."""
        counts = self.counts(widths)
        layers = tuple(cost(counts) for cost in self._layer_costs)
        params = sum(volume(counts) for volume in self._parameter_volumes.values())
        return Costs(params, sum(layer.macs for layer in layers), layers)

    @functools.cached_property
    def _parameter_volumes(self) -> dict[str, _Local[int]]:
        return {
            name: _Local(_groups(axes), functools.partial(_volume, axes))
            for name, axes in self.axes.items()
            if name not in self.buffers
        }

    @functools.cached_property
    def _layer_costs(self) -> tuple[_Local[LayerCost], ...]:
        def cost(layer: LayerShape) -> _Local[LayerCost]:
            own = [self.axes[name] for name in layer.parameters if name in self._parameter_volumes]
            groups = _groups(itertools.chain(layer.output, layer.input, layer.macs_axes, *own))
            return _Local(groups, functools.partial(_layer_cost, layer, own))

        return tuple(cost(layer) for layer in self.layers)

    def check(self, module: nn.Module) -> None:
        """Checks that the coupling is one of the module.

        Raises:
            ModuleError: a tensor is missing, additional or of another shape.
        """
        counts = self.full_counts()
        expected = {
            name: tuple(length(parts, counts) for parts in axes) for name, axes in self.axes.items()
        }
        found = {
            name: tuple(t.shape)
            for name, t in [*module.named_parameters(), *module.named_buffers()]
        }
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                raise ModuleError(
                    f"{type(module).__name__} is not the module that was followed: {name} is "
                    f"{found.get(name, 'missing')} instead of {expected.get(name, 'missing')}; "
                    f"build the same module."
                )

    def to_json(self) -> dict[str, Any]:
        """A JSON value from which `from_json` builds an equal coupling."""

        def axes(value: Sequence[AxisLayout]) -> list[list[list[int]]]:
            return [[[p.group, p.outer, p.inner] for p in parts] for parts in value]

        return {
            "groups": [
                {"name": g.name, "size": g.size, "unit": g.unit, "smallest": g.allowed.start}
                for g in self.groups
            ],
            "axes": {name: axes(value) for name, value in self.axes.items()},
            "buffers": sorted(self.buffers),
            "contracted": {name: list(value) for name, value in self.contracted.items()},
            "conv_groups": {path: axes([value])[0] for path, value in self.conv_groups.items()},
            "normalized_shapes": {
                path: axes(value) for path, value in self.normalized_shapes.items()
            },
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "output": axes(layer.output),
                    "input": axes(layer.input),
                    "macs_axes": axes(layer.macs_axes),
                    "parameters": list(layer.parameters),
                    "batch_size": layer.batch_size,
                }
                for layer in self.layers
            ],
            "frozen": [asdict(one) for one in self.frozen],
            "supports_zero_padding": self.supports_zero_padding,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Coupling:
        """The coupling that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: it describes none.
        """
        num_groups = len(value["groups"])

        def part(group: int, outer: int, inner: int) -> Segment:
            if not CONSTANT <= group < num_groups:
                raise ValueError(f"an axis belongs to group {group} of {num_groups}")
            return Segment(group, outer, inner)

        def axes(value: Sequence[Sequence[Sequence[int]]]) -> tuple[AxisLayout, ...]:
            return tuple(tuple(part(*p) for p in parts) for parts in value)

        return cls(
            groups=tuple(
                Group(
                    g["name"], g["size"], g["unit"], range(g["smallest"], g["size"] + 1, g["unit"])
                )
                for g in value["groups"]
            ),
            axes={name: axes(a) for name, a in value["axes"].items()},
            buffers=frozenset(value["buffers"]),
            contracted={name: tuple(a) for name, a in value["contracted"].items()},
            conv_groups={path: axes([a])[0] for path, a in value["conv_groups"].items()},
            normalized_shapes={path: axes(a) for path, a in value["normalized_shapes"].items()},
            layers=tuple(
                LayerShape(
                    name=layer["name"],
                    kind=layer["kind"],
                    output=axes(layer["output"]),
                    input=axes(layer["input"]),
                    macs_axes=axes(layer["macs_axes"]),
                    parameters=tuple(layer["parameters"]),
                    batch_size=layer["batch_size"],
                )
                for layer in value["layers"]
            ),
            frozen=tuple(FrozenChannels(**one) for one in value["frozen"]),
            supports_zero_padding=bool(value.get("supports_zero_padding", False)),
        )


class _Local(Generic[T]):
    """A function of the counts of a few groups, computed once for each combination of them.

    A search asks for the costs of thousands of widths, in which a layer sees the same few hundred
    again and again.
    """

    def __init__(self, groups: Sequence[int], compute: Callable[[Sequence[int]], T]) -> None:
        self._groups, self._compute = tuple(groups), compute
        self._known: dict[tuple[int, ...], T] = {}

    def __call__(self, counts: Sequence[int]) -> T:
        key = tuple([counts[group] for group in self._groups])
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[key] = self._compute(counts)
        return found


def _groups(axes: Iterable[AxisLayout]) -> list[int]:
    """The groups that axes belong to."""
    return sorted({part.group for parts in axes for part in parts if part.group >= 0})


def _width_coordinate(
    groups: Sequence[Group], axes: Sequence[AxisLayout], counts: Sequence[int]
) -> float:
    def of(group: Group, num: int) -> float:
        return (group.size - num * group.unit) / max(1, group.size - group.allowed.start)

    resized = [{part.group for part in parts if part.group >= 0} for parts in axes]
    of_axes = [
        sum(of(groups[i], counts[i]) for i in sorted(found)) / len(found)
        for found in resized
        if found
    ]
    return sum(of_axes) / len(of_axes) if of_axes else 0.0


def _volume(axes: Sequence[AxisLayout], counts: Sequence[int]) -> int:
    return math.prod(length(parts, counts) for parts in axes)


def _layer_cost(
    layer: LayerShape, parameters: Sequence[tuple[AxisLayout, ...]], counts: Sequence[int]
) -> LayerCost:
    inputs, outputs = (
        _volume(axes, counts) // layer.batch_size for axes in (layer.input, layer.output)
    )
    source = inputs if layer.kind == "conv_transpose" else outputs
    return LayerCost(
        name=layer.name,
        kind=layer.kind,
        macs=source * _volume(layer.macs_axes, counts),
        params=sum(_volume(axes, counts) for axes in parameters),
        in_channels=length(layer.input[0], counts),
        out_channels=length(layer.output[0], counts),
        input_elements=inputs,
        output_elements=outputs,
    )


def length(parts: AxisLayout, counts: Sequence[int]) -> int:
    """Number of elements of an axis, given the number of counts of each group's variable."""
    return sum(p.outer * p.inner * (counts[p.group] if p.group >= 0 else 1) for p in parts)
