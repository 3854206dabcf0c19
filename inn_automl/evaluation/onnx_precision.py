"""Metric value of models in another precision. The very file is made and run, because its metric
value does not follow from that of the float file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inn_automl.evaluation.raw_inputs import RawInputs
from inn_automl.export.fp16 import convert_fp16
from inn_automl.export.quantization import num_calibration, outputs, quantize_onnx
from inn_automl.export.template import OnnxFile, OnnxTemplate
from inn_automl.export.verification import FP16_TOLERANCE, verify_onnx
from inn_automl.tasks import Score, Task

if TYPE_CHECKING:
    from inn_automl.data import Dataset
    from inn_automl.models.architecture import Architecture

NUM_VERIFIED = 16
"""Validation samples that every float ONNX file is compared with torch on."""


class OnnxTemplates:
    """Exporters of a job's networks, by architecture. The last one is cached, for it takes seconds
    to make.
    """

    def __init__(self) -> None:
        self._key: tuple[Architecture, str] | None = None
        self._template: OnnxTemplate | None = None

    def get(self, architecture: Architecture, dataset: Dataset) -> OnnxTemplate:
        """The exporter of the networks of an architecture.

        Raises:
            ExportError: the architecture cannot be exported.
        """
        key = architecture, dataset.fingerprint
        if self._template is None or key != self._key:
            self._key, self._template = key, _template(architecture, dataset)
        return self._template


def _template(architecture: Architecture, dataset: Dataset) -> OnnxTemplate:
    network = architecture.network()
    return OnnxTemplate.from_modules(
        network.discretize(network.full_widths).eval(),
        network.discretize(network.smallest_widths).eval(),
        input_shape=dataset.input_shape,
        mean=dataset.mean,
        std=dataset.std,
        target_statistics=dataset.target_statistics,
        samples=verified_samples(dataset),
    )


def range_samples(dataset: Dataset) -> NDArray[np.generic]:
    """The raw training samples that activations' ranges are found on: the same for every model of
    a job.
    """
    return RawInputs(dataset, dataset.train[: num_calibration(dataset.input_shape)])[:]


def verified_samples(dataset: Dataset) -> NDArray[np.float32]:
    """The raw validation samples that every exported file is run on, beside torch."""
    return RawInputs(dataset, dataset.validation[:NUM_VERIFIED]).float32()


def convert_file(source: Path, target: Path, precision: str, dataset: Dataset) -> int:
    """Writes a float file in another precision, and returns its size in bytes.

    Raises:
        ExportError, StorageError: it could not be made.
    """
    return (
        convert_fp16(source, target)
        if precision == "fp16"
        else quantize_onnx(source, target, range_samples(dataset))
    )


@contextmanager
def converted_file(
    template: OnnxTemplate,
    module: nn.Module,
    dataset: Dataset,
    precision: str,
    *,
    widths: Mapping[str, int],
) -> Iterator[tuple[OnnxFile, Path]]:
    """A discretized module in eval mode as a float file that was verified, and the file of another
    precision made from it.

    Both are gone afterwards.

    Raises:
        ExportError, StorageError: they could not be made.
    """
    module = module.to(memory_format=torch.contiguous_format)
    with tempfile.TemporaryDirectory() as folder:
        exported = template.export(module, Path(folder) / "fp32.onnx", widths=widths)
        path = Path(folder) / f"{precision}.onnx"
        convert_file(exported.path, path, precision, dataset)
        yield exported, path


def verified_difference(
    path: Path, precision: str, module: nn.Module, dataset: Dataset, difference: float = 0.0
) -> float:
    """The largest difference between a file and torch, as a fraction of the largest output.

    For an int8 file this is the difference of the float file: its own depends on calibration, and
    is described by `agreement`.

    Args:
        difference: of the float file that it was made from.

    Raises:
        VerificationError: it is more than the precision explains.
    """
    if precision != "fp16":
        return difference
    return verify_onnx(
        path,
        module,
        verified_samples(dataset),
        mean=dataset.mean,
        std=dataset.std,
        target_statistics=dataset.target_statistics,
        tolerance=FP16_TOLERANCE,
    )


def agreement(one: Path, other: Path, dataset: Dataset) -> float | None:
    """The fraction of the validation samples that two ONNX files give the same class; None where
    there are no classes.
    """
    if dataset.task != "classification":
        return None
    samples = RawInputs(dataset, dataset.validation)
    pairs = zip(outputs(one, samples), outputs(other, samples), strict=True)
    return float(np.mean(np.concatenate([a.argmax(axis=1) == b.argmax(axis=1) for a, b in pairs])))


def evaluate_file(path: Path, task: Task, split: str) -> Score:
    """The metric value of an ONNX file on a split, in ONNX Runtime on as many threads as torch may
    use.

    Args:
        path: of the file, which takes raw values and gives outputs in the dataset's own units.
        task: whose samples and metric are used.
        split: "train", "validation" or "test".
    """
    indices, dataset, objective = getattr(task.dataset, split), task.dataset, task.objective
    x, y = RawInputs(dataset, indices), torch.as_tensor(dataset.y[indices])
    found, start = [], 0
    for output in outputs(path, x, threads=torch.get_num_threads()):
        found.append(
            objective.scores(torch.from_numpy(output), y[start : start + len(output)]).numpy()
        )
        start += len(output)
    return objective.score(np.concatenate(found))
