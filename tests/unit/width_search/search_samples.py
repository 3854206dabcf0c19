"""A small device and an accuracy that can be computed by hand, for the tests of the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inn_automl.core.spec import DeviceBudget
from inn_automl.width_search.device import DeviceSearch, Prediction
from inn_automl.width_search.space import SearchSpace, Widths


@dataclass(frozen=True)
class Group:
    name: str
    size: int
    allowed: range


GROUPS = tuple(Group(f"g{i}", 32, range(8, 33)) for i in range(4))
TINY = (Group("a", 4, range(2, 5)), Group("b", 3, range(1, 4)))


def accuracy_of(widths: Widths) -> float:
    """Saturates in every group, in the first ones faster."""
    return 0.95 - sum(0.6 ** (i + 1) * 4 ** (-width / 8) for i, width in enumerate(widths.values()))


def predict(batch: Sequence[Widths], ms_per_channel: float = 0.1) -> list[Prediction]:
    """Later groups cost more; channels are computed in lanes of four."""
    found = []
    for widths in batch:
        lanes = [-(-width // 4) * 4 for width in widths.values()]
        latency = ms_per_channel * sum((i + 1) * lane for i, lane in enumerate(lanes))
        params = sum(widths.values()) ** 2
        found.append(
            Prediction(
                latency_ms=latency, params=params, macs=100 * params, size_bytes=4 * params + 500
            )
        )
    return found


def device(
    name: str = "laptop", groups: Sequence[Group] = GROUPS, margin: float = 0.0, **budget: float
) -> DeviceSearch:
    bounds = DeviceBudget.model_validate({"name": name, **budget})
    return DeviceSearch(name, SearchSpace(groups, bounds.granularity), bounds, predict, margin)
