"""Times functions in turn, so that whatever drifts (clocks, heat, neighbours) drifts under all of
them alike.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Timings:
    """Rounds of one function, in milliseconds.

    `cpu_ms` is the processor time of the process, which does not run on while other programs have
    the cores: where it is far below `wall_ms`, the machine was shared.
    """

    wall_ms: list[float]
    cpu_ms: list[float]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.wall_ms)

    def cells(self) -> tuple[str, ...]:
        """For a row of a table: see `COLUMNS`."""
        return (
            f"{self.median_ms:.3g}",
            f"{min(self.wall_ms):.3g} to {max(self.wall_ms):.3g}",
            f"{statistics.median(self.cpu_ms):.3g}",
        )

    def to_dict(self) -> dict[str, Any]:
        return {key: [round(ms, 4) for ms in values] for key, values in asdict(self).items()}


COLUMNS = ("median ms", "min to max ms", "median of processor time, ms")


@dataclass(frozen=True)
class Ratio:
    """How many times as long as another function one takes: the median over rounds, with its 95 %
    interval.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def take_turns(
    functions: Mapping[str, Callable[[], object]],
    *,
    num_rounds: int,
    num_warmup: int = 2,
    seed: int = 0,
) -> dict[str, Timings]:
    """Calls every function once a round, in a new random order each round.

    Args:
        num_warmup: rounds before the first that counts.
    """
    order = list(functions)
    generator = random.Random(seed)
    timings = {name: Timings([], []) for name in functions}
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for round_ in range(-num_warmup, num_rounds):
            generator.shuffle(order)
            for name in order:
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                kept = functions[name]()
                cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
                del kept  # freeing what was made is not a part of making it
                if round_ >= 0:
                    timings[name].wall_ms.append(1e3 * wall_s)
                    timings[name].cpu_ms.append(1e3 * cpu_s)
            # Cycles hold gigabytes if nothing ever looks for them.
            gc.collect()
    finally:
        if was_enabled:
            gc.enable()
    return timings


def ratio(timings: Timings, other: Timings, *, by: str = "wall_ms") -> Ratio:
    """Of each round's two times, which a busy machine slows down alike.

    Args:
        by: "wall_ms", or "cpu_ms" for processor time.
    """
    pairs = zip(getattr(timings, by), getattr(other, by), strict=True)
    ratios = sorted(mine / theirs for mine, theirs in pairs)
    # Order statistics between which the median lies with 95 % confidence, whatever the
    # distribution.
    spread = 0.98 * math.sqrt(len(ratios))
    low = max(0, math.floor(len(ratios) / 2 - spread))
    high = min(len(ratios) - 1, math.ceil(len(ratios) / 2 + spread))
    return Ratio(statistics.median(ratios), ratios[low], ratios[high])
