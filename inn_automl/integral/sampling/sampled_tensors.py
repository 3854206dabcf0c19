"""The parameters and buffers of a module whose axes are sampled, and the plan of each at some
widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.graph.layout import AxisLayout
from inn_automl.integral.sampling.axis_sampling import AxisSampler, Counts

Slot = tuple[dict[str, Any], str]
"""A dictionary of a module that holds a tensor (`_parameters`, `_buffers`), and the key there."""


class SampledAxis(NamedTuple):
    """An axis of a tensor that holds coupled channels.

    Attributes:
        dim: its position.
        layout: its segments.
        is_integrated: whether a layer sums over it, so that quadrature weights apply.
    """

    dim: int
    layout: AxisLayout
    is_integrated: bool


class SampledTensor(NamedTuple):
    """A parameter or buffer of a module.

    Attributes:
        name: its first name in the module.
        slots: every attribute that holds it; several if it is tied.
        axes: those that depend on the widths.
        is_buffer: whether it is a buffer.
        is_statistic: whether it is a running statistic of a normalization layer.
        delta_slot: the slot of its width delta, if it has one.
    """

    name: str
    slots: tuple[Slot, ...]
    axes: tuple[SampledAxis, ...]
    is_buffer: bool
    is_statistic: bool
    delta_slot: Slot | None = None

    @property
    def value(self) -> Tensor:
        """The tensor at full width."""
        owner, key = self.slots[0]
        return owner[key]

    @property
    def delta(self) -> Tensor:
        """The width delta, of the shape of `value`."""
        assert self.delta_slot is not None
        owner, key = self.delta_slot
        return owner[key]

    @property
    def groups(self) -> set[int]:
        """Indices of the coupled groups that its axes belong to."""
        return {
            segment.group for axis in self.axes for segment in axis.layout if segment.group >= 0
        }


class Plan(NamedTuple):
    """The sampling of one tensor at some widths.

    Attributes:
        prefix: sizes of the sampled tensor, if it is a prefix slice: the first elements along each
            axis. None if it is not.
        padded: sizes with zero padding; empty where `prefix` is None.
        width_coordinate: factor of the width delta; 0 without one.
    """

    prefix: tuple[int, ...] | None
    padded: tuple[int, ...]
    width_coordinate: float


def find_tensors(module: nn.Module, coupling: Coupling) -> Iterator[SampledTensor]:
    """The parameters and buffers of a module, tied ones once."""
    slots: dict[int, list[Slot]] = {}
    statistics: set[int] = set()
    for layer in module.modules():
        for owner in (layer._parameters, layer._buffers):
            for key, tensor in owner.items():
                if tensor is not None:
                    slots.setdefault(id(tensor), []).append((owner, key))
        if isinstance(layer, _NormBase):
            statistics |= {
                id(layer.running_mean),
                id(layer.running_var),
                id(layer.num_batches_tracked),
            }
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        contracted = coupling.contracted.get(name, ())
        axes = tuple(
            SampledAxis(dim, layout, dim in contracted)
            for dim, layout in enumerate(coupling.axes[name])
            if any(segment.group >= 0 for segment in layout)
        )
        yield SampledTensor(
            name,
            tuple(slots[id(tensor)]),
            axes,
            is_buffer=name in coupling.buffers,
            is_statistic=id(tensor) in statistics,
        )


def plan(
    tensor: SampledTensor, axis_sampler: AxisSampler, padded: Counts, width_coordinate: float
) -> Plan:
    """The plan of a tensor at the counts of an axis sampler.

    Args:
        padded: counts with zero padding, at least those of the sampler.
        width_coordinate: of the tensor at these counts; 0 without a width delta.
    """
    shape = tuple(tensor.value.shape)
    if tensor.is_statistic and axis_sampler.is_full:
        # Statistics belong to the network at full width; they are no functions of a channel.
        return Plan(shape, shape, 0.0)
    prefix_sizes, padded_sizes = list(shape), list(shape)
    for dim, layout, _ in tensor.axes:
        first, *others = layout
        is_prefix = (
            not others
            and first.outer == 1
            and axis_sampler.sampling(first.group, tensor.value).is_prefix
        )
        if not is_prefix:
            return Plan(None, (), width_coordinate)
        prefix_sizes[dim] = axis_sampler.counts[first.group] * first.inner
        padded_sizes[dim] = padded[first.group] * first.inner
    return Plan(tuple(prefix_sizes), tuple(padded_sizes), width_coordinate)
