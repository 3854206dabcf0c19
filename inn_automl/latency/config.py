"""Configuration of a benchmark, also as JSON: somebody else's machine may run it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from inn_automl.core.errors import MeasurementError


@dataclass(frozen=True)
class BenchmarkConfig:
    """Numbers of processes, repetitions and runs of a benchmark, and its limits.

    docs/explanation/measuring.md has the reasons and the evidence.
    """

    min_processes: int = 6
    """Intervals are made of the processes: with 6 the factor for the unknown spread (Student's t)
    is 2.6, with 3 it is 4.3.
    """
    max_processes: int = 10
    """Another process is started until every model has converged."""
    convergence_tolerance: float = 0.1
    """A model has converged when the 95 % interval for its mean percentile is narrower than this
    fraction of it.
    """
    num_blocks: int = 24
    """Clean blocks of each model that a process needs."""
    min_s: float = 2.0
    """A process interleaves the models for at least this long, because a machine's speed can change
    from second to second.
    """
    max_s: float = 90.0
    """No process is started after this time, and none runs for longer than its part of it."""
    block_s: float = 0.002
    """A scheduler seldom lets a thread compute for longer while others wait: a longer block is
    seldom clean.
    """
    max_runs: int = 50
    """Runs in a block; a model of a few microseconds needs no more."""
    stalled_s: float = 60.0
    """A process that does not reach its next step (to load a model, to begin a block) in this time
    is killed.
    """
    max_bytes: int = 2**30
    """Models that together need more memory than this are loaded in turns."""
    num_profiled_runs: int = 0
    """Runs of each model after the timed ones in which the runtime accounts for its operations,
    where it can: their times are in the environment of the measurement, under `node_times`."""
    max_drift: float = 0.15
    """A repetition is discarded and timed again if the reference model beside it deviates by more
    than this fraction from its median in the process. Alone on a machine, one repetition in a
    hundred does."""
    max_process_drift: float = 0.1
    """A process is repeated if the reference model's median in it deviates by more than this
    fraction from the mode over the processes (or from `reference_ms`). Alone on a machine it
    deviates by 2 %."""
    reference_ms: float = 0.0
    """Median latency of the reference model in the measurements that this one is to be compared
    with; 0 if not known. A virtual machine whose two cores are at times two threads of one core has
    two clock regimes, for many seconds each."""
    max_repeated: int = 10
    """Processes that may be started for drifted ones: a clock regime may last half a minute."""
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
        for key, number in as_mapping(value, "a benchmark config").items():
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
                    f"{key} = {number!r:.80} of a benchmark config is no "
                    f"{types[key].__name__} >= 0."
                )
        try:
            return cls(**value)
        except ValueError as error:
            raise MeasurementError(f"the benchmark config is invalid: {error}.") from None


THOROUGH = BenchmarkConfig()
"""Configuration for all figures that are published."""

QUICK = BenchmarkConfig(
    min_processes=4, max_processes=4, num_blocks=16, min_s=1.0, max_s=20.0, num_memory_runs=0
)
"""Configuration for profiling and checks: many models, a few hundred runs each, no memory."""

MEMORY = BenchmarkConfig(
    min_processes=2, max_processes=2, num_blocks=1, min_s=0.0, max_s=20.0, max_repeated=0
)
"""Configuration for peak memory alone, with hardly any timing."""


def as_mapping(value: Any, what: str) -> Mapping[str, Any]:
    """The value, if it is a mapping.

    Raises:
        MeasurementError: it is something else; names it as `what`.
    """
    if not isinstance(value, Mapping):
        raise MeasurementError(
            f"{what} should be a mapping of keys to values, not {type(value).__name__}."
        )
    return value
