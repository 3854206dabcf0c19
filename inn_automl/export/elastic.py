"""All front points of a job as one file: a ZIP of weights that the points share, and a graph for
each of them.

Its format is described in docs/reference/elastic.md. Reading it needs NumPy only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.core.metric import TaskKind
from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import LatencySummary
from inn_automl.export.archive import sha256, unpack
from inn_automl.export.bundle import CONFIG, WEIGHTS
from inn_automl.export.records import (
    Build,
    DatasetMetadata,
    FileMetadata,
    MetricValues,
    Preprocessing,
    Record,
    Standardization,
    TensorSpec,
    Verification,
)

SLICES = "slices.json"

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
}
"""Types of safetensors that NumPy has, too."""


class TensorSlice(Record):
    """A recipe for a weight of a point's graph from the tensors of weights.safetensors."""

    tensor: str
    shape: tuple[int, ...]
    """The weight is the leading block of this shape: `tensor[:shape[0], :shape[1], ...]`."""
    width_delta: str | None = None
    """Tensor whose leading block, times `width_coordinate`, is added first: the weight's delta
    along the width.
    """
    width_coordinate: float = 0.0
    """Rounded to the tensor's type before it is multiplied."""
    scale: str | None = None
    """Tensor with a factor for each index of the first dimension: batch norm that was folded into
    the weight.
    """
    transposed: bool = False
    """True if the weight is this block, scaled, with its axes in reverse."""


class ElasticDevice(Record):
    """Settings and environment of the measurements on a device."""

    runtime: str
    threads: int
    batch_size: int
    environment: dict[str, Any]


class ElasticPoint(Record):
    """One front point: what it is, and the evidence for it."""

    id: str
    widths: dict[str, int]
    precision: str = DEFAULT
    metric: MetricValues
    params: int
    macs: int
    size_bytes: int
    """Size of the bundle's model.onnx."""
    sha256: str
    """Hash of the bundle's model.onnx."""
    latency: dict[str, LatencySummary]
    """Latency by device; only devices that it was measured on."""
    verification: Verification

    @property
    def graph(self) -> str:
        """The member of the ZIP that holds its graph."""
        return f"graphs/{self.id}.onnx"


class ElasticConfig(Record):
    """config.json of elastic.zip."""

    format_version: Literal[1] = 1
    family: str
    build: Build
    task: TaskKind = "classification"
    classes: tuple[str, ...]
    """Classes in the order of the logits; empty for other tasks than classification."""
    input: TensorSpec
    output: TensorSpec
    preprocessing: Preprocessing
    targets: Standardization | None = None
    """Standardization of the targets; None for classification."""
    dataset: DatasetMetadata
    devices: dict[str, ElasticDevice]
    points: tuple[ElasticPoint, ...]
    files: dict[str, FileMetadata]
    versions: dict[str, str]
    created_at: datetime
    """UTC."""


_Slices = TypeAdapter(dict[str, dict[str, TensorSlice]])


@dataclass(frozen=True)
class ElasticArchive:
    """An elastic.zip in memory."""

    path: Path
    config: ElasticConfig
    graphs: dict[str, bytes]
    """ONNX model by point. Its larger initializers are marked as external and have no
    data.
    """
    slices: dict[str, dict[str, TensorSlice]]
    """Slice by point and name of such an initializer."""
    tensors: dict[str, np.ndarray]

    def weights(self, point: str) -> dict[str, np.ndarray]:
        """The data of the initializers that the graph of a point lacks, bit by bit those of its
        bundle.
        """
        return {name: self._weight(part) for name, part in self.slices[point].items()}

    def _weight(self, part: TensorSlice) -> np.ndarray:
        prefix = tuple(slice(size) for size in part.shape)
        block = self.tensors[part.tensor][prefix]
        if part.width_delta is not None:
            block = (
                block
                + block.dtype.type(part.width_coordinate) * self.tensors[part.width_delta][prefix]
            )
        if part.scale is not None:
            block = block * self.tensors[part.scale].reshape(-1, *[1] * (block.ndim - 1))
        return np.ascontiguousarray(block.T if part.transposed else block)


def read_elastic(path: str | Path) -> ElasticArchive:
    """An elastic.zip, all of whose members have been checked against their hashes.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        CorruptFileError: it is no elastic.zip, or was changed since it was written.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"the file {str(path)!r} cannot be read ({error.strerror}): give its path."
        ) from error
    try:
        contents = unpack(data)
        if CONFIG not in contents:
            raise ValueError(f"it has no {CONFIG}")
        config = ElasticConfig.model_validate_json(contents[CONFIG])
        graphs = {point.id: point.graph for point in config.points}
        if (
            not contents.keys() - {CONFIG}
            == config.files.keys()
            == {WEIGHTS, SLICES, *graphs.values()}
        ):
            raise ValueError(f"its members are not those that {CONFIG} names")
        for name, file in config.files.items():
            if sha256(contents[name]) != file.sha256:
                raise ValueError(f"{name} does not have the hash that {CONFIG} names")
        slices = _Slices.validate_json(contents[SLICES])
        tensors = _tensors(contents[WEIGHTS])
        _check_slices(slices, tensors, graphs)
    except (ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise CorruptFileError(
            f"{str(path)!r} is no whole elastic model ({reason:.300}): download it again."
        ) from error
    return ElasticArchive(
        path, config, {id: contents[name] for id, name in graphs.items()}, slices, tensors
    )


def _tensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, as views of it.

    Raises:
        ValueError: it is none.
    """
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        body = memoryview(data)[8 + length :]
        found = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            values = np.frombuffer(body[start:end], DTYPES[entry["dtype"]])
            found[name] = values.reshape(entry["shape"])
        return found
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{WEIGHTS} is not readable: {error}") from error


def _check_slices(
    slices: Mapping[str, Mapping[str, TensorSlice]],
    tensors: Mapping[str, np.ndarray],
    points: Mapping[str, str],
) -> None:
    if slices.keys() != points.keys():
        raise ValueError(f"{SLICES} has other points than {CONFIG}")
    for of_point in slices.values():
        for name, part in of_point.items():
            whole, scale = tensors.get(part.tensor), tensors.get(part.scale or "")
            fits = whole is not None and len(part.shape) == whole.ndim
            if (
                whole is None
                or not fits
                or any(not 0 <= n <= m for n, m in zip(part.shape, whole.shape, strict=True))
            ):
                raise ValueError(f"{name} is no part of {part.tensor!r} in {WEIGHTS}")
            width_delta = whole if part.width_delta is None else tensors.get(part.width_delta)
            if width_delta is None or (width_delta.dtype, width_delta.shape) != (
                whole.dtype,
                whole.shape,
            ):
                raise ValueError(
                    f"{part.width_delta!r} in {WEIGHTS} is no width delta of {part.tensor!r}"
                )
            if part.scale is not None and (
                scale is None or scale.shape != part.shape[:1] or not prod(part.shape)
            ):
                raise ValueError(f"{part.scale!r} in {WEIGHTS} does not scale {name}")
