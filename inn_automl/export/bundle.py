"""The file that a user downloads: a ZIP of model.onnx, weights.safetensors and config.json.

Its format is described in docs/reference/bundle.md, with how to read it without this library. Reading it
here needs no torch.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.core.metric import Metric, TaskKind
from inn_automl.core.result import LatencySummary, Tuning
from inn_automl.core.storage import write_atomically
from inn_automl.core.version import __version__
from inn_automl.export.archive import pack, sha256, unpack

if TYPE_CHECKING:
    from torch import Tensor

ONNX, WEIGHTS, CONFIG = "model.onnx", "weights.safetensors", "config.json"

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Build(_Record):
    """Arguments of `inn_automl.models.build` that made the network at full width."""

    input_shape: tuple[int, ...]
    num_classes: int
    """Logits; of a regression, targets; 0 of super-resolution."""
    width: float
    depth: int | None
    task: TaskKind = "classification"
    scale: int | None = None
    """Of super-resolution: how many times larger the output is."""


class Port(_Record):
    """An input or output of model.onnx."""

    name: str
    shape: tuple[int, ...]
    """Of one sample; a batch of any size goes before it."""
    dtype: Literal["float32"] = "float32"


class Preprocessing(_Record):
    """What happens to the input. All of it is inside of model.onnx."""

    included: Literal[True] = True
    input: str = "raw float32 values of the dataset"
    mean: tuple[float, ...]
    """One a channel; (input - mean) / std is what the weights were trained on."""
    std: tuple[float, ...]


class TargetStatistics(_Record):
    """What model.onnx brings its output to the units of the dataset's targets by: output * std +
    mean.
    """

    mean: tuple[float, ...]
    """One a target, or a channel of an image."""
    std: tuple[float, ...]


class DatasetMetadata(_Record):
    """What the model was trained on."""

    name: str
    fingerprint: str
    """SHA-256 over samples, labels, classes and splits."""


class MetricValues(_Record):
    """The metric of a model on the validation and the test split."""

    name: str
    """One of `inn_automl.core.metric.METRICS`; accuracy is a fraction."""
    unit: str
    """Unit of the values; empty if there is none."""
    validation: float
    """On the split that the search used."""
    test: float
    """On the split that nothing else used."""
    test_ci: tuple[float, float]
    """95 % confidence interval of `test`; Wilson's for accuracy."""
    num_test_samples: int
    test_rmse: tuple[float, ...] | None = None
    """Root mean squared error of each target of a regression, in its own units; else None."""

    @classmethod
    def from_score(
        cls,
        metric: Metric,
        *,
        validation: float,
        test: float,
        test_ci: tuple[float, float],
        num_test_samples: int,
        test_rmse: Sequence[float] = (),
    ) -> MetricValues:
        """Makes the record of values of a metric."""
        return cls(
            name=metric.name,
            unit=metric.unit if metric.factor == 1 else "",
            validation=validation,
            test=test,
            test_ci=test_ci,
            num_test_samples=num_test_samples,
            test_rmse=tuple(test_rmse) or None,
        )


class LatencyEvidence(_Record):
    """What model.onnx took on one device."""

    runtime: str
    threads: int
    batch_size: int
    latency_ms: LatencySummary
    peak_memory_bytes: int | None = None
    """Resident memory that loading and running it added to a process that had the runtime; None
    where not known.
    """
    process_memory_bytes: int | None = None
    """Resident memory of that whole process at its peak."""
    environment: dict[str, Any]
    """Runtime version, processor and whatever else the measurement recorded."""


class Verification(_Record):
    """How model.onnx compares with the torch module."""

    max_difference: float
    """Largest |ONNX - torch| as a share of the largest |output|; of an int8 model, that of the
    float32 file that it was made from."""
    tolerance: float
    num_samples: int
    agreement: float | None = None
    """Of a model that is not fp32: the share of the validation samples that it gives the same
    class as the float32 file that it was made from."""


