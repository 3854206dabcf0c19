"""Makes elastic.zip of a job's bundles and its network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inn_automl.core.errors import InputError
from inn_automl.core.storage import write_atomically
from inn_automl.export.archive import pack, sha256
from inn_automl.export.bundle import CONFIG, ONNX, WEIGHTS, open_bundle
from inn_automl.export.deduplication import WeightDeduplicator
from inn_automl.export.elastic import (
    SLICES,
    ElasticConfig,
    ElasticDevice,
    ElasticPoint,
    TensorSlice,
)
from inn_automl.export.records import BundleConfig, FileMetadata, installed_versions


def write_elastic(
    path: str | Path,
    bundles: Sequence[str | Path],
    network: str | Path,
    *,
    created_at: datetime | None = None,
) -> ElasticConfig:
    """Writes elastic.zip; the same arguments (`created_at` among them) give the same bytes.

    Args:
        bundles: of all points, made from one network.
        network: the folder that `IntegralNetwork.save` wrote.

    Returns:
        The config as written.

    Raises:
        InputError: there is no bundle, or they are of different networks.
        StorageError: a file could not be read or written.
        CorruptFileError: a bundle is damaged.
    """
    opened = [open_bundle(bundle) for bundle in bundles]
    common = _common([config for config, _ in opened])
    shared = WeightDeduplicator.from_network(network)
    contents: dict[str, bytes] = {}
    slices: dict[str, dict[str, TensorSlice]] = {}
    points = []
    for config, members in opened:
        point = _point(config)
        contents[point.graph], slices[point.id] = shared.add(point.id, members[ONNX], config.widths)
        points.append(point)
    dumped = {
        name: {key: part.model_dump(exclude_defaults=True) for key, part in of.items()}
        for name, of in slices.items()
    }
    contents = {
        WEIGHTS: shared.data(),
        SLICES: json.dumps(dumped, separators=(",", ":")).encode(),
        **contents,
    }
    elastic = ElasticConfig(
        **common,
        devices=_devices([config for config, _ in opened]),
        points=tuple(points),
        files={
            name: FileMetadata(sha256=sha256(data), size_bytes=len(data))
            for name, data in contents.items()
        },
        versions=installed_versions(),
        created_at=created_at or datetime.now(UTC).replace(microsecond=0),
    )
    text = json.dumps(
        elastic.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False
    )
    write_atomically(Path(path), pack({CONFIG: text.encode() + b"\n", **contents}))
    return elastic


def _common(configs: Sequence[BundleConfig]) -> dict[str, Any]:
    """Collects the fields that all bundles share."""
    if not configs:
        raise InputError(
            "an elastic model was to be made of no bundle: give those of a job's fronts."
        )
    names = (
        "family",
        "build",
        "task",
        "classes",
        "input",
        "output",
        "preprocessing",
        "targets",
        "dataset",
    )
    common = {name: getattr(configs[0], name) for name in names}
    for config in configs:
        for name, value in common.items():
            if getattr(config, name) != value:
                raise InputError(
                    f"{name} of the bundle {config.id} is not that of {configs[0].id}: give "
                    f"bundles of one job."
                )
    return common


def _devices(configs: Sequence[BundleConfig]) -> dict[str, ElasticDevice]:
    return {
        name: ElasticDevice(
            runtime=evidence.runtime,
            threads=evidence.threads,
            batch_size=evidence.batch_size,
            environment=evidence.environment,
        )
        for config in configs
        for name, evidence in config.latency.items()
    }


def _point(config: BundleConfig) -> ElasticPoint:
    model = config.files[ONNX]
    return ElasticPoint(
        id=config.id,
        widths=config.widths,
        precision=config.precision,
        metric=config.metric,
        params=config.params,
        macs=config.macs,
        size_bytes=model.size_bytes,
        sha256=model.sha256,
        latency={name: evidence.latency_ms for name, evidence in config.latency.items()},
        verification=config.verification,
    )
