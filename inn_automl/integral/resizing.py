"""Runs and copies a module with its tensors sampled at other widths."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from inn_automl.integral.coupling import CONSTANT, Coupling, Part, Parts, length
from inn_automl.integral.partition import Partition, Sampling, Trainable

Samples = tuple[int, ...]
"""Number of samples of each coupled group's variable."""

_Samplings = Callable[[int, Tensor], Sampling]
"""How a group (by its number) is sampled, for tensors of the device and type of a given one."""


class _Tensor(NamedTuple):
    """A parameter or buffer, every place that a module keeps it in, and the axes that are resized.

    `axes` holds (dimension, what it is made of, whether a layer sums over it); `slope` where its slope along the width
    is kept.
    """

    name: str
    places: tuple[tuple[dict[str, Any], str], ...]
    axes: tuple[tuple[int, Parts, bool], ...]
    is_buffer: bool
    is_statistic: bool
    slope: tuple[dict[str, Any], str] | None = None

    @property
    def value(self) -> Tensor:
        owner, key = self.places[0]
        return owner[key]


class _SizeAttribute(NamedTuple):
    """A number that a layer keeps beside its tensors: the product of the sizes of axes (or all of them, as a tuple)."""

    path: str
    layer: nn.Module
    name: str
    axes: tuple[Parts, ...]
    is_tuple: bool = False

    def value(self, samples: Samples) -> int | tuple[int, ...]:
        sizes = tuple(length(parts, samples) for parts in self.axes)
        return sizes if self.is_tuple else math.prod(sizes)