class File(_Record):
    """One of the other files of the bundle."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class BundleConfig(_Record):
    """config.json. `files`, `versions` and `created_at` are filled in by `write_bundle` where they
    are left out.
    """

    format_version: Literal[1] = 1
    id: str
    """Of the front point, unique in its job."""
    family: str
    build: Build
    widths: dict[str, int]
    """Channels by coupled group."""
    precision: str = "fp32"
    """What model.onnx computes in: fp32, fp16 or int8. The weights beside it are float32 in any
    case.
    """
    task: TaskKind = "classification"
    classes: tuple[str, ...]
    """In the order of the logits; empty for other tasks than classification."""
    input: Port
    output: Port
    preprocessing: Preprocessing
    targets: TargetStatistics | None = None
    """None for classification."""
    dataset: DatasetMetadata
    metric: MetricValues
    params: int
    macs: int
    """Multiply-accumulates for one sample."""
    latency: dict[str, LatencyEvidence]
    """By device name."""
    verification: Verification
    tuning: Tuning | None = None
    """How the model was tuned, where it was; `metric` was evaluated after it."""
    files: dict[str, File] = {}
    versions: dict[str, str] = {}
    created_at: datetime | None = None
    """UTC."""


def write_bundle(
    path: str | Path, config: BundleConfig, *, onnx: str | Path, weights: Mapping[str, Tensor]
) -> BundleConfig:
    """Writes a bundle; the same arguments (`created_at` among them) give the same bytes.

    Args:
        config: everything that is known of the model.
        onnx: a verified ONNX file, as `OnnxTemplate.export` writes it.
        weights: the state dict of the discretized module.

    Returns:
        The config as written.

    Raises:
        StorageError: `onnx` could not be read, or the bundle not written; on a full disk it says
            how many bytes are needed.
    """
    from safetensors.numpy import save  # not there where bundles are only read

    path, onnx = Path(path), Path(onnx)
    try:
        model = onnx.read_bytes()
    except OSError as error:
        raise StorageError(
            f"{str(onnx)!r} cannot be read ({error.strerror}): export the model first."
        ) from error
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in weights.items()}
    contents = {ONNX: model, WEIGHTS: save(arrays, metadata={"format": "pt"})}
    config = config.model_copy(
        update={
            "files": {
                name: File(sha256=sha256(data), size_bytes=len(data))
                for name, data in contents.items()
            },
            "versions": config.versions or installed_versions(),
            "created_at": config.created_at or datetime.now(UTC).replace(microsecond=0),
        }
    )
    text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, pack({CONFIG: text.encode() + b"\n", **contents}))
    return config


def read_bundle(path: str | Path) -> BundleConfig:
    """The config of a bundle, all of whose files have been checked against their hashes.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        CorruptFileError: it is no bundle, or was changed since it was written.
    """
    return open_bundle(path)[0]


def extract_bundle(path: str | Path, folder: str | Path) -> BundleConfig:
    """Checks a bundle as `read_bundle` does and writes its three files into `folder`.

    Raises:
        StorageError: the bundle cannot be read, or the folder not be written to.
        CorruptFileError: it is no bundle, or was changed since it was written.
    """
    config, contents = open_bundle(path)
    for name, data in contents.items():
        write_atomically(Path(folder) / name, data)
    return config


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a model file depends on."""
    versions = {"python": platform.python_version(), "inn_automl": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def open_bundle(path: str | Path) -> tuple[BundleConfig, dict[str, bytes]]:
    """The config of a bundle and its three files, checked as by `read_bundle`.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        CorruptFileError: it is no bundle, or was changed since it was written.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"the bundle {str(path)!r} cannot be read ({error.strerror}): give its path."
        ) from error
    contents = _unpack(path, data)
    config = _parse(path, contents[CONFIG])
    for name in (ONNX, WEIGHTS):
        if sha256(contents[name]) != config.files[name].sha256:
            raise _corrupt(
                path,
                f"{name} has the hash {sha256(contents[name])}, not {config.files[name].sha256}",
            )
    return config, contents


def _unpack(path: Path, data: bytes) -> dict[str, bytes]:
    """The three files."""
    try:
        return unpack(data, (CONFIG, ONNX, WEIGHTS))
    except ValueError as error:
        raise _corrupt(path, str(error)) from error


def _parse(path: Path, text: bytes) -> BundleConfig:
    try:
        config = BundleConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _corrupt(path, f"{CONFIG}, {where or 'as a whole'}: {first['msg']}") from error
    missing = {ONNX, WEIGHTS} - config.files.keys()
    if missing:
        raise _corrupt(path, f"{CONFIG} has no hash of {', '.join(sorted(missing))}")
    return config


def _corrupt(path: Path, reason: str) -> CorruptFileError:
    return CorruptFileError(
        f"{str(path)!r} is not a whole bundle of this version ({reason}): download it again."
    )
