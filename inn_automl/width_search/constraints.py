"""The bounds that a model must keep on one device, as constraint violations."""

from __future__ import annotations

import math

from inn_automl.core.spec import DeviceBudget


def constraint_violations(
    bounds: DeviceBudget,
    *,
    latency_ms: float,
    params: int,
    macs: int,
    size_bytes: int,
    memory_bytes: int | None = None,
) -> dict[str, float]:
    """Computes the relative violation of each bound that is set.

    Args:
        bounds: of the device; bounds that are None are left out.
        memory_bytes: None if unknown, which violates a memory bound infinitely.

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
