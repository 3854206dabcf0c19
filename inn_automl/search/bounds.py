"""The bounds that a model must keep on one device, and by how much one misses them."""

from __future__ import annotations

import math
from typing import Protocol


class Bounds(Protocol):
    """What a model may cost on a device; None does not bind. A `DeviceBudget` is one."""

    @property
    def max_latency_ms(self) -> float | None: ...
    @property
    def max_params(self) -> int | None: ...
    @property
    def max_macs(self) -> int | None: ...
    @property
    def max_size_bytes(self) -> int | None: ...
    @property
    def max_memory_bytes(self) -> int | None: ...


def constraint_violations(
    bounds: Bounds,
    *,
    latency_ms: float,
    params: int,
    macs: int,
    size_bytes: int,
    memory_bytes: int | None = None,
) -> dict[str, float]:
    """By what share each bound that binds is exceeded; without bound where the value is not known.

    Returns:
        Name of the bound -> value / bound - 1: 0.05 is 5 % too much; 0 or less keeps the bound.
    """
    costs = {
        "max_latency_ms": (latency_ms, bounds.max_latency_ms),
        "max_params": (params, bounds.max_params),
        "max_macs": (macs, bounds.max_macs),
        "max_size_bytes": (size_bytes, bounds.max_size_bytes),
        "max_memory_bytes": (
            math.inf if memory_bytes is None else memory_bytes,
            bounds.max_memory_bytes,
        ),
    }
    return {
        name: value / bound - 1.0 for name, (value, bound) in costs.items() if bound is not None
    }
