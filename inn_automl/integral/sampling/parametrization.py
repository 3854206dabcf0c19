"""Runs and copies a module with its tensors sampled at other widths."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from inn_automl.integral.graph.groups import CONSTANT, AxisLayout, Coupling, Segment, length
from inn_automl.integral.sampling.partition import Partition, Sampling, Trainable
from inn_automl.integral.sampling.prefix_slices import Prefix, prefix_slices, zero_padded

Counts = tuple[int, ...]
"""Number of counts of each coupled group's variable."""

_Samplings = Callable[[int, Tensor], Sampling]
"""How a group (by its number) is sampled, for tensors of the device and type of a given one."""

_MAX_PLANS = 256
"""Widths whose plans are kept: training comes back to the same ones again and again."""

_BUCKET_SIZE = 16
_MAX_BUCKETS = 8
"""Channels are padded up to multiples of 16, a vector of a CPU's registers; to larger ones where a
group would have more than eight of them."""
_MATRIX_DIMS = 2


class _Tensor(NamedTuple):
    """A parameter or buffer, every place that a module keeps it in, and the axes that are resized.

    `axes` holds (dimension, what it is made of, whether a layer sums over it); `width_delta` where its
    width_delta along the width is kept.
    """

    name: str
    places: tuple[tuple[dict[str, Any], str], ...]
    axes: tuple[tuple[int, AxisLayout, bool], ...]
    is_buffer: bool
    is_statistic: bool
    width_delta: tuple[dict[str, Any], str] | None = None

    @property
    def value(self) -> Tensor:
        owner, key = self.places[0]
        return owner[key]

    @property
    def delta_value(self) -> Tensor:
        assert self.width_delta is not None
        owner, key = self.width_delta
        return owner[key]


class _Planned(NamedTuple):
    """What becomes of a tensor at some widths.

    `prefix` is its size there if its counts are its first elements along each axis, None if they
    are not; `padded` is that with channels of zeros, `width_coordinate` what its width_delta counts.
    """

    prefix: tuple[int, ...] | None
    padded: tuple[int, ...]
    width_coordinate: float


class _SizeAttribute(NamedTuple):
    """A number that a layer keeps beside its tensors: the product of the sizes of axes (or all of
    them, as a tuple).
    """

    path: str
    layer: nn.Module
    name: str
    axes: tuple[AxisLayout, ...]
    is_tuple: bool = False

    def value(self, counts: Counts) -> int | tuple[int, ...]:
        sizes = tuple(length(parts, counts) for parts in self.axes)
        return sizes if self.is_tuple else math.prod(sizes)


