"""Coupled groups: channel axes of a module that are resized together.

Coupled group = DepGraph's *group* (G. Fang et al., "DepGraph: Towards Any Structural Pruning",
CVPR 2023). In the network

    Conv2d(2, 4, 3) -> BatchNorm2d(4) -> ReLU -> Conv2d(4, 8, 3)

the output channels of the first convolution, the channels of the batch norm and the input channels
of the second convolution depend on each other. They are one coupled group, named after the layer
that first produces them. The input and output channels of the network are no group: they stay.

    >>> import torch
    >>> from torch import nn
    >>> from inn_automl.integral.validation import find_coupling
    >>> module = nn.Sequential(
    ...     nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3)
    ... )
    >>> coupling = find_coupling(module, torch.zeros(1, 2, 8, 8), min_ratio=0.5)
    >>> print(coupling)
    group '0': 4 channels, allowed 2 to 4
      0.weight: axis 0
      0.bias: axis 0
      1.weight: axis 0
      1.bias: axis 0
      3.weight: axis 1
      1.running_mean: axis 0
      1.running_var: axis 0
    >>> coupling.axes["3.weight"][:2]
    ((Segment(group=-1, outer=1, inner=8),), (Segment(group=0, outer=1, inner=1),))
    >>> coupling.costs({"0": 2}).params, coupling.costs({"0": 4}).params
    (194, 380)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from inn_automl.core.costs import Costs, LayerCost
from inn_automl.core.errors import ModuleError
from inn_automl.core.listing import abbreviate
from inn_automl.integral.graph.costs import (
    CachedByCounts,
    LayerShape,
    layer_cost,
)
from inn_automl.integral.graph.layout import (
    CONSTANT,
    AxisLayout,
    Segment,
    groups_of,
    length,
    volume,
)

_MAX_LAYERS_SHOWN = 6


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

    def __str__(self) -> str:
        return f"group {self.name!r}: {self.size} channels, allowed {describe_range(self.allowed)}"

    def __repr__(self) -> str:
        allowed = describe_range(self.allowed)
        return f"Group({self.name!r}, {self.size} channels, allowed {allowed})"


@dataclass(frozen=True)
class FrozenChannels:
    """Channels that stay at full width.

    Attributes:
        module: path of the layer that produces them.
        size: number of channels.
        reason: the operation that could not be traced, and the module it stands in.
    """

    module: str
    size: int
    reason: str

    def __str__(self) -> str:
        return f"{self.module} stays at {self.size} channels: {self.reason}"


@dataclass(frozen=True)
class Coupling:
    """The coupled groups of a module, and the layout of every parameter and buffer.

    `find_coupling` makes one from a module.

    Attributes:
        groups: the coupled groups, in the order in which they are first produced.
        axes: for each parameter and buffer, the layout of each of its axes; tied ones stand under
            their first name.
        buffers: names of the buffers among `axes`.
        contracted: for each parameter and buffer, the axes that a layer sums over.
        conv_groups: by module, input channels of the convolutions whose `groups` equals them.
        normalized_shapes: by module, the axes that layer norms average over.
        layers: weighted layers in the order in which they run.
        frozen: channels that stay at full width, and why.
        supports_zero_padding: whether the groups may be padded with zero channels. True if layers
            that read the padding have zero weights for it.
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

    def __str__(self) -> str:
        """One paragraph a group: its allowed widths and the axes that belong to it."""
        lines: list[str] = []
        for index, group in enumerate(self.groups):
            lines.append(str(group))
            for name, axes in self.axes.items():
                own = [str(dim) for dim, layout in enumerate(axes) if index in groups_of([layout])]
                if own:
                    lines.append(f"  {name}: axis {', '.join(own)}")
        return "\n".join([*lines, *(f"frozen: {one}" for one in self.frozen)])

    def describe_groups(self) -> list[str]:
        """One line a group: its allowed widths, the layers that have its channels, `->`, and the
        layers that sum over them. Long lists of layers are cut.
        """
        lines = []
        for index, group in enumerate(self.groups):
            outputs, inputs = (
                abbreviate(found, _MAX_LAYERS_SHOWN) for found in self.layers_of(index)
            )
            lines.append(f"{group}: {outputs}" + (f" -> {inputs}" if inputs else ""))
        return lines

    def layers_of(self, index: int) -> tuple[list[str], list[str]]:
        """The layers that are resized with a group: those with its channels in their output, and
        those that sum over them. A layer may be both.

        Args:
            index: of the group in `groups`.

        Returns:
            Paths in the module. A parameter or buffer of the module itself stands by its name.
        """
        outputs: dict[str, None] = {}
        inputs: dict[str, None] = {}
        for name, axes in self.axes.items():
            path, _, own_name = name.rpartition(".")
            for dim, layout in enumerate(axes):
                if index in groups_of([layout]):
                    found = inputs if dim in self.contracted.get(name, ()) else outputs
                    found[path or own_name] = None
        return list(outputs), list(inputs)

    def counts(self, widths: Mapping[str, int]) -> tuple[int, ...]:
        """The channel count of each group at the widths, in units of the group.

        Args:
            widths: channels of each group by name.
        """
        return tuple(widths[group.name] // group.unit for group in self.groups)

    def full_counts(self) -> tuple[int, ...]:
        """The channel count of each group at full width, in units of the group."""
        return tuple(group.size // group.unit for group in self.groups)

    def width_coordinate(self, name: str, counts: Sequence[int]) -> float:
        """The normalized width coordinate of a parameter: 0 at full width, 1 at the smallest.

        The mean over the parameter's axes that depend on the widths.

        Args:
            name: of the parameter.
            counts: see `counts`.
        """
        return self._width_coordinates[name](counts)

    @functools.cached_property
    def _width_coordinates(self) -> dict[str, CachedByCounts[float]]:
        return {
            name: CachedByCounts(
                groups_of(axes), functools.partial(_width_coordinate, self.groups, axes)
            )
            for name, axes in self.axes.items()
            if name not in self.buffers
        }

    def discretized(self, widths: Mapping[str, int]) -> Coupling:
        """The coupling of the discretized module, with `widths` as its full widths."""
        groups = (
            replace(g, size=widths[g.name], allowed=range(widths[g.name], widths[g.name] + 1))
            for g in self.groups
        )
        return replace(self, groups=tuple(groups))

    def costs(self, widths: Mapping[str, int]) -> Costs:
        """Parameters and multiply-accumulates (for one sample) at the widths."""
        counts = self.counts(widths)
        layers = tuple(cost(counts) for cost in self._layer_costs)
        params = sum(elements(counts) for elements in self._parameter_volumes.values())
        return Costs(params, sum(layer.macs for layer in layers), layers)

    @functools.cached_property
    def _parameter_volumes(self) -> dict[str, CachedByCounts[int]]:
        return {
            name: CachedByCounts(groups_of(axes), functools.partial(volume, axes))
            for name, axes in self.axes.items()
            if name not in self.buffers
        }

    @functools.cached_property
    def _layer_costs(self) -> tuple[CachedByCounts[LayerCost], ...]:
        def cost(layer: LayerShape) -> CachedByCounts[LayerCost]:
            own = [self.axes[name] for name in layer.parameters if name in self._parameter_volumes]
            groups = groups_of(itertools.chain(layer.output, layer.input, layer.macs_axes, *own))
            return CachedByCounts(groups, functools.partial(layer_cost, layer, own))

        return tuple(cost(layer) for layer in self.layers)

    def check(self, module: nn.Module) -> None:
        """Checks that the coupling is one of the module.

        Raises:
            ModuleError: a tensor is missing, additional or of another shape.
        """
        counts = self.full_counts()
        expected = {
            name: tuple(length(layout, counts) for layout in axes)
            for name, axes in self.axes.items()
        }
        found = {
            name: tuple(t.shape)
            for name, t in [*module.named_parameters(), *module.named_buffers()]
        }
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                raise ModuleError(
                    f"{type(module).__name__} is not the module that was traced: {name} is "
                    f"{found.get(name, 'missing')} instead of {expected.get(name, 'missing')}; "
                    f"build the same module."
                )

    def to_json(self) -> dict[str, Any]:
        """A JSON value from which `from_json` builds an equal coupling."""

        def axes(value: Sequence[AxisLayout]) -> list[list[list[int]]]:
            return [[[s.group, s.outer, s.inner] for s in layout] for layout in value]

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

        def segment(group: int, outer: int, inner: int) -> Segment:
            if not CONSTANT <= group < num_groups:
                raise ValueError(f"an axis belongs to group {group} of {num_groups}")
            return Segment(group, outer, inner)

        def axes(value: Sequence[Sequence[Sequence[int]]]) -> tuple[AxisLayout, ...]:
            return tuple(tuple(segment(*s) for s in layout) for layout in value)

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
            supports_zero_padding=bool(value["supports_zero_padding"]),
        )


def describe_range(allowed: range) -> str:
    """Allowed widths in words, e.g. `4 to 32 in steps of 4`."""
    step = "" if allowed.step == 1 else f" in steps of {allowed.step}"
    return f"{allowed.start} to {allowed[-1]}{step}"


def _width_coordinate(
    groups: Sequence[Group], axes: Sequence[AxisLayout], counts: Sequence[int]
) -> float:
    def coordinate(index: int) -> float:
        group = groups[index]
        missing = group.size - counts[index] * group.unit
        return missing / max(1, group.size - group.allowed.start)

    sampled = [found for layout in axes if (found := groups_of([layout]))]
    of_axes = [sum(map(coordinate, found)) / len(found) for found in sampled]
    return sum(of_axes) / len(of_axes) if of_axes else 0.0
