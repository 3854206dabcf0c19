"""Records that the files of a user share: the contents of config.json in bundle.zip and its kin.

Reading them needs no torch.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from inn_automl.core.class_table import ClassTable
from inn_automl.core.metric import Metric, TaskKind
from inn_automl.core.result import FineTuning, LatencySummary, WeightsOrigin
from inn_automl.core.version import __version__

FORMAT_VERSION: Literal[2] = 2
"""Of bundles; other releases may write another one."""

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy")


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Build(Record):
    """Arguments of `inn_automl.models.build` that made the network at full width."""

    input_shape: tuple[int, ...]
    num_classes: int
    """Logits; of a regression, targets; 0 of super-resolution."""
    width: float
    depth: int | None
    task: TaskKind = "classification"
    scale: int | None = None
    """Scale factor of super-resolution; None for other tasks."""


class TensorSpec(Record):
    """An input or output of model.onnx."""

    name: str
    shape: tuple[int, ...]
    """Shape of one sample, without the batch dimension, which is free."""
    dtype: Literal["float32"] = "float32"


class Standardization(Record):
    """Mean and standard deviation of raw values; standardized = (raw - mean) / std."""

    mean: tuple[float, ...]
    """One per channel of an input or an image, or one per target."""
    std: tuple[float, ...]


class ImageInput(Record):
    """How an image of any size becomes the input of model.onnx; inside of model_any_size.onnx.

    Sizes are (height, width). The geometry is that of `inn_automl.data.preprocessing`.
    """

    channels: Literal[1, 3]
    """Grey or RGB."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """float32 for grey images of 16 bits, whose values stay as they are."""
    input_size: tuple[int, int]
    """What model.onnx takes."""
    stored_size: tuple[int, int]
    """What the image is resized to, and cut or padded to, before its centre is taken."""
    resize: Literal["crop", "pad", "stretch"]
    crop_fraction: float = 1.0
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """As Pillow does it: antialiased where the image shrinks."""
    fill: float = 0.0
    """Value of what `pad` adds."""


class AudioInput(Record):
    """How a recording of any length becomes a batch of model.onnx; inside of model_any_size.onnx.

    Recordings are resampled to the rate before. The last window ends where the recording ends; a
    shorter recording is padded with zeros at its end.
    """

    sample_rate_hz: int
    channels: int
    """1: recordings are mixed down."""
    window_samples: int
    hop_samples: int
    """From the start of a window to that of the next one."""


class Preprocessing(Standardization):
    """Standardization of the input, all of it inside of model.onnx, and what comes before it."""

    included: Literal[True] = True
    input: str = "raw float32 values of the dataset"
    image: ImageInput | None = None
    """None where the samples are no images."""
    audio: AudioInput | None = None
    """None where the samples are no recordings."""


class DatasetMetadata(Record):
    """The dataset that the model was trained on."""

    name: str
    fingerprint: str
    """SHA-256 over samples, labels, classes and splits."""


class MetricValues(Record):
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


class LatencyEvidence(Record):
    """Measured latency and memory of model.onnx on one device."""

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


class Verification(Record):
    """The numerical comparison of model.onnx with the torch module."""

    max_difference: float
    """Largest |ONNX - torch| as a fraction of the largest |output|; of an int8 model, that of the
    float32 file that it was made from."""
    tolerance: float
    num_samples: int
    agreement: float | None = None
    """Fraction of the validation samples that get the same class from the float32 file that the
    model was made from; None for a float32 model."""


class FileMetadata(Record):
    """One of the other files of the bundle."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class BundleConfig(Record):
    """config.json. `files`, `versions` and `created_at` are filled in by `write_bundle` where they
    are left out.
    """

    format_version: Literal[2] = FORMAT_VERSION
    id: str
    """Id of the front point, unique in its job."""
    family: str
    build: Build
    widths: dict[str, int]
    """Channels by coupled group."""
    precision: str = "fp32"
    """Precision of model.onnx: fp32, fp16 or int8. The weights beside it are float32 in any
    case.
    """
    task: TaskKind = "classification"
    classes: tuple[str, ...]
    """Classes in the order of the logits; empty for other tasks than classification."""
    input: TensorSpec
    output: TensorSpec
    preprocessing: Preprocessing
    targets: Standardization | None = None
    """Standardization of the targets; None for classification."""
    dataset: DatasetMetadata
    metric: MetricValues
    test_classes: ClassTable | None = None
    """Each class on the test split; None for other tasks than classification."""
    params: int
    macs: int
    """Multiply-accumulates for one sample."""
    latency: dict[str, LatencyEvidence]
    """Latency by device name."""
    verification: Verification
    weights: WeightsOrigin | None = None
    """Where training began; None where it began with random weights."""
    fine_tuning: FineTuning | None = None
    """Effect of fine-tuning; None without it; `metric` was evaluated after it."""
    files: dict[str, FileMetadata] = {}
    versions: dict[str, str] = {}
    created_at: datetime | None = None
    """UTC."""


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a model file depends on."""
    versions = {"python": platform.python_version(), "inn_automl": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