class Resizer:
    """A module that can run, and be copied, at any number of samples of each coupled group.

    Args:
        module: its parameters are the nodes; they are replaced while it runs, and put back.
        coupling: of the module.
        partitions: how each coupled group is sampled.
    """

    def __init__(self, module: nn.Module, coupling: Coupling, partitions: Sequence[Partition]) -> None:
        self.module = module
        self.coupling = coupling
        self.partitions = list(partitions)
        self.full_samples = coupling.full_samples()
        self._tensors = list(self._find_tensors())
        self._attributes = list(_size_attributes(module, coupling))

    def _find_tensors(self) -> Iterator[_Tensor]:
        places: dict[int, list[tuple[dict[str, Any], str]]] = {}
        statistics: set[int] = set()
        for layer in self.module.modules():
            for owner in (layer._parameters, layer._buffers):
                for key, tensor in owner.items():
                    if tensor is not None:
                        places.setdefault(id(tensor), []).append((owner, key))
            if isinstance(layer, _NormBase):
                statistics |= {id(layer.running_mean), id(layer.running_var), id(layer.num_batches_tracked)}
        for name, tensor in [*self.module.named_parameters(), *self.module.named_buffers()]:
            contracted = self.coupling.contracted.get(name, ())
            axes = tuple(
                (dim, parts, dim in contracted)
                for dim, parts in enumerate(self.coupling.axes[name])
                if any(part.group >= 0 for part in parts)
            )
            is_buffer = name in self.coupling.buffers
            yield _Tensor(name, tuple(places[id(tensor)]), axes, is_buffer, id(tensor) in statistics)

    @property
    def resized_parameters(self) -> list[str]:
        """Names of the parameters that widths change."""
        return [tensor.name for tensor in self._tensors if tensor.axes and not tensor.is_buffer]

    def add_slopes(self, slopes: nn.ParameterList) -> None:
        """From now on a parameter's samples are its own plus its narrowness times those of its slope.

        Args:
            slopes: of `resized_parameters`, in their order.
        """
        positions = {name: str(i) for i, name in enumerate(self.resized_parameters)}
        self._tensors = [
            tensor._replace(slope=(slopes._parameters, positions[tensor.name])) if tensor.name in positions else tensor
            for tensor in self._tensors
        ]

    def is_identity(self, samples: Samples) -> bool:
        """Whether sampling changes nothing."""
        if samples != self.full_samples:
            return False
        sampling = self._samplings(samples)
        like = next(self.module.parameters())
        return all(sampling(group, like).is_identity for group in range(len(samples)))

    @contextlib.contextmanager
    def resized(self, samples: Samples) -> Iterator[None]:
        """The module at other widths, inside of the context.

        In training mode buffers are copies, so that the running statistics of the full width stay as they are.
        """
        swapped: list[tuple[dict[str, Any], str, Any]] = []
        sampling = self._samplings(samples)
        try:
            for tensor in self._tensors:
                value = self._sampled(tensor, samples, sampling)
                if tensor.is_buffer and self.module.training and samples != self.full_samples:
                    value = value.clone()
                if value is not tensor.value:
                    for owner, key in tensor.places:
                        swapped.append((owner, key, owner[key]))
                        owner[key] = value
            for attribute in self._attributes:
                attributes = vars(attribute.layer)
                swapped.append((attributes, attribute.name, attributes[attribute.name]))
                attributes[attribute.name] = attribute.value(samples)
            yield
        finally:
            for owner, key, old in reversed(swapped):
                owner[key] = old

    def discretized(self, samples: Samples) -> nn.Module:
        """A plain module at the widths, with tensors of its own."""
        memo: dict[int, Any] = {}
        with torch.no_grad():
            sampling = self._samplings(samples)
            for tensor in self._tensors:
                original, value = tensor.value, self._sampled(tensor, samples, sampling).detach()
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
            setattr(plain.get_submodule(attribute.path), attribute.name, attribute.value(samples))
        return plain

    def sample_axis(self, value: Tensor, dim: int, parts: Parts, samples: Samples) -> Tensor:
        """Samples of a tensor along an axis of the full width; no layer sums over it."""
        return self._sample_axis(value, dim, parts, self._samplings(samples), integrates=False)

    def absorb_full_width_weights(self) -> None:
        """Divides the nodes by the quadrature weights at full width, so that sampling there gives the module back.

        Learned partitions are left out: their weights change.
        """
        learned = [isinstance(partition, Trainable) for partition in self.partitions]
        with torch.no_grad():
            sampling = self._samplings(self.full_samples)
            for tensor in self._tensors:
                for dim, parts, integrates in tensor.axes:
                    if integrates:
                        kept = tuple(
                            Part(CONSTANT, p.outer, p.inner * self.full_samples[p.group])
                            if p.group >= 0 and learned[p.group]
                            else p
                            for p in parts
                        )
                        ones = tensor.value.new_ones(tensor.value.shape[dim])
                        weights = self._sample_axis(ones, 0, kept, sampling, integrates=True)
                        tensor.value.div_(weights.reshape([-1] + [1] * (tensor.value.dim() - dim - 1)))

    def _samplings(self, samples: Samples) -> _Samplings:
        """How each group is sampled, for tensors of a device and type; what is learned is computed once a call."""
        learned: dict[Any, Sampling] = {}

        def sampling(group: int, like: Tensor) -> Sampling:
            partition, num_nodes, num_samples = self.partitions[group], self.full_samples[group], samples[group]
            if not isinstance(partition, Trainable):
                return _fixed_sampling(partition, num_nodes, num_samples, like.device, like.dtype)
            key = (group, like.device, like.dtype)
            if key not in learned:
                learned[key] = partition.sampling(num_nodes, num_samples).to(like.device, like.dtype)
            return learned[key]

        return sampling

    def _sampled(self, tensor: _Tensor, samples: Samples, sampling: _Samplings) -> Tensor:
        value = tensor.value
        if tensor.is_statistic and samples == self.full_samples:
            return value  # they are those of the network at full width, not functions with nodes
        sampled = self._sampled_along_axes(value, tensor.axes, samples, sampling)
        if tensor.slope is not None and (narrowness := self.coupling.narrowness(tensor.name, samples)) > 0:
            owner, key = tensor.slope
            # Two operations: a fused one rounds otherwise than readers of exported weights do.
            sampled = sampled + narrowness * self._sampled_along_axes(owner[key], tensor.axes, samples, sampling)
        return sampled.detach() if tensor.is_statistic else sampled

    def _sampled_along_axes(
        self, value: Tensor, axes: Sequence[tuple[int, Parts, bool]], samples: Samples, sampling: _Samplings
    ) -> Tensor:
        leading = list(value.shape)
        for dim, parts, integrates in axes:
            part, *others = parts
            if not others and part.outer == 1 and sampling(part.group, value).is_leading:
                leading[dim] = samples[part.group] * part.inner
            else:
                value = self._sample_axis(value, dim, parts, sampling, integrates=integrates)
                leading[dim] = value.shape[dim]
        return _leading(value, leading)

    def _sample_axis(self, value: Tensor, dim: int, parts: Parts, sampling: _Samplings, *, integrates: bool) -> Tensor:
        if len(parts) > 1:
            pieces = value.split([length((part,), self.full_samples) for part in parts], dim)
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
        split = value.unflatten(dim, (part.outer, rule.num_nodes, part.inner))
        return rule.apply(split, dim + 1, integrate=integrates).flatten(dim, dim + 2)


def _leading(value: Tensor, sizes: list[int]) -> Tensor:
    """The first elements along each dimension.

    As one padding by negative amounts, whose gradient is written once: each slice would write one of its own.
    """
    padding = [amount for size, full in zip(sizes, value.shape, strict=True) for amount in (size - full, 0)]
    return torch.constant_pad_nd(value, padding[::-1]) if any(padding) else value


@functools.lru_cache(maxsize=1024)
def _fixed_sampling(
    partition: Partition, num_nodes: int, num_samples: int, device: torch.device, dtype: torch.dtype
) -> Sampling:
    return partition.sampling(num_nodes, num_samples).to(device, dtype)


def _size_attributes(module: nn.Module, coupling: Coupling) -> Iterator[_SizeAttribute]:
    """The sizes that torch's layers keep, that their forward reads or that they print."""
    first_names = {id(t): name for name, t in [*module.named_parameters(), *module.named_buffers()]}

    def axes(tensor: Any) -> tuple[Parts, ...]:
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
            groups = coupling.conv_groups.get(path, (Part(CONSTANT, layer.groups, 1),))
            of_all, of_one = ("in_channels", "out_channels")[:: 1 if isinstance(layer, _ConvTransposeNd) else -1]
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
