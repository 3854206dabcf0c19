"""Peak memory in the search: a few widths are measured, the others are predicted; only where a
bound asks for it.

A loaded model takes its weights, laid out as the kernels want them, and room for the largest
layer's input and output, on top of what the runtime sets up for any model. So does the prediction,
by non-negative least squares, and on top of that as much as the worst of the measured widths was
above it: who keeps the bound by prediction should keep it when measured, which is what counts in
the end. Of another precision the prediction is that of fp32, which takes the most.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from inn_automl.core.costs import Costs
from inn_automl.core.errors import SpecError
from inn_automl.core.precision import split_point
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.storage import read_json, write_json
from inn_automl.export import OnnxTemplate
from inn_automl.integral import IntegralNetwork, Widths
from inn_automl.latency.config import MEMORY
from inn_automl.latency.design import initial_design
from inn_automl.pipeline.context import JobContext
from inn_automl.width_search.device import Prediction
from inn_automl.width_search.space import SearchSpace

NUM_WIDTHS = 8
"""Widths whose memory is measured."""

Predict = Callable[[Sequence[Widths]], list[Prediction]]


class MemoryModel:
    """Bytes that widths add to a process, never below what was measured of the widths that it was
    fitted on.
    """

    def __init__(self, costs: Sequence[Costs], added_bytes: Sequence[int]) -> None:
        features, measured = _features(costs), np.asarray(added_bytes, dtype=np.float64)
        self._scale = np.maximum(features.max(axis=0), 1.0)
        self._weights, _ = nnls(features / self._scale, measured)
        self.margin_bytes = max(
            0.0, float((measured - features / self._scale @ self._weights).max())
        )

    def predict(self, costs: Sequence[Costs]) -> list[int]:
        predicted = _features(costs) / self._scale @ self._weights + self.margin_bytes
        return [round(float(value)) for value in predicted]


def with_memory(
    job: JobContext,
    network: IntegralNetwork,
    device: DeviceBudget,
    template: Callable[[], OnnxTemplate],
    predict: Predict,
) -> Predict:
    """`predict`, with memory where the device bounds it; the widths are measured once a job and
    device.

    Raises:
        MeasurementError: they could not be measured.
        SpecError: the device does not tell how much memory a process takes.
    """
    if device.max_memory_bytes is None:
        return predict
    measured = _measured(job, network, device, template)
    model = MemoryModel(
        [network.costs(one["widths"]) for one in measured], [one["added_bytes"] for one in measured]
    )

    def predict_all(batch: Sequence[Widths]) -> list[Prediction]:
        memory = model.predict([network.costs(split_point(point)[0]) for point in batch])
        found = zip(predict(batch), memory, strict=True)
        return [
            replace(prediction, memory_bytes=memory_bytes) for prediction, memory_bytes in found
        ]

    return predict_all


def measure_memory(
    job: JobContext, models: dict[str, Path], device: DeviceBudget
) -> dict[str, int]:
    """Bytes that each model adds to a process on the device, by name.

    Raises:
        MeasurementError: a model could not be measured.
        SpecError: the device does not tell how much memory a process takes.
    """
    found = {}
    for name, one in job.measure(models, device, config=MEMORY).items():
        if one.memory is None:
            raise SpecError(
                f"device {device.name!r}: max_memory_bytes = {device.max_memory_bytes} cannot be "
                f"kept, for this device "
                "does not tell how much memory a process takes: leave the bound out."
            )
        found[name] = one.memory.added_bytes
    return found


def _measured(
    job: JobContext,
    network: IntegralNetwork,
    device: DeviceBudget,
    template: Callable[[], OnnxTemplate],
) -> list[dict[str, Any]]:
    path = job.folder / "search" / f"memory-{device.name}.json"
    if not path.exists():
        chosen = initial_design(
            SearchSpace(network.groups, device.granularity), NUM_WIDTHS, seed=job.spec.seed
        )
        with tempfile.TemporaryDirectory() as folder:
            models = {}
            for position, widths in enumerate(chosen):
                models[str(position)] = Path(folder) / f"{position}.onnx"
                template().export(
                    network.discretize(widths).eval(), models[str(position)], widths=widths
                )
            found = measure_memory(job, models, device)
        rows = [
            {"widths": dict(widths), "added_bytes": found[name]}
            for name, widths in zip(models, chosen, strict=True)
        ]
        write_json(path, rows)
    known: list[dict[str, Any]] = read_json(path)
    return known


def _features(costs: Sequence[Costs]) -> NDArray[np.float64]:
    """(n, 3): parameters, elements of the layer with the largest input and output together, and a
    one.
    """
    largest = [
        max(layer.input_elements + layer.output_elements for layer in one.layers) for one in costs
    ]
    return np.array(
        [[one.params, elements, 1.0] for one, elements in zip(costs, largest, strict=True)]
    )
