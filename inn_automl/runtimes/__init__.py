"""What can run a model: one runtime a file, behind one interface.

A new runtime is a module with a `Runtime` subclass, its line in `_MODULES` and in `INSTALL`, and
its line in `spec.RUNTIMES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from inn_automl.core.errors import MeasurementError, UnknownNameError

_MODULES = {
    "onnxruntime-cpu": "inn_automl.runtimes.onnxruntime_cpu:OnnxRuntimeCpu",
    "onnxruntime-cuda": "inn_automl.runtimes.onnxruntime_cuda:OnnxRuntimeCuda",
    "onnxruntime-tensorrt": "inn_automl.runtimes.onnxruntime_tensorrt:OnnxRuntimeTensorRt",
    "openvino": "inn_automl.runtimes.openvino_cpu:OpenVino",
    "torch-cpu": "inn_automl.runtimes.torch_cpu:TorchCpu",
    "torch-cuda": "inn_automl.runtimes.torch_cuda:TorchCuda",
}

NAMES = tuple(_MODULES)

INSTALL = {
    "onnxruntime-cpu": "pip install onnxruntime",
    # Both packages own the module `onnxruntime`: side by side they overwrite each other's files.
    "onnxruntime-cuda": "pip uninstall onnxruntime && pip install onnxruntime-gpu",
    "onnxruntime-tensorrt": "pip uninstall onnxruntime && pip install onnxruntime-gpu "
    "tensorrt-cu12",
    "openvino": "pip install openvino",
    "torch-cpu": "pip install torch onnx",
    "torch-cuda": "pip install torch onnx",  # on Linux, PyPI's torch is a build for CUDA
}
"""By runtime, what adds it to a machine."""

RunOnce = Callable[[], object]
"""Runs a loaded model once on its prepared input, and returns when the result is there."""


@dataclass(frozen=True)
class NodeTime:
    """What one operation of a model took, as the runtime accounts for it itself."""

    name: str
    """Of the operation in the runtime's own graph, where several of the file's may have been fused
    into one.
    """
    kind: str
    """What it computes, e.g. `Conv`."""
    ms: float
    """Typical milliseconds of a run."""


def typical(values: Sequence[float]) -> float:
    """The mean of the middle half: other programs interrupt some runs, and a clock that ticks
    coarsely has ties.
    """
    quarter = len(values) // 4
    middle = sorted(values)[quarter : len(values) - quarter]
    return sum(middle) / len(middle)


class Runtime(ABC):
    """Loads models so that they can be timed.

    Args:
        threads: threads that compute one inference.

    Raises:
        MeasurementError: this machine lacks what the runtime needs; says what adds it.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def start(self) -> None:  # noqa: B027 - most runtimes are loaded with their module
        """Loads the runtime's own code, so that the memory it takes is not told as a model's."""

    @abstractmethod
    def load(self, path: Path, batch_size: int) -> RunOnce:
        """Loads a model and prepares its input.

        The input is random float32, the same for every model of the same shape; a symbolic batch
        becomes `batch_size`.

        Raises:
            MeasurementError: the file cannot be loaded, or its input is not one float32 tensor of
                a known shape.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name, version and options: what must be the same where the latency is to be the same."""

    def profile(self, path: Path, batch_size: int, num_runs: int) -> list[NodeTime]:
        """What each operation of a model takes, in the order in which they run; empty where the
        runtime cannot tell.

        Accounting costs time itself: the operations' shares can be trusted, their sum is more than
        the latency.

        Raises:
            MeasurementError: the file cannot be loaded or run.
        """
        return []


def create(name: str, threads: int) -> Runtime:
    """The runtime called `name`.

    Raises:
        UnknownNameError: there is none of that name.
        MeasurementError: it is not installed, or this machine lacks what it needs; says what adds
            it.
    """
    if name not in _MODULES:
        raise UnknownNameError("runtime", name, _MODULES)
    module, _, attribute = _MODULES[name].partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except ImportError as error:
        raise MeasurementError(
            f"the runtime {name!r} is not installed on this machine ({error}): `{INSTALL[name]}` "
            f"adds it."
        ) from None
    runtime: Runtime = kind(threads)
    return runtime


def probe() -> tuple[dict[str, str], dict[str, str]]:
    """The version of each runtime that can be used here, and of every other one why it cannot."""
    versions, reasons = {}, {}
    for name in NAMES:
        try:
            versions[name] = str(create(name, 1).describe()["runtime_version"])
        except MeasurementError as error:
            reasons[name] = str(error)
    return versions, reasons
