"""Measurements of models, also as JSON: somebody else's machine may have measured.

Summaries are never taken from outside: whoever reads a measurement computes them from its samples.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inn_automl.core.errors import MeasurementError
from inn_automl.core.result import LatencySummary
from inn_automl.core.spec import DeviceBudget
from inn_automl.latency.config import THOROUGH, BenchmarkConfig, as_mapping
from inn_automl.latency.statistics import summarize

_MAX_BYTES = 2**60
"""No machine has this much memory."""


@dataclass(frozen=True)
class PeakMemory:
    """Resident memory, in bytes, of a process that loads only one model and runs it."""

    idle_bytes: int
    """Memory with the runtime imported and no model loaded."""
    peak_bytes: int
    """The highest since then."""

    @property
    def added_bytes(self) -> int:
        """Memory of the model, with all that the runtime sets up for its first model."""
        return self.peak_bytes - self.idle_bytes


@dataclass(frozen=True)
class LatencyMeasurement:
    """Latency and memory of one model."""

    summary: LatencySummary
    samples_ms: list[list[list[float]]] = field(repr=False)
    """Milliseconds of [process][block][run], all of them."""
    diagnostic: str
    """Reason why the measurement did not converge before a limit was reached; empty if it did."""
    environment: dict[str, Any] = field(repr=False)
    """Runtime, its version and options; machine; threads and config; times in UTC; how contended
    the machine was, and how much its speed changed."""
    memory: PeakMemory | None = None
    """Peak memory; None if it was not requested, or the platform does not report it."""

    @property
    def converged(self) -> bool:
        return not self.diagnostic

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {
            "percentile": self.summary.percentile,
            "samples_ms": self.samples_ms,
            "diagnostic": self.diagnostic,
            "environment": self.environment,
            "memory": None if self.memory is None else asdict(self.memory),
        }

    @classmethod
    def from_dict(cls, value: Any) -> LatencyMeasurement:
        """The measurement of one model alone; see `read_measurements` for models that were
        measured together.

        Raises:
            MeasurementError: it is none; says what is wrong with it.
        """
        percentile = as_mapping(value, "a measurement").get("percentile")
        if (
            isinstance(percentile, bool)
            or not isinstance(percentile, int | float)
            or not 0 < percentile < 100
        ):
            raise MeasurementError(
                f"percentile = {percentile!r:.80} of a measurement is not between 0 and 100."
            )
        return read_measurements({"model": value}, float(percentile))["model"]


def read_measurements(values: Any, percentile: float) -> dict[str, LatencyMeasurement]:
    """Measurements (name -> `LatencyMeasurement.to_dict()`) of models that were measured together.

    Args:
        values: from wherever; nothing of it is believed but the samples.
        percentile: the one that the summaries' intervals are for.

    Raises:
        MeasurementError: a value is not what `to_dict` makes, or the models do not share their
            processes; names the model and the error.
    """
    values = as_mapping(values, "measurements")
    samples = {
        str(name): _samples(str(name), as_mapping(value, f"model {name!r}"))
        for name, value in values.items()
    }
    counts = {len(processes) for processes in samples.values()}
    if len(counts) > 1:
        raise MeasurementError(
            f"the models have samples of {', '.join(map(str, sorted(counts)))} processes: measure "
            f"them together."
        )
    return {
        name: LatencyMeasurement(
            summary=summary,
            samples_ms=samples[name],
            diagnostic=_text(name, values[name]),
            environment=dict(
                as_mapping(values[name].get("environment"), f"the environment of model {name!r}")
            ),
            memory=_memory(name, values[name].get("memory")),
        )
        for name, summary in (summarize(samples, percentile) if samples else {}).items()
    }


class Measure(typing.Protocol):
    """Benchmark of models on a device: `benchmark.measure` on this machine, or one that has
    another machine do it.
    """

    def __call__(
        self,
        models: Mapping[str, Path],
        device: DeviceBudget,
        *,
        config: BenchmarkConfig = THOROUGH,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, LatencyMeasurement]:
        """Measures ONNX files (name -> path) on a device, interleaved.

        Args:
            on_progress: called now and then with the fraction done, 0 to 1, which never falls.

        Raises:
            SpecError: the device is not available.
            MeasurementError: a file cannot be measured; names the model.
        """
        ...


def _text(name: str, value: Mapping[str, Any]) -> str:
    diagnostic = value.get("diagnostic", "")
    if not isinstance(diagnostic, str):
        raise MeasurementError(
            f"the diagnostic of model {name!r} should be text, not {type(diagnostic).__name__}."
        )
    return diagnostic


def _memory(name: str, value: Any) -> PeakMemory | None:
    if value is None:
        return None
    where = f"the memory of model {name!r}"
    memory = PeakMemory(
        *(_bytes(where, as_mapping(value, where).get(key)) for key in ("idle_bytes", "peak_bytes"))
    )
    if memory.added_bytes <= 0:
        raise MeasurementError(
            f"{where}: a peak of {memory.peak_bytes} bytes is not above the {memory.idle_bytes} "
            f"without a model."
        )
    return memory


def _bytes(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_BYTES:
        raise MeasurementError(f"{where}: {value!r:.80} is no number of bytes: measure it again.")
    return value


def _samples(name: str, value: Mapping[str, Any]) -> list[list[list[float]]]:
    processes = value.get("samples_ms")
    if not _is_list(processes) or len(processes) < 2:
        raise MeasurementError(
            f"model {name!r} needs samples_ms of at least two processes: measure it again."
        )
    return [_process(name, index, blocks) for index, blocks in enumerate(processes)]


def _process(name: str, index: int, blocks: Any) -> list[list[float]]:
    where = f"model {name!r}, process {index + 1}"
    if not _is_list(blocks) or not all(map(_is_list, blocks)):
        raise MeasurementError(
            f"{where}: samples_ms should be lists of [process][block][run]: measure it again."
        )
    if not any(blocks):
        raise MeasurementError(f"{where} has no runs: measure it again.")
    for runs in blocks:
        for ms in runs:
            is_number = isinstance(ms, int | float) and not isinstance(ms, bool)
            if not is_number or not 0 < ms < math.inf:
                raise MeasurementError(
                    f"{where}: {ms!r:.80} is no latency in milliseconds: measure it again."
                )
    return [[float(ms) for ms in runs] for runs in blocks]


def _is_list(value: Any) -> typing.TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)
