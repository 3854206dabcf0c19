"""The downloads of a job: a bundle of each front point, and the trained network as inn.zip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from inn_automl.core.class_table import ClassTable
from inn_automl.core.result import FineTuning, WeightsOrigin
from inn_automl.core.storage import read_json
from inn_automl.data import Dataset
from inn_automl.evaluation.onnx_precision import verified_samples
from inn_automl.export import BundleConfig, write_bundle
from inn_automl.export.bundle import ONNX
from inn_automl.export.front import any_size_model
from inn_automl.export.front_verification import FRONT_TOLERANCE, INT8_FRONT_TOLERANCE, verify_front
from inn_automl.export.inn import NETWORK, GroupMetadata, InnConfig, write_inn
from inn_automl.export.raw_model import INPUT, LOGITS, OUTPUT
from inn_automl.export.records import (
    Build,
    DatasetMetadata,
    LatencyEvidence,
    MetricValues,
    Standardization,
    TensorSpec,
    Verification,
)
from inn_automl.export.verification import FP16_TOLERANCE, TOLERANCE
from inn_automl.models.architecture import Architecture
from inn_automl.pipeline.exporting import ExportedModel
from inn_automl.pipeline.inputs import described_preprocessing
from inn_automl.pipeline.records import MeasuredDevices, MeasuredModel
from inn_automl.tasks import Score, Task
from inn_automl.training.trained import Trained


def bundle_config(
    task: Task,
    architecture: Architecture,
    exported: ExportedModel,
    *,
    params: int,
    macs: int,
    validation: float,
    tested: Score,
    latency: Mapping[str, LatencyEvidence],
    fine_tuning: FineTuning | None = None,
    weights: WeightsOrigin | None = None,
) -> BundleConfig:
    """The config of a discretized model's bundle.

    Args:
        validation: metric value on the validation split.
        tested: score on the test split.
        latency: what was measured, by device.
        weights: where training started from.
    """
    dataset = task.dataset
    return BundleConfig(
        id=exported.id,
        family=architecture.model,
        build=_build(architecture),
        widths=dict(exported.widths),
        precision=exported.precision,
        task=dataset.task,
        classes=dataset.classes,
        input=TensorSpec(name=INPUT, shape=dataset.input_shape),
        output=TensorSpec(
            name=LOGITS if dataset.target_statistics is None else OUTPUT, shape=dataset.output_shape
        ),
        preprocessing=described_preprocessing(dataset),
        targets=_targets(dataset),
        dataset=DatasetMetadata(name=dataset.name, fingerprint=dataset.fingerprint),
        weights=weights,
        metric=MetricValues.from_score(
            task.metric,
            validation=validation,
            test=tested.value,
            test_ci=tested.interval,
            num_test_samples=tested.num_samples,
            test_rmse=tested.rmse,
        ),
        test_classes=class_table(dataset, tested),
        params=params,
        macs=macs,
        latency=dict(latency),
        verification=Verification(
            max_difference=exported.difference,
            tolerance=FP16_TOLERANCE if exported.precision == "fp16" else TOLERANCE,
            num_samples=exported.num_verified,
            agreement=exported.agreement,
        ),
        fine_tuning=fine_tuning,
    )


def class_table(dataset: Dataset, score: Score) -> ClassTable | None:
    """Each class of a model, from its score; None for other tasks than classification."""
    if not score.confusion:
        return None
    return ClassTable.from_counts(dataset.classes, score.confusion)


def bundle_model(
    folder: Path, measured: MeasuredDevices, model: MeasuredModel, tested: Score
) -> Path:
    """Writes the bundle of a front point.

    Args:
        folder: the job's folder.
        tested: score on the test split.

    Raises:
        StorageError: a file could not be read or written.
    """
    exporter = measured.trained.exporter
    config = bundle_config(
        exporter.task,
        exporter.trained.architecture,
        model.exported,
        params=model.params,
        macs=model.macs,
        validation=model.metric_value,
        tested=tested,
        latency=_latency_evidence(measured, model),
        fine_tuning=model.fine_tuning,
        weights=exporter.trained.weights,
    )
    path = folder / bundle_name(model.id)
    store_bundle(
        path,
        config,
        exporter.onnx_path(model.id),
        load_file(exporter.weights_path(model.id)),
        exporter.task.dataset,
    )
    return path


def store_bundle(
    path: Path, config: BundleConfig, onnx: Path, weights: Mapping[str, Tensor], dataset: Dataset
) -> None:
    """Writes a bundle, with a verified front for inputs of any size where there is one.

    Args:
        onnx: the verified model.
        weights: its state dict.

    Raises:
        ExportError: the front could not be made, or does not do what it stands for.
        StorageError: a file could not be read or written.
    """
    any_size = None
    if onnx.exists():
        model = onnx.read_bytes()
        any_size = any_size_model(model, config.preprocessing, ONNX)
        if any_size is not None:
            verify_front(
                any_size,
                model,
                verified_samples(dataset),
                config.preprocessing,
                tolerance=INT8_FRONT_TOLERANCE if config.precision == "int8" else FRONT_TOLERANCE,
            )
    write_bundle(path, config, onnx=onnx, weights=weights, any_size=any_size)


def bundle_name(model_id: str) -> str:
    """Path of a model's bundle in a job's folder."""
    return f"bundles/{model_id}.zip"


def _latency_evidence(
    measured: MeasuredDevices, model: MeasuredModel
) -> dict[str, LatencyEvidence]:
    """Measurements of a model's shapes, by device."""
    return {
        device.budget.name: LatencyEvidence(
            runtime=device.budget.runtime,
            threads=device.budget.threads,
            batch_size=device.budget.batch_size,
            latency_ms=found.latency_ms,
            peak_memory_bytes=found.peak_memory_bytes,
            process_memory_bytes=found.process_memory_bytes,
            environment=device.environment,
        )
        for device in measured.devices
        for found in device.finalists
        if found.has_shapes_of(model)
    }


def bundle_network(path: Path, dataset: Dataset, trained: Trained) -> None:
    """Writes the trained network as inn.zip, once.

    Raises:
        StorageError: a file could not be read or written.
    """
    if path.exists():
        return
    groups = trained.network().groups
    partitions = read_json(trained.folder / NETWORK)["partitions"]
    config = InnConfig(
        family=trained.architecture.model,
        build=_build(trained.architecture),
        groups={
            group.name: GroupMetadata(
                smallest=group.allowed.start,
                size=group.size,
                step=group.allowed.step,
                partition=partition,
            )
            for group, partition in zip(groups, partitions, strict=True)
        },
        task=dataset.task,
        classes=dataset.classes,
        preprocessing=Standardization(
            mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist())
        ),
        targets=_targets(dataset),
        dataset=DatasetMetadata(name=dataset.name, fingerprint=dataset.fingerprint),
        weights=trained.weights,
    )
    write_inn(path, config, trained.folder)


def _build(architecture: Architecture) -> Build:
    return Build(
        input_shape=architecture.input_shape,
        num_classes=architecture.num_classes,
        width=architecture.width,
        depth=architecture.depth,
        task=architecture.task,
        scale=architecture.scale,
    )


def _targets(dataset: Dataset) -> Standardization | None:
    if dataset.target_statistics is None:
        return None
    mean, std = (tuple(values.tolist()) for values in dataset.target_statistics)
    return Standardization(mean=mean, std=std)
