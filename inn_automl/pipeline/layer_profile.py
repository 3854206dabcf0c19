"""Layer profile: time of each layer of a recommended model, as the runtime accounts for it."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.result import LayerTime
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.storage import read_json, write_json
from inn_automl.export.layers import layer_times
from inn_automl.latency.config import BenchmarkConfig
from inn_automl.pipeline.context import JobContext
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


def profile_layers(
    job: JobContext, device: DeviceBudget, name: str, model: Path
) -> list[LayerTime]:
    """Measures the fraction of a model's time in each layer on a device, once a job.

    Empty if the runtime does not account for layers. A device that fails here is noted, and the job
    continues: a figure that explains is not worth a job.

    Args:
        name: of the model.
        model: its ONNX file.
    """
    path = job.folder / "measuring" / f"{device.name}-layers.json"
    if not path.exists() or read_json(path)["model"] != name:
        try:
            found = job.measure({name: model}, device, config=PROFILE)
            nodes = _NODE_TIMES.validate_python(found[name].environment.get("node_times", []))
        except (MeasurementError, SpecError, ValidationError) as error:
            job.progress.note(
                f"{device.name}: the latency of layers is not known ({str(error).splitlines()[0]})"
            )
            nodes = []
        layers = layer_times(model, nodes)
        write_json(
            path, {"model": name, "layers": [layer.model_dump(mode="json") for layer in layers]}
        )
    return [LayerTime(**layer) for layer in read_json(path)["layers"]]
