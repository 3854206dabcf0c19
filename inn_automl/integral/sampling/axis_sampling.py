"""Sampling of single axes of tensors, by the partitions of the coupled groups."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from inn_automl.integral.graph.layout import AxisLayout, length
from inn_automl.integral.sampling.partition import Partition, Sampling, Trainable

Counts = tuple[int, ...]
"""Number of channels of each coupled group, in units of the group: see `Coupling.counts`."""


class AxisSampler:
    """Samples axes of tensors at given channel counts.

    Samplings of trainable partitions are computed once for each instance: one instance serves one
    step of the optimizer.

    Args:
        partitions: of each coupled group.
        full_counts: counts at full width, those of the tensors that are sampled.
        counts: counts to sample at.
    """

    def __init__(
        self, partitions: Sequence[Partition], full_counts: Counts, counts: Counts
    ) -> None:
        self.counts = counts
        self._partitions = partitions
        self._full_counts = full_counts
        self._trained: dict[tuple[int, torch.device, torch.dtype], Sampling] = {}

    @property
    def is_full(self) -> bool:
        """True if the counts are those of the full width."""
        return self.counts == self._full_counts

    def sampling(self, group: int, like: Tensor) -> Sampling:
        """The sampling of a group, for tensors of the device and dtype of `like`.

        Args:
            group: index of a coupled group.
        """
        partition = self._partitions[group]
        sizes = self._full_counts[group], self.counts[group]
        if not isinstance(partition, Trainable):
            return _fixed_sampling(partition, *sizes, like.device, like.dtype)
        key = (group, like.device, like.dtype)
        if key not in self._trained:
            self._trained[key] = partition.sampling(*sizes).to(like.device, like.dtype)
        return self._trained[key]

    def sample(self, value: Tensor, dim: int, layout: AxisLayout, *, is_integrated: bool) -> Tensor:
        """Samples a tensor along one axis.

        Args:
            value: (..., m, ...), `m` elements at full width at position `dim`.
            layout: segments of the axis.
            is_integrated: whether a layer sums over the axis, so that quadrature weights apply.

        Returns:
            (..., n, ...), differentiable in `value` and in trainable partitions.
        """
        if len(layout) > 1:
            pieces = value.split([length((segment,), self._full_counts) for segment in layout], dim)
            sampled = [
                self.sample(piece, dim, (segment,), is_integrated=is_integrated)
                for piece, segment in zip(pieces, layout, strict=True)
            ]
            return torch.cat(sampled, dim)
        (segment,) = layout
        if segment.group < 0:
            return value
        sampling = self.sampling(segment.group, value)
        if sampling.is_identity:
            return value
        if segment.outer == segment.inner == 1:
            return sampling.apply(value, dim, integrate=is_integrated)
        shape = (segment.outer, sampling.num_control_points, segment.inner)
        split = value.unflatten(dim, shape)
        return sampling.apply(split, dim + 1, integrate=is_integrated).flatten(dim, dim + 2)


@functools.lru_cache(maxsize=1024)
def _fixed_sampling(
    partition: Partition,
    num_control_points: int,
    num_channels: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Sampling:
    return partition.sampling(num_control_points, num_channels).to(device, dtype)
