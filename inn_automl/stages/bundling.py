"""What a job's downloads say of themselves: the config of a bundle, and the trained network as inn.zip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from inn_automl.data import Dataset
from inn_automl.export import BundleConfig
from inn_automl.export.bundle import Accuracy, Build, DatasetFacts, LatencyEvidence, Port, Preprocessing, Verification
from inn_automl.export.inn import NETWORK, GroupFacts, InnConfig, Standardization, write_inn
from inn_automl.export.verification import HALF_TOLERANCE, TOLERANCE
from inn_automl.precision import DEFAULT
from inn_automl.result import Tuning
from inn_automl.storage import read_json
from inn_automl.training.trial import Architecture, Trained


@dataclass(frozen=True)
class Tested:
    """Accuracy on the test split, with its 95 % interval."""

    accuracy: float
    interval: tuple[float, float]
    num_samples: int

    @classmethod
    def counted(cls, num_correct: int, num_samples: int) -> Tested:
        return cls(num_correct / num_samples, wilson(num_correct, num_samples), num_samples)


def wilson(num_correct: int, num_samples: int) -> tuple[float, float]:
    """95 % confidence interval of a share (E. B. Wilson, 1927)."""
    interval = binomtest(num_correct, num_samples).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


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
    tested: Tested,
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
        classes=dataset.classes,
        input=Port(name="input", shape=dataset.input_shape),
        output=Port(name="logits", shape=(dataset.num_classes,)),
        preprocessing=Preprocessing(mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist())),
        dataset=DatasetFacts(name=dataset.name, fingerprint=dataset.fingerprint),
        accuracy=Accuracy(
            validation=validation,
            test=tested.accuracy,
            test_ci=tested.interval,
            num_test_samples=tested.num_samples,
        ),
        params=params,
        macs=macs,
        latency=dict(latency),
        verification=Verification(
            max_difference=difference,
            tolerance=HALF_TOLERANCE if precision == "fp16" else TOLERANCE,
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
            group.name: GroupFacts(
                smallest=group.allowed.start, size=group.size, step=group.allowed.step, partition=partition
            )
            for group, partition in zip(groups, partitions, strict=True)
        },
        classes=dataset.classes,
        preprocessing=Standardization(mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist())),
        dataset=DatasetFacts(name=dataset.name, fingerprint=dataset.fingerprint),
    )
    write_inn(path, config, trained.folder)


def _build(architecture: Architecture) -> Build:
    return Build(
        input_shape=architecture.input_shape,
        num_classes=architecture.num_classes,
        width=architecture.width,
        depth=architecture.depth,
    )
