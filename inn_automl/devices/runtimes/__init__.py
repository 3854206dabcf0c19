"""What can run a model: one runtime a file, behind one interface.

A new runtime is a module with a `Runtime` subclass, its line in `_MODULES`, and its name in `spec.RUNTIMES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from inn_automl.errors import UnknownNameError

_MODULES = {"onnxruntime-cpu": "inn_automl.devices.runtimes.onnxruntime_cpu:OnnxRuntimeCpu"}

NAMES = tuple(_MODULES)

RunOnce = Callable[[], object]
"""Runs a loaded model once on its prepared input, and returns when the result is there."""


class Runtime(ABC):
    """Loads models so that they can be timed.

    Args:
        threads: threads that compute one inference.

    Attributes:
        precisions: names of what it computes in (see `inn_automl.precision`).
    """

    precisions: ClassVar[tuple[str, ...]] = ("fp32",)

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @abstractmethod
    def load(self, path: Path, batch_size: int) -> RunOnce:
        """Loads a model and prepares its input.

        The input is random float32, the same for every model of the same shape; a symbolic batch becomes `batch_size`.

        Raises:
            MeasurementError: the file cannot be loaded, or its input is not one float32 tensor of a known shape.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name, version and options: what must be the same where the latency is to be the same."""


def create(name: str, threads: int) -> Runtime:
    """The runtime called `name`.

    Raises:
        UnknownNameError: there is none of that name.
        MeasurementError: it is not installed.
    """
    return _class(name)(threads)


def precisions(name: str) -> tuple[str, ...]:
    """What the runtime called `name` computes in.

    Raises:
        UnknownNameError: there is none of that name.
        MeasurementError: it is not installed.
    """
    return _class(name).precisions


def _class(name: str) -> type[Runtime]:
    if name not in _MODULES:
        raise UnknownNameError("runtime", name, _MODULES)
    module, _, attribute = _MODULES[name].partition(":")
    found: type[Runtime] = getattr(import_module(module), attribute)
    return found
