"""Models as files in the job's folder, each verified when it is made and made once.

DIR/models/ID.onnx, ID.safetensors, ID.json
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from inn_automl.core.precision import DEFAULT, join_point
from inn_automl.core.result import Candidate
from inn_automl.core.storage import load_or_make, reuse_files, write_atomically
from inn_automl.evaluation.building import make_builder
from inn_automl.evaluation.candidates import CandidateBuilder
from inn_automl.evaluation.onnx_precision import (
    NUM_VERIFIED,
    OnnxTemplates,
    agreement,
    converted_file,
    evaluate_file,
    verified_difference,
)
from inn_automl.integral import Widths
from inn_automl.tasks import Task
from inn_automl.training.trained import Trained

OnModel = Callable[[float, str], None]
"""Called before a model is made, with the fraction that is done and the model's id."""


@dataclass(frozen=True)
class ExportedModel:
    """A candidate as a verified ONNX file."""

    id: str
    widths: dict[str, int]
    size_bytes: int
    difference: float
    """Largest difference between ONNX and torch, as a fraction of the largest output."""
    num_verified: int
    precision: str = DEFAULT
    agreement: float | None = None
    """Fraction of the validation samples that a model that is not fp32 classifies as the fp32 one
    does.
    """
    metric_value: float | None = None
    """Metric value of the file itself on the validation split, for a model that is not fp32; None:
    as searched.
    """
    loss: float | None = None
    """Of a proper score, likewise."""
    samples: str | None = None
    """What each validation sample says of it, likewise; see `SampleScores.encoded`."""


@dataclass(frozen=True)
class ModelExporter:
    """Exports models of a job's network into its folder, and finds them there.

    Args:
        trained: the network.
        task: of the job.
        folder: the job's folder.
        templates: exporters that were made.
        parent: folder of the finished job that is extended; its models are copied.
    """

    trained: Trained
    task: Task
    folder: Path
    templates: OnnxTemplates
    parent: Path | None = None

    def onnx_path(self, name: str) -> Path:
        """The ONNX file of a model."""
        return self.folder / "models" / f"{name}.onnx"

    def weights_path(self, name: str) -> Path:
        """The weights of a model."""
        return self.folder / "models" / f"{name}.safetensors"

    def export_candidates(
        self, candidates: Mapping[str, Candidate], on_model: OnModel
    ) -> dict[str, ExportedModel]:
        """Exports candidates of the search, by their ids.

        Raises:
            ExportError, StorageError: one could not be exported.
        """
        exported = {}
        for position, (name, candidate) in enumerate(candidates.items()):
            on_model(position / len(candidates), name)
            make = functools.partial(self._sampled, candidate.widths)
            exported[name] = self.export(name, make, candidate.widths, candidate.precision)
        return exported

    def export(
        self, name: str, make: Callable[[], nn.Module], widths: Widths, precision: str
    ) -> ExportedModel:
        """Exports and verifies a model, unless this folder or the parent has it already.

        Args:
            name: id of the model.
            make: makes the plain module, when it is needed.

        Raises:
            ExportError, StorageError: it could not be exported.
        """
        files = [f"models/{name}.{ending}" for ending in ("onnx", "safetensors", "json")]
        reuse_files(self.parent, self.folder, files)

        def export() -> ExportedModel:
            module = make().to(memory_format=torch.contiguous_format)
            model = self._export(module, name, widths, precision)
            weights = {key: one.contiguous().clone() for key, one in module.state_dict().items()}
            write_atomically(self.weights_path(name), save(weights))
            return model

        return load_or_make(self.folder / files[-1], ExportedModel, export)

    @functools.cached_property
    def builder(self) -> CandidateBuilder:
        """Builds candidates of the network."""
        return make_builder(self.trained.network(), self.task, self.trained.folder)

    def _sampled(self, widths: Widths) -> nn.Module:
        return self.builder.build(widths).module

    def _export(
        self, module: nn.Module, name: str, widths: Widths, precision: str
    ) -> ExportedModel:
        template, path = (
            self.templates.get(self.trained.architecture, self.task.dataset),
            self.onnx_path(name),
        )
        if precision == DEFAULT:
            made = template.export(module, path, widths=widths)
            return ExportedModel(name, dict(widths), made.size_bytes, made.difference, NUM_VERIFIED)
        with converted_file(template, module, self.task.dataset, precision, widths=widths) as (
            exported,
            converted,
        ):
            write_atomically(path, converted.read_bytes())
            difference = exported.difference
            score = evaluate_file(path, self.task, "validation")
            return ExportedModel(
                name,
                dict(widths),
                path.stat().st_size,
                verified_difference(path, precision, module, self.task.dataset, difference),
                NUM_VERIFIED,
                precision=precision,
                agreement=agreement(exported.path, path, self.task.dataset),
                metric_value=score.value,
                loss=score.loss,
                samples=None if score.samples is None else score.samples.encoded(),
            )


def point_id(widths: Widths, precision: str = DEFAULT, *, fine_tune_seconds: float = 0.0) -> str:
    """Name of a front point: the same widths and precision of a job have the same name on all
    devices.

    Args:
        fine_tune_seconds: how long it was fine-tuned, for a fine-tuned model is another one.
    """
    point: dict[str, Any] = (
        dict(widths) if precision == DEFAULT else dict(join_point(widths, precision))
    )
    if fine_tune_seconds:
        point = {"point": point, "fine_tune_seconds": fine_tune_seconds}
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:12]