class WeightSampler:
    """A module that can run, and be copied, at any number of counts of each coupled group.

    Args:
        module: its parameters are the nodes; they are replaced while it runs, and put back.
        coupling: of the module.
        partitions: how each coupled group is sampled.
    """

    def __init__(
        self, module: nn.Module, coupling: Coupling, partitions: Sequence[Partition]
    ) -> None:
        self.module = module
        self.coupling = coupling
        self.partitions = list(partitions)
        self.full_counts = coupling.full_counts()
        self._tensors = list(self._find_tensors())
        self._attributes = list(_size_attributes(module, coupling))
        self._norms = [
            m
            for m in module.modules()
            if type(m).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
        ]
        self._plans: dict[tuple[Counts, Counts], list[_Planned]] = {}

    def _find_tensors(self) -> Iterator[_Tensor]:
        places: dict[int, list[tuple[dict[str, Any], str]]] = {}
        statistics: set[int] = set()
        for layer in self.module.modules():
            for owner in (layer._parameters, layer._buffers):
                for key, tensor in owner.items():
                    if tensor is not None:
                        places.setdefault(id(tensor), []).append((owner, key))
            if isinstance(layer, _NormBase):
                statistics |= {
                    id(layer.running_mean),
                    id(layer.running_var),
                    id(layer.num_batches_tracked),
                }
        for name, tensor in [*self.module.named_parameters(), *self.module.named_buffers()]:
            contracted = self.coupling.contracted.get(name, ())
            axes = tuple(
                (dim, parts, dim in contracted)
                for dim, parts in enumerate(self.coupling.axes[name])
                if any(part.group >= 0 for part in parts)
            )
            is_buffer = name in self.coupling.buffers
            yield _Tensor(
                name, tuple(places[id(tensor)]), axes, is_buffer, id(tensor) in statistics
            )

    @property
    def sampled_parameters(self) -> list[str]:
        """Names of the parameters that widths change."""
        return [tensor.name for tensor in self._tensors if tensor.axes and not tensor.is_buffer]

    def add_width_deltas(self, width_deltas: nn.ParameterList) -> None:
        """From now on a parameter's counts are its own plus its width_coordinate times those of its
        width_delta.

        Args:
            width_deltas: of `sampled_parameters`, in their order.
        """
        positions = {name: str(i) for i, name in enumerate(self.sampled_parameters)}
        self._tensors = [
            tensor._replace(width_delta=(width_deltas._parameters, positions[tensor.name]))
            if tensor.name in positions
            else tensor
            for tensor in self._tensors
        ]
        self._plans.clear()

    def is_identity(self, counts: Counts) -> bool:
        """Whether sampling changes nothing."""
        if counts != self.full_counts:
            return False
        sampling = self._samplings(counts)
        like = next(self.module.parameters())
        return all(sampling(group, like).is_identity for group in range(len(counts)))

    @functools.cached_property
    def _bucket_sizes(self) -> tuple[int, ...]:
        """What the counts of each group may be padded up to multiples of; 1 where there is
        nothing to gain.
        """
        smallest = self.coupling.counts(
            {group.name: group.allowed.start for group in self.coupling.groups}
        )
        sampling = self._samplings(smallest)
        convolved: set[int] = set()
        others: set[int] = set()
        for tensor in self._tensors:
            groups = {
                part.group for _, parts, _ in tensor.axes for part in parts if part.group >= 0
            }
            if self._planned(tensor, smallest, smallest, sampling).prefix is None:
                others |= groups
            elif tensor.value.dim() > _MATRIX_DIMS:
                convolved |= groups
        padded = convolved - others if self.coupling.supports_zero_padding else set()
        return tuple(
            _BUCKET_SIZE * math.ceil(num / (_BUCKET_SIZE * _MAX_BUCKETS)) if group in padded else 1
            for group, num in enumerate(self.full_counts)
        )

    @property
    def supports_zero_padding(self) -> bool:
        """Whether `resized` with `pad_channels` does anything."""
        return any(grain > 1 for grain in self._bucket_sizes)

    def _padded(self, counts: Counts) -> Counts:
        return tuple(
            min(full, grain * math.ceil(num / grain))
            for num, full, grain in zip(counts, self.full_counts, self._bucket_sizes, strict=True)
        )

    @contextlib.contextmanager
    def subnet(self, counts: Counts, *, pad_channels: bool = False) -> Iterator[None]:
        """The module at other widths, inside of the context.

        In training mode buffers are copies, and running statistics of batch normalization are set
        aside, so that those of the full width stay as they are.

        Args:
            pad_channels: with channels of zeros up to a few numbers of them, where that changes
                nothing: a CPU compiles kernels for every new number, which takes as long as to run
                them several times.
        """
        padded = self._padded(counts) if pad_channels else counts
        swapped: list[tuple[dict[str, Any], str, Any]] = []

        def swap(owner: dict[str, Any], key: str, value: Any) -> None:
            swapped.append((owner, key, owner[key]))
            owner[key] = value

        unread = {
            id(norm._buffers): norm
            for norm in self._norms
            if norm.training and counts != self.full_counts
        }
        try:
            for norm in unread.values():
                swap(vars(norm), "track_running_stats", False)
            for tensor, value in self._sampled(counts, padded, without=unread.keys()):
                if tensor.is_buffer and self.module.training and counts != self.full_counts:
                    value = value.clone()
                if value is not tensor.value:
                    for owner, key in tensor.places:
                        swap(owner, key, value)
            for attribute in self._attributes:
                swap(vars(attribute.layer), attribute.name, attribute.value(padded))
            yield
        finally:
            for owner, key, old in reversed(swapped):
                owner[key] = old

    def discretize(self, counts: Counts) -> nn.Module:
        """A plain module at the widths, with tensors of its own."""
        memo: dict[int, Any] = {}
        with torch.no_grad():
            for tensor, value in self._sampled(counts, counts):
                original, value = tensor.value, value.detach()
                if value.untyped_storage().data_ptr() == original.untyped_storage().data_ptr():
                    value = value.clone(memory_format=torch.contiguous_format)
                value = value.contiguous()
                memo[id(original)] = (
                    nn.Parameter(value, requires_grad=original.requires_grad)
                    if isinstance(original, nn.Parameter)
                    else value
                )
            plain = copy.deepcopy(self.module, memo)
        for attribute in self._attributes:
            setattr(plain.get_submodule(attribute.path), attribute.name, attribute.value(counts))
        return plain

    def parameters(self, counts: Counts) -> dict[str, Tensor]:
        """Every parameter's counts by its name, differentiable."""
        return {
            tensor.name: value
            for tensor, value in self._sampled(counts, counts)
            if not tensor.is_buffer
        }

    def sample_axis(self, value: Tensor, dim: int, parts: AxisLayout, counts: Counts) -> Tensor:
        """Counts of a tensor along an axis of the full width; no layer sums over it."""
        return self._sample_axis(value, dim, parts, self._samplings(counts), integrates=False)

    def absorb_full_width_weights(self) -> None:
        """Divides the nodes by the quadrature weights at full width, so that sampling there gives
        the module back.

        Learned partitions are left out: their weights change.
        """
        learned = [isinstance(partition, Trainable) for partition in self.partitions]
        with torch.no_grad():
            sampling = self._samplings(self.full_counts)
            for tensor in self._tensors:
                for dim, parts, integrates in tensor.axes:
                    if integrates:
                        kept = tuple(
                            Segment(CONSTANT, p.outer, p.inner * self.full_counts[p.group])
                            if p.group >= 0 and learned[p.group]
                            else p
                            for p in parts
                        )
                        ones = tensor.value.new_ones(tensor.value.shape[dim])
                        weights = self._sample_axis(ones, 0, kept, sampling, integrates=True)
                        tensor.value.div_(
                            weights.reshape([-1] + [1] * (tensor.value.dim() - dim - 1))
                        )

    def _samplings(self, counts: Counts) -> _Samplings:
        """How each group is sampled, for tensors of a device and type; what is learned is computed
        once a call.
        """
        learned: dict[Any, Sampling] = {}

        def sampling(group: int, like: Tensor) -> Sampling:
            partition, num_control_points, num_channels = (
                self.partitions[group],
                self.full_counts[group],
                counts[group],
            )
            if not isinstance(partition, Trainable):
                return _fixed_sampling(
                    partition, num_control_points, num_channels, like.device, like.dtype
                )
            key = (group, like.device, like.dtype)
            if key not in learned:
                learned[key] = partition.sampling(num_control_points, num_channels).to(
                    like.device, like.dtype
                )
            return learned[key]

        return sampling

    def _sampled(
        self, counts: Counts, padded: Counts, without: Container[int] = ()
    ) -> list[tuple[_Tensor, Tensor]]:
        """Every tensor's counts.

        Args:
            padded: `counts`, or more, with zeros.
            without: ids of modules' dictionaries whose tensors are left out.
        """
        sampling = self._samplings(counts)
        sampled: list[tuple[_Tensor, Tensor]] = []
        together: list[tuple[_Tensor, Prefix]] = []
        plan = self._plan(counts, padded, sampling)
        for tensor, (prefix, padded_size, width_coordinate) in zip(
            self._tensors, plan, strict=True
        ):
            if id(tensor.places[0][0]) in without:
                continue
            value = tensor.value
            if prefix == value.shape and width_coordinate == 0:
                sampled.append((tensor, value))
            elif prefix is None or tensor.is_buffer:
                value = self._sampled_by_axis(tensor, width_coordinate, sampling)
                is_padded = prefix is None or prefix == padded_size
                sampled.append(
                    (
                        tensor,
                        value if is_padded else zero_padded(value, value.new_zeros(padded_size)),
                    )
                )
            else:
                width_delta = tensor.delta_value if width_coordinate > 0 else None
                together.append(
                    (tensor, (value, width_delta, prefix, padded_size, width_coordinate))
                )
        blocks = prefix_slices([wanted for _, wanted in together])
        return sampled + [
            (tensor, block) for (tensor, _), block in zip(together, blocks, strict=True)
        ]

    def _plan(self, counts: Counts, padded: Counts, sampling: _Samplings) -> list[_Planned]:
        """What becomes of each tensor."""
        plan = self._plans.get((counts, padded))
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = [self._planned(tensor, counts, padded, sampling) for tensor in self._tensors]
            self._plans[counts, padded] = plan
        return plan

    def _planned(
        self, tensor: _Tensor, counts: Counts, padded: Counts, sampling: _Samplings
    ) -> _Planned:
        shape = tuple(tensor.value.shape)
        if tensor.is_statistic and counts == self.full_counts:
            # They are those of the network at full width, not functions with nodes.
            return _Planned(shape, shape, 0.0)
        width_coordinate = (
            0.0
            if tensor.width_delta is None
            else self.coupling.width_coordinate(tensor.name, counts)
        )
        sizes, padded_size = list(shape), list(shape)
        for dim, parts, _ in tensor.axes:
            part, *others = parts
            if others or part.outer != 1 or not sampling(part.group, tensor.value).is_prefix:
                return _Planned(None, (), width_coordinate)
            sizes[dim], padded_size[dim] = (
                counts[part.group] * part.inner,
                padded[part.group] * part.inner,
            )
        return _Planned(tuple(sizes), tuple(padded_size), width_coordinate)

    def _sampled_by_axis(
        self, tensor: _Tensor, width_coordinate: float, sampling: _Samplings
    ) -> Tensor:
        def along_axes(value: Tensor) -> Tensor:
            for dim, parts, integrates in tensor.axes:
                value = self._sample_axis(value, dim, parts, sampling, integrates=integrates)
            return value

        sampled = along_axes(tensor.value)
        if width_coordinate > 0:
            # Two operations: a fused one rounds otherwise than readers of exported weights do.
            sampled = sampled + width_coordinate * along_axes(tensor.delta_value)
        return sampled.detach() if tensor.is_statistic else sampled

    def _sample_axis(
        self, value: Tensor, dim: int, parts: AxisLayout, sampling: _Samplings, *, integrates: bool
    ) -> Tensor:
        if len(parts) > 1:
            pieces = value.split([length((part,), self.full_counts) for part in parts], dim)
            sampled = [
                self._sample_axis(piece, dim, (part,), sampling, integrates=integrates)
                for piece, part in zip(pieces, parts, strict=True)
            ]
            return torch.cat(sampled, dim)
        (part,) = parts
        if part.group < 0:
            return value
        rule = sampling(part.group, value)
        if rule.is_identity:
            return value
        if part.outer == part.inner == 1:
            return rule.apply(value, dim, integrate=integrates)
        split = value.unflatten(dim, (part.outer, rule.num_control_points, part.inner))
        return rule.apply(split, dim + 1, integrate=integrates).flatten(dim, dim + 2)


