"""What a job's downloads say of themselves: the config of a bundle, and the trained network as
inn.zip.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import Tuning
from inn_automl.core.storage import read_json
from inn_automl.data import Dataset
from inn_automl.export import BundleConfig
from inn_automl.export.inn import NETWORK, GroupMetadata, InnConfig, write_inn
from inn_automl.export.raw_model import INPUT, LOGITS, OUTPUT
from inn_automl.export.records import (
    Build,
    DatasetMetadata,
    LatencyEvidence,
    MetricValues,
    Preprocessing,
    Standardization,
    TensorSpec,
    Verification,
)
from inn_automl.export.verification import FP16_TOLERANCE, TOLERANCE
from inn_automl.tasks import Score, objective_of
from inn_automl.training.trial import Architecture, Trained


def bundle_config(
    dataset: Dataset,
    architecture: Architecture,
    *,
    id: str,
    widths: Mapping[str, int],
    precision: str = DEFAULT,
    params: int,
    macs: int,
    validation: float,
    tested: Score,
    latency: Mapping[str, LatencyEvidence],
    difference: float,
    num_verified: int,
    agreement: float | None = None,
    tuning: Tuning | None = None,
) -> BundleConfig:
    """The config of a discretized model's bundle."""
    return BundleConfig(
        id=id,
        family=architecture.family,
        build=_build(architecture),
        widths=dict(widths),
        precision=precision,
        task=dataset.task,
        classes=dataset.classes,
        input=TensorSpec(name=INPUT, shape=dataset.input_shape),
        output=TensorSpec(
            name=LOGITS if dataset.target_statistics is None else OUTPUT, shape=dataset.output_shape
        ),
        preprocessing=Preprocessing(
            mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist())
        ),
        targets=_targets(dataset),
        dataset=DatasetMetadata(name=dataset.name, fingerprint=dataset.fingerprint),
        metric=MetricValues.from_score(
            objective_of(dataset).metric,
            validation=validation,
            test=tested.value,
            test_ci=tested.interval,
            num_test_samples=tested.num_samples,
            test_rmse=tested.rmse,
        ),
        params=params,
        macs=macs,
        latency=dict(latency),
        verification=Verification(
            max_difference=difference,
            tolerance=FP16_TOLERANCE if precision == "fp16" else TOLERANCE,
            num_samples=num_verified,
            agreement=agreement,
        ),
        tuning=tuning,
    )


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
        family=trained.architecture.family,
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
