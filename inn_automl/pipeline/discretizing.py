"""Discretizing: a finished job's network at any widths, as a bundle; latency is not measured."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inn_automl.core.errors import UnknownNameError, WidthsError
from inn_automl.core.precision import DEFAULT, PRECISIONS
from inn_automl.core.result import FineTuning
from inn_automl.data import Dataset
from inn_automl.evaluation.building import make_builder
from inn_automl.evaluation.candidates import CandidateBuilder, evaluate_module
from inn_automl.evaluation.onnx_precision import (
    agreement,
    convert_file,
    evaluate_file,
    verified_difference,
    verified_samples,
)
from inn_automl.export import export_onnx, verify_onnx
from inn_automl.integral import IntegralNetwork
from inn_automl.pipeline.bundling import bundle_config, store_bundle
from inn_automl.pipeline.exporting import ExportedModel, point_id
from inn_automl.tasks import Task
from inn_automl.training.fine_tuning import check_seconds, fine_tune
from inn_automl.training.trained import Trained


def discretize_trained(
    task: Task,
    trained: Trained,
    widths: Mapping[str, int] | float,
    out: Path,
    *,
    precision: str = DEFAULT,
    fine_tune_seconds: float = 0.0,
    optimism: Mapping[str, float] | None = None,
) -> Path:
    """Writes a verified bundle of the network at the widths, and returns its path.

    Args:
        out: a path that ends in .zip, or the folder that ID.zip is written to.
        precision: precision that the model computes in; the file itself is evaluated.
        fine_tune_seconds: how long the model is fine-tuned on the training samples first
            (`training.fine_tuning`); 0: it is not.
        optimism: by the id of each model that was chosen by its validation value, by how much that
            flatters it.

    Raises:
        UnknownNameError: there is no such precision.
        InputError: `fine_tune_seconds` is below 0 or above 3600.
        WidthsError: widths that the network does not allow; says which are.
        ExportError, StorageError: the bundle could not be made.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if fine_tune_seconds != 0:
        check_seconds(fine_tune_seconds)
    dataset, network = task.dataset, trained.network()
    chosen = _chosen(network, widths)
    costs = network.costs(chosen)
    name = point_id(chosen, precision, fine_tune_seconds=fine_tune_seconds)
    module, fine_tuning = _make(
        make_builder(network, task, trained.folder), chosen, task, fine_tune_seconds
    )
    path = out if out.suffix == ".zip" else out / f"{name}.zip"
    with tempfile.TemporaryDirectory() as folder:
        found = {
            split: evaluate_module(module, task.split(split)) for split in ("validation", "test")
        }
        module = module.to(memory_format=torch.contiguous_format)
        onnx = Path(folder) / f"{name}.onnx"
        exported = _export(module, onnx, dataset, chosen, precision)
        if precision != DEFAULT:
            found = {split: evaluate_file(onnx, task, split) for split in found}
        config = bundle_config(
            task,
            trained.architecture,
            exported,
            params=costs.params,
            macs=costs.macs,
            validation=found["validation"].value - (optimism or {}).get(name, 0.0),
            tested=found["test"],
            latency={},
            fine_tuning=fine_tuning,
            weights=trained.weights,
        )
        store_bundle(path, config, onnx, module.state_dict(), dataset)
    return path


def _export(
    module: torch.nn.Module,
    path: Path,
    dataset: Dataset,
    widths: Mapping[str, int],
    precision: str,
) -> ExportedModel:
    """Exports and verifies one module, without a template that others could share."""
    statistics: dict[str, Any] = {
        "mean": dataset.mean,
        "std": dataset.std,
        "target_statistics": dataset.target_statistics,
    }
    exported = path.with_suffix(f".{DEFAULT}{path.suffix}")
    export_onnx(module, exported, input_shape=dataset.input_shape, widths=widths, **statistics)
    verified = verified_samples(dataset)
    difference = verify_onnx(exported, module, verified, **statistics)
    if precision == DEFAULT:
        exported.rename(path)
    else:
        convert_file(exported, path, precision, dataset)
    return ExportedModel(
        path.stem,
        dict(widths),
        path.stat().st_size,
        verified_difference(path, precision, module, dataset, difference),
        len(verified),
        precision=precision,
        agreement=None if precision == DEFAULT else agreement(exported, path, dataset),
    )


def _make(
    candidates: CandidateBuilder,
    widths: Mapping[str, int],
    task: Task,
    fine_tune_seconds: float,
) -> tuple[torch.nn.Module, FineTuning | None]:
    """The candidate at the widths, fine-tuned where that is requested and helps."""
    if not fine_tune_seconds:
        return candidates.build(widths).module, None
    made = fine_tune(candidates, widths, task, seconds=fine_tune_seconds, seed=0)
    outcome = made.outcome
    fine_tuning = outcome.to_result(outcome.metric_value_before) if outcome.is_kept else None
    return made.candidate.module, fine_tuning


def _chosen(network: IntegralNetwork, widths: Mapping[str, int] | float) -> dict[str, int]:
    if isinstance(widths, Mapping):
        return network.check_widths(widths)
    is_number = isinstance(widths, int | float) and not isinstance(widths, bool)
    if not is_number or not network.min_ratio <= widths <= 1:
        raise WidthsError(
            f"ratio {widths!r} of all widths is out of range: give {network.min_ratio:g} to 1, or "
            f"a width for each of "
            f"{', '.join(network.full_widths)}."
        )
    return network.uniform_widths(widths)
