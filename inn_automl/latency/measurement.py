"""What a measurement is asked for and what it brings, also as JSON: somebody else's machine may
have measured.

Summaries are never taken from outside: whoever reads a measurement computes them from its samples.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from inn_automl.core.errors import MeasurementError
from inn_automl.core.result import LatencySummary
from inn_automl.core.spec import DeviceBudget
from inn_automl.latency.statistics import summarize

_MAX_BYTES = 2**60
"""No machine has this much memory."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """How often and how long is measured."""

    min_processes: int = 6
    """They are all that intervals are made of: with 6 the factor for the unknown spread is 2.6,
    with 3 it is 4.3.
    """
    max_processes: int = 10
    """Another process is started until every model is converged."""
    convergence_tolerance: float = 0.1
    """A model is converged when the 95 % interval for its mean percentile is narrower than this
    share of it.
    """
    num_blocks: int = 24
    """Undisturbed blocks of each model that a process needs."""
    min_s: float = 2.0
    """A process takes turns for at least this long, because a machine's speed can change from
    second to second.
    """
    max_s: float = 90.0
    """No process is started after this time, and none takes turns for longer than its share of it."""
    block_s: float = 0.002
    """A scheduler seldom lets a thread compute for longer while others wait: a longer block is
    seldom undisturbed.
    """
    max_runs: int = 50
    """Runs in a block; a model of a few microseconds needs no more."""
    stalled_s: float = 60.0
    """A process that does not reach its next step (to load a model, to begin a block) in this time
    is given up.
    """
    max_bytes: int = 2**30
    """Models that together need more memory than this are loaded in turns."""
    num_profiled_runs: int = 0
    """Runs of each model after the timed ones in which the runtime accounts for its operations,
    where it can: their times are in the environment of the measurement, under `node_times`."""
    max_drift: float = 0.15
    """A batch is timed again where the reference model beside it was off by more than this share
    of its median in the process. Alone on a machine, one batch in a hundred is: see
    docs/explanation/measuring.md."""
    max_process_drift: float = 0.1
    """Another process is started for one in which the reference model's median was off by more
    than this share of what it is in most (or of `reference_ms`); alone on a machine it is off by 2
    %."""
    reference_ms: float = 0.0
    """What the reference model took in the measurements that this one is to be compared with. A
    virtual machine whose two cores are at times two threads of one core has two speeds, for many
    seconds each. 0: it is not known."""
    max_repeated: int = 10
    """Processes that may be started for drifted ones: the wrong speed may last for half a minute."""
    num_memory_runs: int = 3
    """Runs after which a model's peak memory is read, in a process of its own; 0: memory is not
    measured.
    """
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.min_processes <= self.max_processes or self.num_blocks < 1:
            raise ValueError(
                f"give 2 <= min_processes <= max_processes and num_blocks of at least 1, not {self}"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> BenchmarkConfig:
        """Reads the config that `to_dict` described; a key left out has its default.

        Raises:
            MeasurementError: it describes none; names the key.
        """
        types = {one.name: type(one.default) for one in fields(cls)}
        for key, number in _mapping(value, "a benchmark config").items():
            if key not in types:
                raise MeasurementError(
                    f"a benchmark config has no {key!r}: give some of {', '.join(types)}."
                )
            kinds = (int,) if types[key] is int else (int, float)
            if (
                isinstance(number, bool)
                or not isinstance(number, kinds)
                or not math.isfinite(number)
                or number < 0
            ):
                raise MeasurementError(
                    f"{key} = {number!r:.80} of a benchmark config is no {types[key].__name__} >= 0."
                )
        try:
            return cls(**value)
        except ValueError as error:
            raise MeasurementError(f"the benchmark config is invalid: {error}.") from None


THOROUGH = BenchmarkConfig()
"""For what is shown and promised."""

QUICK = BenchmarkConfig(
    min_processes=4, max_processes=4, num_blocks=16, min_s=1.0, max_s=20.0, num_memory_runs=0
)
"""For profiling, and for a first look: many models, a few hundred runs each; no memory."""

MEMORY = BenchmarkConfig(
    min_processes=2, max_processes=2, num_blocks=1, min_s=0.0, max_s=20.0, max_repeated=0
)
"""For peak memory alone: latency is hardly looked at."""


@dataclass(frozen=True)
class PeakMemory:
    """Resident memory, in bytes, of a process that loads only one model and runs it."""

    idle_bytes: int
    """With the runtime imported and no model loaded."""
    peak_bytes: int
    """The highest since then."""

    @property
    def added_bytes(self) -> int:
        """What the model needs, with all that the runtime sets up for its first model."""
        return self.peak_bytes - self.idle_bytes


@dataclass(frozen=True)
class LatencyMeasurement:
    """What was measured of one model."""

    summary: LatencySummary
    samples_ms: list[list[list[float]]] = field(repr=False)
    """Milliseconds of [process][block][run], all of them."""
    diagnostic: str
    """Why the measurement did not settle before a limit was reached; empty where it did."""
    environment: dict[str, Any] = field(repr=False)
    """Runtime, its version and options; machine; threads and config; times in UTC; how disturbed
    the machine was, and how much its speed changed."""
    memory: PeakMemory | None = None
    """None where it was not asked for, or the platform does not tell."""

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
        percentile = _mapping(value, "a measurement").get("percentile")
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
            processes; names the model and the fault.
    """
    values = _mapping(values, "measurements")
    samples = {
        str(name): _samples(str(name), _mapping(value, f"model {name!r}"))
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
                _mapping(values[name].get("environment"), f"the environment of model {name!r}")
            ),
            memory=_memory(name, values[name].get("memory")),
        )
        for name, summary in (summarize(samples, percentile) if samples else {}).items()
    }


class Measure(typing.Protocol):
    """Who measures: `latency.measure` on this machine, or somebody who has another machine do it."""

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
            on_progress: called now and then with the share done, 0 to 1, which never falls.

        Raises:
            SpecError: the device cannot be had.
            MeasurementError: a file cannot be measured; names the model.
        """
        ...


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MeasurementError(
            f"{what} should be a mapping of keys to values, not {type(value).__name__}."
        )
    return value


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
        *(_bytes(where, _mapping(value, where).get(key)) for key in ("idle_bytes", "peak_bytes"))
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
