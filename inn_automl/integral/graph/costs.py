"""Parameters and multiply-accumulates of a network at any widths, without building it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from inn_automl.core.costs import LayerCost
from inn_automl.integral.graph.layout import AxisLayout, length, volume

_MAX_CACHED = 100_000
"""Combinations of counts cached for each layer."""
T = TypeVar("T")


@dataclass(frozen=True)
class LayerShape:
    """Shape of a weighted layer in terms of the coupled groups.

    Attributes:
        name: path of the layer in the module.
        kind: `"conv"`, `"grouped_conv"`, `"conv_transpose"`, `"linear"`, `"matmul"` or
            `"attention"`.
        output, input: axes of the tensors, the channel axis first.
        macs_axes: axes whose sizes multiply to the multiply-accumulates per output element (per
            input element for a transposed convolution).
        parameters: names of the parameters that the layer itself reads.
        batch_size: number of samples that `output` and `input` hold.
    """

    name: str
    kind: str
    output: tuple[AxisLayout, ...]
    input: tuple[AxisLayout, ...]
    macs_axes: tuple[AxisLayout, ...]
    parameters: tuple[str, ...]
    batch_size: int


def layer_cost(
    layer: LayerShape, parameters: Sequence[tuple[AxisLayout, ...]], counts: Sequence[int]
) -> LayerCost:
    """Costs of a layer at the counts of the coupled groups.

    Args:
        parameters: axes of each parameter that the layer reads.
    """
    inputs, outputs = (
        volume(axes, counts) // layer.batch_size for axes in (layer.input, layer.output)
    )
    source = inputs if layer.kind == "conv_transpose" else outputs
    return LayerCost(
        name=layer.name,
        kind=layer.kind,
        macs=source * volume(layer.macs_axes, counts),
        params=sum(volume(axes, counts) for axes in parameters),
        in_channels=length(layer.input[0], counts),
        out_channels=length(layer.output[0], counts),
        input_elements=inputs,
        output_elements=outputs,
    )


class CachedByCounts(Generic[T]):
    """A function of the counts of a few groups, computed once for each combination of them.

    A search computes the costs of thousands of widths, in which a layer sees the same few hundred
    combinations.

    Args:
        groups: indices of the groups that the function depends on.
        compute: the function, of the counts of all groups.
    """

    def __init__(self, groups: Sequence[int], compute: Callable[[Sequence[int]], T]) -> None:
        self._groups, self._compute = tuple(groups), compute
        self._cached: dict[tuple[int, ...], T] = {}

    def __call__(self, counts: Sequence[int]) -> T:
        key = tuple([counts[group] for group in self._groups])
        found = self._cached.get(key)
        if found is None:
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
            found = self._cached[key] = self._compute(counts)
        return found
