"""Exporting: models as files in the job's folder, each verified when it is made and made once.

DIR/models/ID.onnx, ID.safetensors, ID.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from inn_automl.core.precision import DEFAULT, join_point
from inn_automl.core.storage import read_json, write_atomically, write_json
from inn_automl.evaluation.onnx_precision import (
    NUM_VERIFIED,
    agreement,
    converted_file,
    evaluate_file,
    template_of,
    verified_difference,
)
from inn_automl.export import OnnxTemplate
from inn_automl.integral import Widths
from inn_automl.pipeline.context import JobContext
from inn_automl.training.trial import Trained


@dataclass(frozen=True)
class Model:
    """An exported candidate, as kept beside its file."""

    id: str
    widths: dict[str, int]
    size_bytes: int
    difference: float
    num_verified: int
    precision: str = DEFAULT
    agreement: float | None = None
    metric_value: float | None = None
    """Of a model that is not fp32: that of the very file on the validation split. None: what the
    search found.
    """


def point_id(widths: Widths, precision: str = DEFAULT, *, fine_tune_seconds: float = 0.0) -> str:
    """Name of a front point: the same widths and precision of a job have the same name on all
    devices.

    Args:
        fine_tune_seconds: for how long it was tuned: a tuned model is another one.
    """
    point: dict[str, Any] = (
        dict(widths) if precision == DEFAULT else dict(join_point(widths, precision))
    )
    if fine_tune_seconds:
        point = {"point": point, "fine_tune_seconds": fine_tune_seconds}
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:12]


def export_model(
    job: JobContext,
    name: str,
    make: Callable[[], nn.Module],
    widths: Widths,
    precision: str,
    template: Callable[[], OnnxTemplate],
) -> Model:
    """A model in the job's folder, exported and verified; the one that is there or in the
    parent's, where there is one.

    Args:
        make: makes the plain module, when it is needed.

    Raises:
        ExportError, StorageError: it could not be exported.
    """
    record = job.folder / "models" / f"{name}.json"
    if job.reuse_from_parent(
        *(f"models/{name}.{ending}" for ending in ("onnx", "safetensors", "json"))
    ):
        return Model(**read_json(record))
    module = make().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if precision == DEFAULT:
        export = template().export(module, onnx_path(job, name), widths=widths)
        model = Model(name, dict(widths), export.size_bytes, export.difference, NUM_VERIFIED)
    else:
        model = _export_converted(job, name, module, widths, precision, template())
    weights = {key: value.contiguous().clone() for key, value in module.state_dict().items()}
    write_atomically(weights_path(job, name), save(weights))
    write_json(record, asdict(model))
    return model


def _export_converted(
    job: JobContext,
    name: str,
    module: nn.Module,
    widths: Widths,
    precision: str,
    template: OnnxTemplate,
) -> Model:
    path = onnx_path(job, name)
    with converted_file(template, module, job.dataset, precision, widths=widths) as (
        exported,
        converted,
    ):
        write_atomically(path, converted.read_bytes())
        return Model(
            name,
            dict(widths),
            path.stat().st_size,
            verified_difference(path, precision, module, job.dataset, exported.difference),
            NUM_VERIFIED,
            precision=precision,
            agreement=agreement(exported.path, path, job.dataset),
            metric_value=evaluate_file(path, job.dataset, "validation").metric_value,
        )


def make_template(job: JobContext, trained: Trained) -> OnnxTemplate:
    """The exporter of a job's network."""
    return template_of(trained.architecture, job.dataset)


def onnx_path(job: JobContext, name: str) -> Path:
    return job.folder / "models" / f"{name}.onnx"


def weights_path(job: JobContext, name: str) -> Path:
    return job.folder / "models" / f"{name}.safetensors"
