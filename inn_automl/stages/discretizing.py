"""Discretizing: a finished job's network at any widths, as a bundle; latency is not measured."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inn_automl.data import Dataset
from inn_automl.errors import UnknownNameError, WidthsError
from inn_automl.export import export_onnx, quantize_onnx, verify_onnx, write_bundle
from inn_automl.integral import IntegralNetwork
from inn_automl.precision import DEFAULT, PRECISIONS
from inn_automl.search.evaluation import Candidates, Evaluation, score_of, split_samples
from inn_automl.search.quantized import NUM_VERIFIED, agreement, evaluate_file, range_samples
from inn_automl.stages.bundling import bundle_config
from inn_automl.stages.measuring import point_id
from inn_automl.training.trial import Trained


def discretize_trained(
    dataset: Dataset, trained: Trained, widths: Mapping[str, int] | float, out: Path, *, precision: str = DEFAULT
) -> Path:
    """Writes a verified bundle of the network at the widths, and returns its path.

    Args:
        out: a path that ends in .zip, or the folder that ID.zip is written to.
        precision: what the model computes in; its quality is that of the very file.

    Raises:
        UnknownNameError: there is no such precision.
        WidthsError: widths that the network does not allow; says which are.
        ExportError, StorageError: the bundle could not be made.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    network = trained.network()
    chosen = _chosen(network, widths)
    name, costs = point_id(chosen, precision), network.costs(chosen)
    module = Candidates(network, dataset).make(chosen).module
    path = out if out.suffix == ".zip" else out / f"{name}.zip"
    with tempfile.TemporaryDirectory() as folder:
        found = {split: _evaluate(module, dataset, split) for split in ("validation", "test")}
        module = module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        exported = onnx = Path(folder) / "model.onnx"
        statistics: dict[str, Any] = {
            "mean": dataset.mean,
            "std": dataset.std,
            "target_statistics": dataset.target_statistics,
        }
        export_onnx(module, exported, input_shape=dataset.input_shape, widths=chosen, **statistics)
        verified = np.asarray(dataset.x[dataset.validation[:NUM_VERIFIED]], dtype=np.float32)
        if precision != DEFAULT:
            onnx = Path(folder) / f"{precision}.onnx"
            quantize_onnx(exported, onnx, range_samples(dataset))
            found = {split: evaluate_file(onnx, dataset, split) for split in found}
        config = bundle_config(
            dataset,
            trained.architecture,
            id=name,
            widths=chosen,
            precision=precision,
            params=costs.params,
            macs=costs.macs,
            validation=found["validation"].quality,
            tested=found["test"].score,
            latency={},
            difference=verify_onnx(exported, module, verified, **statistics),
            num_verified=len(verified),
            agreement=None if onnx is exported else agreement(exported, onnx, dataset),
        )
        write_bundle(path, config, onnx=onnx, weights=module.state_dict())
    return path


def _evaluate(module: torch.nn.Module, dataset: Dataset, split: str) -> Evaluation:
    return Evaluation(score_of(module, split_samples(dataset, split)), 0)


def _chosen(network: IntegralNetwork, widths: Mapping[str, int] | float) -> dict[str, int]:
    if isinstance(widths, Mapping):
        return network.check_widths(widths)
    is_number = isinstance(widths, int | float) and not isinstance(widths, bool)
    if not is_number or not network.min_ratio <= widths <= 1:
        raise WidthsError(
            f"ratio {widths!r} of all widths is out of range: give {network.min_ratio:g} to 1, or a width for each of "
            f"{', '.join(network.full_widths)}."
        )
    return network.uniform_widths(widths)