@functools.lru_cache(maxsize=1024)
def _fixed_sampling(
    partition: Partition,
    num_control_points: int,
    num_channels: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Sampling:
    return partition.sampling(num_control_points, num_channels).to(device, dtype)


def _size_attributes(module: nn.Module, coupling: Coupling) -> Iterator[_SizeAttribute]:
    """The sizes that torch's layers keep, that their forward reads or that they print."""
    first_names = {id(t): name for name, t in [*module.named_parameters(), *module.named_buffers()]}

    def axes(tensor: Any) -> tuple[AxisLayout, ...]:
        return coupling.axes[first_names[id(tensor)]]

    def of(path: str, layer: nn.Module) -> Iterator[_SizeAttribute]:
        weight = layer._parameters.get("weight")
        shape = coupling.normalized_shapes.get(path)
        if shape is not None and "normalized_shape" in vars(layer):
            yield _SizeAttribute(path, layer, "normalized_shape", shape, is_tuple=True)
        elif isinstance(layer, _NormBase):
            tensor = weight if weight is not None else layer.running_mean
            if tensor is not None:
                yield _SizeAttribute(path, layer, "num_features", axes(tensor))
        elif weight is None:
            return
        elif isinstance(layer, _ConvNd):
            groups = coupling.conv_groups.get(path, (Segment(CONSTANT, layer.groups, 1),))
            of_all, of_one = ("in_channels", "out_channels")[
                :: 1 if isinstance(layer, _ConvTransposeNd) else -1
            ]
            yield _SizeAttribute(path, layer, "groups", (groups,))
            yield _SizeAttribute(path, layer, of_all, axes(weight)[:1])
            yield _SizeAttribute(path, layer, of_one, (axes(weight)[1], groups))
        elif isinstance(layer, nn.Linear):
            yield _SizeAttribute(path, layer, "out_features", axes(weight)[:1])
            yield _SizeAttribute(path, layer, "in_features", axes(weight)[1:])
        elif isinstance(layer, nn.GroupNorm):
            yield _SizeAttribute(path, layer, "num_channels", axes(weight))
        elif isinstance(layer, nn.PReLU):
            yield _SizeAttribute(path, layer, "num_parameters", axes(weight))
        elif isinstance(layer, nn.Embedding):
            yield _SizeAttribute(path, layer, "embedding_dim", axes(weight)[1:])

    for path, layer in module.named_modules():
        for attribute in of(path, layer):
            if any(part.group >= 0 for parts in attribute.axes for part in parts):
                yield attribute
