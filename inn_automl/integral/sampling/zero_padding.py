"""Zero padding of channels up to a few bucket sizes.

A CPU compiles kernels for every new number of channels, which takes as long as running them
several times. Training draws new widths all the time: with channels padded to a few sizes, the
kernels are reused. Padding channels have zero weights, so their activations are zero, and the next
layer's weights for them are zero too: outputs and gradients stay the same up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.sampling.axis_sampling import Counts
from inn_automl.integral.sampling.sampled_tensors import Plan, SampledTensor

BUCKET_SIZE = 16
"""Channels are padded to multiples of 16, a vector of a CPU's registers."""
_MAX_BUCKETS = 8
"""Buckets of a group: larger groups get larger buckets."""
_MATRIX_DIMS = 2


def bucket_sizes(
    coupling: Coupling, planned: Iterable[tuple[SampledTensor, Plan]], bucket_size: int
) -> tuple[int, ...]:
    """The bucket size of each coupled group; 1 where padding is not supported or gains nothing.

    Padding gains time in convolutions, and is supported for groups of which every tensor is a
    prefix slice.

    Args:
        planned: the tensors of a module with their plans at the smallest widths.
        bucket_size: the smallest bucket.
    """
    convolved: set[int] = set()
    others: set[int] = set()
    for tensor, plan in planned:
        if plan.prefix is None:
            others |= tensor.groups
        elif tensor.value.dim() > _MATRIX_DIMS:
            convolved |= tensor.groups
    padded = convolved - others if coupling.supports_zero_padding else set()
    return tuple(
        bucket_size * math.ceil(count / (bucket_size * _MAX_BUCKETS)) if group in padded else 1
        for group, count in enumerate(coupling.full_counts())
    )


def padded_counts(counts: Counts, full_counts: Counts, buckets: Counts) -> Counts:
    """Counts rounded up to multiples of the bucket sizes, at most those of the full width."""
    return tuple(
        min(full, bucket * math.ceil(count / bucket))
        for count, full, bucket in zip(counts, full_counts, buckets, strict=True)
    )
