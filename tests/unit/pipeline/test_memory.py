from __future__ import annotations

import numpy as np

from inn_automl.core.costs import Costs, LayerCost
from inn_automl.core.spec import DeviceBudget
from inn_automl.pipeline.memory import MemoryModel
from inn_automl.width_search.constraints import constraint_violations


def cost(channels: int) -> Costs:
    layers = tuple(
        LayerCost(
            str(i), "conv", 0, 9 * channels**2, channels, channels, 64 * channels, 64 * channels
        )
        for i in range(2)
    )
    return Costs(sum(layer.params for layer in layers), 0, layers)


def test_memory_is_predicted_from_weights_and_the_largest_layer() -> None:
    rng = np.random.default_rng(0)

    def truth(channels: int) -> float:
        return 17e6 + 4.5 * cost(channels).params + 4 * 128 * channels

    known = [8, 12, 16, 24, 32, 48, 64]
    measured = [round(truth(channels) * rng.uniform(0.997, 1.003)) for channels in known]
    model = MemoryModel([cost(channels) for channels in known], measured)
    assert all(
        p >= m for p, m in zip(model.predict([cost(c) for c in known]), measured, strict=True)
    )
    others = [10, 20, 40, 60]
    predicted = model.predict([cost(channels) for channels in others])
    assert np.allclose(predicted, [truth(channels) for channels in others], rtol=0.01)


def test_a_memory_bound_binds_predictions_too() -> None:
    bounds = DeviceBudget(name="d", max_memory_bytes=100)
    costs = {"latency_ms": 1.0, "params": 1, "macs": 1, "size_bytes": 1}
    assert constraint_violations(bounds, **costs, memory_bytes=150)["max_memory_bytes"] == 0.5
    assert constraint_violations(bounds, **costs)["max_memory_bytes"] == np.inf
    assert constraint_violations(DeviceBudget(name="d"), **costs) == {}
