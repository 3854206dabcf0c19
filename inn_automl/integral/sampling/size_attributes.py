"""Sizes that torch's layers keep beside their tensors, which their forward reads or their `repr`
prints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.graph.layout import CONSTANT, AxisLayout, Segment, length
from inn_automl.integral.sampling.axis_sampling import Counts


class SizeAttribute(NamedTuple):
    """An attribute of a layer that depends on the widths, such as `in_channels`.

    Attributes:
        path: of the layer in the module.
        layer: the layer.
        name: of the attribute.
        axes: axes whose sizes multiply to the value.
        is_tuple: whether the value is the tuple of the sizes instead.
    """

    path: str
    layer: nn.Module
    name: str
    axes: tuple[AxisLayout, ...]
    is_tuple: bool = False

    def value(self, counts: Counts) -> int | tuple[int, ...]:
        """The value at the channel counts."""
        sizes = tuple(length(layout, counts) for layout in self.axes)
        return sizes if self.is_tuple else math.prod(sizes)


def find_size_attributes(module: nn.Module, coupling: Coupling) -> Iterator[SizeAttribute]:
    """The attributes of a module's layers that depend on the widths."""
    first_names = {id(t): name for name, t in [*module.named_parameters(), *module.named_buffers()]}

    def axes(tensor: Any) -> tuple[AxisLayout, ...]:
        return coupling.axes[first_names[id(tensor)]]

    def of_layer(path: str, layer: nn.Module) -> Iterator[SizeAttribute]:
        weight = layer._parameters.get("weight")
        shape = coupling.normalized_shapes.get(path)
        if shape is not None and "normalized_shape" in vars(layer):
            yield SizeAttribute(path, layer, "normalized_shape", shape, is_tuple=True)
        elif isinstance(layer, _NormBase):
            tensor = weight if weight is not None else layer.running_mean
            if tensor is not None:
                yield SizeAttribute(path, layer, "num_features", axes(tensor))
        elif weight is None:
            return
        elif isinstance(layer, _ConvNd):
            groups = coupling.conv_groups.get(path, (Segment(CONSTANT, layer.groups, 1),))
            of_all, of_one = ("in_channels", "out_channels")[
                :: 1 if isinstance(layer, _ConvTransposeNd) else -1
            ]
            yield SizeAttribute(path, layer, "groups", (groups,))
            yield SizeAttribute(path, layer, of_all, axes(weight)[:1])
            yield SizeAttribute(path, layer, of_one, (axes(weight)[1], groups))
        elif isinstance(layer, nn.Linear):
            yield SizeAttribute(path, layer, "out_features", axes(weight)[:1])
            yield SizeAttribute(path, layer, "in_features", axes(weight)[1:])
        elif isinstance(layer, nn.GroupNorm):
            yield SizeAttribute(path, layer, "num_channels", axes(weight))
        elif isinstance(layer, nn.PReLU):
            yield SizeAttribute(path, layer, "num_parameters", axes(weight))
        elif isinstance(layer, nn.Embedding):
            yield SizeAttribute(path, layer, "embedding_dim", axes(weight)[1:])

    for path, layer in module.named_modules():
        for attribute in of_layer(path, layer):
            if any(segment.group >= 0 for layout in attribute.axes for segment in layout):
                yield attribute
