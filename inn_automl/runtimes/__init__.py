"""Runtimes: programs that run a model, one a file, behind one interface.

To add a runtime called `some-name`:

1. Enter the name in `RUNTIMES` of `inn_automl/core/runtimes.py`, with the precisions that it has
   kernels for and the command that installs it. Budgets may name it from then on.
2. Write `inn_automl/runtimes/some_name.py` with a subclass of `Runtime`, and bind the class to the
   name `RUNTIME`. `onnxruntime_cpu.py` is the shortest example.
3. Run `pytest tests/unit/runtimes`: every runtime that is installed is tested there. Add a row to
   the table in docs/reference/runtimes.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from inn_automl.core.errors import MeasurementError, UnknownNameError
from inn_automl.core.runtimes import RUNTIMES

RunOnce = Callable[[], object]
"""Runs a loaded model once on its prepared input, and returns when the result is there."""


@dataclass(frozen=True)
class NodeTime:
    """Time of one operation of a model, as the runtime accounts for it itself."""

    name: str
    """Name of the operation in the runtime's own graph, where several operations of the file may be
    fused into one.
    """
    kind: str
    """Kind of the operation, e.g. `Conv`."""
    ms: float
    """Typical milliseconds of a run."""


def typical(values: Sequence[float]) -> float:
    """The mean of the middle half (interquartile mean).

    Other programs interrupt some runs, and a median of a clock that ticks coarsely has ties.
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
        """Loads the runtime's own code, so that its memory is not counted as a model's."""

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
        """Times the operations of a model, in the order in which they run.

        Accounting costs time itself: the operations' fractions are reliable, their sum is more than
        the latency. Empty if the runtime does not account for operations.

        Raises:
            MeasurementError: the file cannot be loaded or run.
        """
        return []


def create(name: str, threads: int) -> Runtime:
    """Creates the runtime called `name`.

    Raises:
        UnknownNameError: there is none of that name.
        MeasurementError: it is not installed, or this machine lacks what it needs; says what adds
            it.
    """
    if name not in RUNTIMES:
        raise UnknownNameError("runtime", name, RUNTIMES)
    try:
        module = import_module(f"{__name__}.{name.replace('-', '_')}")
    except ImportError as error:
        raise MeasurementError(
            f"the runtime {name!r} is not installed on this machine ({error}): "
            f"`{RUNTIMES[name].install}` adds it."
        ) from None
    runtime: Runtime = module.RUNTIME(threads)
    return runtime


def probe() -> tuple[dict[str, str], dict[str, str]]:
    """Looks for all runtimes on this machine.

    Returns:
        The version of each runtime that can be used here, and for every other one the reason.
    """
    versions, reasons = {}, {}
    for name in RUNTIMES:
        try:
            versions[name] = str(create(name, 1).describe()["runtime_version"])
        except MeasurementError as error:
            reasons[name] = str(error)
    return versions, reasons
