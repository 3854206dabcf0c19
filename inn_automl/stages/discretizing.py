"""Discretizing: a finished job's network at any widths, as a bundle; latency is not measured."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from inn_automl.data import Dataset
from inn_automl.errors import WidthsError
from inn_automl.export import export_onnx, verify_onnx, write_bundle
from inn_automl.integral import IntegralNetwork
from inn_automl.search.evaluation import calibrate, calibration_samples, count_correct, split_samples
from inn_automl.stages.bundling import Tested, bundle_config
from inn_automl.stages.measuring import NUM_VERIFIED, point_id
from inn_automl.training.trial import Trained


def discretize_trained(dataset: Dataset, trained: Trained, widths: Mapping[str, int] | float, out: Path) -> Path:
    """Writes a verified bundle of the network at the widths, and returns its path.

    Args:
        out: a path that ends in .zip, or the folder that ID.zip is written to.

    Raises:
        WidthsError: widths that the network does not allow; says which are.
        ExportError, StorageError: the bundle could not be made.
    """
    network = trained.network()
    chosen = _chosen(network, widths)
    name, costs = point_id(chosen), network.costs(chosen)
    module, _ = calibrate(network, chosen, calibration_samples(dataset))
    correct, totals = {}, {}
    for split in ("validation", "test"):
        samples = split_samples(dataset, split)
        correct[split], totals[split] = count_correct(module, samples), len(samples)
    module = module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    path = out if out.suffix == ".zip" else out / f"{name}.zip"
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "model.onnx"
        mean, std = dataset.mean, dataset.std
        export_onnx(module, onnx, input_shape=dataset.input_shape, mean=mean, std=std, widths=chosen)
        verified = np.asarray(dataset.x[dataset.validation[:NUM_VERIFIED]], dtype=np.float32)
        config = bundle_config(
            dataset,
            trained.architecture,
            id=name,
            widths=chosen,
            params=costs.params,
            macs=costs.macs,
            validation=correct["validation"] / totals["validation"],
            tested=Tested.counted(correct["test"], totals["test"]),
            latency={},
            difference=verify_onnx(onnx, module, verified, mean=mean, std=std),
            num_verified=len(verified),
        )
        write_bundle(path, config, onnx=onnx, weights=module.state_dict())
    return path


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
