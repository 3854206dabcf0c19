"""The weights of a module as functions of the widths: the module runs, or is copied, with sampled
tensors.

`WeightSampler.sampled_state` is a pure function of the widths. Running the module with it swaps
tensors in place instead of calling `torch.func.functional_call`: that one looks up every name on
every call, which made a training step of the families at half width 1 to 4 % slower, and swaps
neither sizes that layers keep (`in_channels`) nor `track_running_stats`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Container, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.graph.layout import CONSTANT, AxisLayout, Segment
from inn_automl.integral.sampling.axis_sampling import AxisSampler, Counts
from inn_automl.integral.sampling.partition import Partition, Trainable
from inn_automl.integral.sampling.prefix_slices import PrefixSlice, prefix_slices, zero_padded
from inn_automl.integral.sampling.sampled_tensors import Plan, SampledTensor, find_tensors, plan
from inn_automl.integral.sampling.size_attributes import find_size_attributes
from inn_automl.integral.sampling.zero_padding import BUCKET_SIZE, bucket_sizes, padded_counts

_MAX_PLANS = 256
"""Widths whose plans are cached: training returns to the same widths often."""


class WeightSampler:
    """Samples the tensors of a module at any channel counts.

    Args:
        module: its parameters are the control points of the continuous weights.
        coupling: the coupled groups of the module.
        partitions: the partition of each coupled group.

    Attributes:
        bucket_size: smallest number of channels to pad to.
    """

    def __init__(
        self, module: nn.Module, coupling: Coupling, partitions: Sequence[Partition]
    ) -> None:
        self.module = module
        self.coupling = coupling
        self.partitions = list(partitions)
        self.full_counts = coupling.full_counts()
        self.bucket_size = BUCKET_SIZE
        self._tensors = list(find_tensors(module, coupling))
        self._size_attributes = list(find_size_attributes(module, coupling))
        self._norms = [
            layer
            for layer in module.modules()
            if type(layer).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
        ]
        self._plans: dict[tuple[Counts, Counts], list[Plan]] = {}

    @property
    def sampled_parameters(self) -> list[str]:
        """Names of the parameters that depend on the widths."""
        return [tensor.name for tensor in self._tensors if tensor.axes and not tensor.is_buffer]

    def add_width_deltas(self, deltas: nn.ParameterList) -> None:
        """Adds width deltas to the sampled parameters, times their width coordinate.

        Args:
            deltas: of `sampled_parameters`, in their order and of their shapes.
        """
        positions = {name: str(i) for i, name in enumerate(self.sampled_parameters)}
        self._tensors = [
            tensor._replace(delta_slot=(deltas._parameters, positions[tensor.name]))
            if tensor.name in positions
            else tensor
            for tensor in self._tensors
        ]
        self._plans.clear()

    def is_identity(self, counts: Counts) -> bool:
        """Return whether sampling at the counts changes nothing."""
        axis_sampler = self._axis_sampler(counts)
        if not axis_sampler.is_full:
            return False
        like = next(self.module.parameters())
        return all(axis_sampler.sampling(i, like).is_identity for i in range(len(counts)))

    @property
    def supports_zero_padding(self) -> bool:
        """True if `pad_channels` of `subnet` has an effect."""
        return any(bucket > 1 for bucket in self._buckets)

    @functools.cached_property
    def _buckets(self) -> Counts:
        """Bucket size of each group, 1 for no padding."""
        smallest = self.coupling.counts(
            {group.name: group.allowed.start for group in self.coupling.groups}
        )
        axis_sampler = self._axis_sampler(smallest)
        planned = [(one, self._plan(one, axis_sampler, smallest)) for one in self._tensors]
        return bucket_sizes(self.coupling, planned, self.bucket_size)

    def sampled_state(
        self, counts: Counts, *, padded: Counts | None = None, without: Container[str] = ()
    ) -> dict[str, Tensor]:
        """Every parameter and buffer at the channel counts, by its first name; the module stays as
        it is.

        Differentiable in the module's parameters, in width deltas and in trainable partitions. A
        tensor that the counts do not change is itself, not a copy.

        Args:
            counts: number of channels of each group, in units, see `Coupling.counts`.
            padded: counts with zero padding, at least `counts`; those by default.
            without: names of tensors to leave out.
        """
        padded = counts if padded is None else padded
        axis_sampler = self._axis_sampler(counts)
        state: dict[str, Tensor] = {}
        slices: dict[str, PrefixSlice] = {}
        for tensor, (prefix, padded_sizes, coordinate) in zip(
            self._tensors, self._planned(axis_sampler, padded), strict=True
        ):
            if tensor.name in without:
                continue
            value = tensor.value
            if prefix == value.shape and coordinate == 0:
                state[tensor.name] = value
            elif prefix is None or tensor.is_buffer:
                sampled = _sampled_by_axis(tensor, axis_sampler, coordinate)
                if prefix != padded_sizes and prefix is not None:
                    sampled = zero_padded(sampled, sampled.new_zeros(padded_sizes))
                state[tensor.name] = sampled
            else:
                delta = tensor.delta if coordinate > 0 else None
                slices[tensor.name] = PrefixSlice(value, delta, prefix, padded_sizes, coordinate)
        state.update(zip(slices, prefix_slices(list(slices.values())), strict=True))
        return state

    @contextlib.contextmanager
    def subnet(self, counts: Counts, *, pad_channels: bool = False) -> Iterator[None]:
        """Runs the module at other channel counts, inside of the context.

        In training mode buffers are copies, and batch normalization uses the statistics of the
        batch only, so that the running statistics of the full width stay as they are.

        Args:
            counts: number of channels of each group, in units.
            pad_channels: whether to pad channels with zeros, see `zero_padding`.
        """
        padded = padded_counts(counts, self.full_counts, self._buckets) if pad_channels else counts
        is_reduced = counts != self.full_counts
        ignored = [norm for norm in self._norms if norm.training] if is_reduced else []
        owners = {id(norm._buffers) for norm in ignored}
        unread = {one.name for one in self._tensors if id(one.slots[0][0]) in owners}
        swapped: list[tuple[dict[str, Any], str, Any]] = []

        def swap(owner: dict[str, Any], key: str, value: Any) -> None:
            swapped.append((owner, key, owner[key]))
            owner[key] = value

        try:
            for norm in ignored:
                swap(vars(norm), "track_running_stats", False)
            state = self.sampled_state(counts, padded=padded, without=unread)
            for tensor in self._tensors:
                value = state.get(tensor.name)
                if value is None:
                    continue
                if tensor.is_buffer and self.module.training and is_reduced:
                    value = value.clone()
                if value is not tensor.value:
                    for owner, key in tensor.slots:
                        swap(owner, key, value)
            for attribute in self._size_attributes:
                swap(vars(attribute.layer), attribute.name, attribute.value(padded))
            yield
        finally:
            for owner, key, old in reversed(swapped):
                owner[key] = old

    def discretize(self, counts: Counts) -> nn.Module:
        """A plain module at the channel counts, with tensors of its own."""
        memo: dict[int, Any] = {}
        with torch.no_grad():
            state = self.sampled_state(counts)
            for tensor in self._tensors:
                original, value = tensor.value, state[tensor.name].detach()
                if value.untyped_storage().data_ptr() == original.untyped_storage().data_ptr():
                    value = value.clone(memory_format=torch.contiguous_format)
                value = value.contiguous()
                memo[id(original)] = (
                    nn.Parameter(value, requires_grad=original.requires_grad)
                    if isinstance(original, nn.Parameter)
                    else value
                )
            plain = copy.deepcopy(self.module, memo)
        for attribute in self._size_attributes:
            setattr(plain.get_submodule(attribute.path), attribute.name, attribute.value(counts))
        return plain

    def parameters(self, counts: Counts) -> dict[str, Tensor]:
        """Every parameter at the channel counts by its name, differentiable."""
        state = self.sampled_state(counts, without=self.coupling.buffers)
        return {tensor.name: state[tensor.name] for tensor in self._tensors if not tensor.is_buffer}

    def sample_axis(self, value: Tensor, dim: int, layout: AxisLayout, counts: Counts) -> Tensor:
        """Samples a tensor along an axis of the full width that no layer sums over."""
        return self._axis_sampler(counts).sample(value, dim, layout, is_integrated=False)

    def absorb_full_width_weights(self) -> None:
        """Divides the control points by the quadrature weights at full width, so that sampling
        there gives the module back.

        Trainable partitions are left out: their quadrature weights change.
        """
        with torch.no_grad():
            axis_sampler = self._axis_sampler(self.full_counts)
            for tensor in self._tensors:
                value = tensor.value
                for dim, layout, is_integrated in tensor.axes:
                    if is_integrated:
                        ones = value.new_ones(value.shape[dim])
                        weights = axis_sampler.sample(
                            ones, 0, self._without_trainable(layout), is_integrated=True
                        )
                        value.div_(weights.reshape([-1] + [1] * (value.dim() - dim - 1)))

    def _without_trainable(self, layout: AxisLayout) -> AxisLayout:
        """The layout with segments of trainable partitions as constants."""

        def is_trainable(segment: Segment) -> bool:
            return segment.group >= 0 and isinstance(self.partitions[segment.group], Trainable)

        return tuple(
            Segment(CONSTANT, one.outer, one.inner * self.full_counts[one.group])
            if is_trainable(one)
            else one
            for one in layout
        )

    def _axis_sampler(self, counts: Counts) -> AxisSampler:
        return AxisSampler(self.partitions, self.full_counts, counts)

    def _planned(self, axis_sampler: AxisSampler, padded: Counts) -> list[Plan]:
        """The plan of each tensor at the counts of the axis sampler; cached."""
        key = (axis_sampler.counts, padded)
        planned = self._plans.get(key)
        if planned is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            planned = [self._plan(tensor, axis_sampler, padded) for tensor in self._tensors]
            self._plans[key] = planned
        return planned

    def _plan(self, tensor: SampledTensor, axis_sampler: AxisSampler, padded: Counts) -> Plan:
        has_delta = tensor.delta_slot is not None
        coordinate = (
            self.coupling.width_coordinate(tensor.name, axis_sampler.counts) if has_delta else 0.0
        )
        return plan(tensor, axis_sampler, padded, coordinate)


def _sampled_by_axis(tensor: SampledTensor, axis_sampler: AxisSampler, coordinate: float) -> Tensor:
    """A tensor that is sampled axis by axis, plus its width delta times the width coordinate."""

    def along_axes(value: Tensor) -> Tensor:
        for dim, layout, is_integrated in tensor.axes:
            value = axis_sampler.sample(value, dim, layout, is_integrated=is_integrated)
        return value

    sampled = along_axes(tensor.value)
    if coordinate > 0:
        # Two operations: a fused one rounds otherwise than readers of exported weights do.
        sampled = sampled + coordinate * along_axes(tensor.delta)
    return sampled.detach() if tensor.is_statistic else sampled
