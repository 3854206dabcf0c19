"""Layer times of a recommended model, as the runtime of the device accounts for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.result import LayerTime
from inn_automl.core.storage import load_or_make
from inn_automl.export.layers import layer_times
from inn_automl.latency.config import BenchmarkConfig
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.records import MeasuredDevice
from inn_automl.runtimes import NodeTime

PROFILE = BenchmarkConfig(
    min_processes=2,
    max_processes=2,
    num_blocks=1,
    min_s=0.0,
    max_s=20.0,
    num_memory_runs=0,
    num_profiled_runs=60,
)
"""Hardly any timing, which was done before, and enough profiled runs for fractions of a percent."""

_NODE_TIMES = TypeAdapter(list[NodeTime])


def with_layers(
    context: JobContext, device: MeasuredDevice, onnx_path: Callable[[str], Path]
) -> MeasuredDevice:
    """The device with the fractions of time that the layers of its recommended model take.

    There are none without a recommended model, and where the runtime cannot tell. A figure that
    explains is not worth a job: a device that fails here is noted, and the job goes on.

    Args:
        onnx_path: the file of a model, by its id.
    """
    name, budget = device.recommended, device.budget
    if name is None:
        return device
    model = onnx_path(name)

    def profile() -> list[LayerTime]:
        try:
            found = context.measure({name: model}, budget, config=PROFILE)
            nodes = _NODE_TIMES.validate_python(found[name].environment.get("node_times", []))
        except (MeasurementError, SpecError, ValidationError) as error:
            context.progress.note(
                f"{budget.name}: the latency of layers is not known ({str(error).splitlines()[0]})"
            )
            nodes = []
        return layer_times(model, nodes)

    path = context.folder / "measuring" / f"{budget.name}-layers-{name}.json"
    return replace(device, layers=tuple(load_or_make(path, list[LayerTime], profile)))
