"""Timing of models in a process of its own: `python -m inn_automl.latency.timing`.

Reads one JSON request from standard input and writes JSON lines to standard output (see `child`);
the last one is

    {"event": "done", "environment": {...}, "not_warm": [model, ...],
     "num_blocks": ..., "num_contended": ..., "num_repetitions": ..., "num_drifted": ...,
     "reference_ns": ...,
     "blocks": {model: [{"ns": [...], "waited": fraction, "drift": fraction}, ...]},
     "node_times": {model: [{"name": ..., "kind": ..., "ms": ...}, ...]}}

A *block* is a few milliseconds of one model's runs, one after another. A *repetition* is one block
of every model, in random order: round-robin interleaving, so that whatever drifts (clocks, heat,
neighbours) drifts under all models alike (compare duet benchmarking, Bulej et al., ICPE 2020).

**Contended blocks.** While other programs want the cores too, a run may be suspended for several
milliseconds. That time is a property of the load and not of the model and the device, and one such
pause in twenty runs is enough to become the 95th percentile. The operating system's own account of
it (`schedstat`: nanoseconds that a thread was ready and had no core) says which blocks were hit,
without looking at the latencies: those blocks are discarded and repeated. Within the blocks that
count every run counts, however slow. After a contended block the process sleeps for a moment, since
a thread that just woke up is seldom suspended at once.

**Drifted repetitions.** A core can also be slower without any waiting: at another clock rate, with
a busy sibling, with neighbours at the same memory, or on a virtual machine whose host is shared. A
block of the reference model (`reference`) is timed before the first repetition, between any two,
and after the last one. Where one of the two beside a repetition differs from the median of all by
more than the request's `max_drift`, the blocks of that repetition are discarded and repeated. Which
ones follows from the reference model alone.

Where too few blocks are clean the least noisy ones are taken, and the noise is part of the result.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from inn_automl import runtimes
from inn_automl.core.errors import MeasurementError
from inn_automl.latency import child
from inn_automl.runtimes import RunOnce, Runtime
from inn_automl.runtimes.environment import describe_machine

MAX_WAITED = 0.1
"""A block is contended if its threads were ready and had no core for more than this fraction of its
time. A pause by another program takes a millisecond or more, which is above this in any block;
waking a thread takes microseconds."""

_PAUSE_S = 0.001
_CONVERGED_FRACTION = 0.05
_MAX_WARMUP_BLOCKS = 20
_REFERENCE_NAME = "the reference model"


class TimedBlock(NamedTuple):
    """Consecutive runs of one model."""

    ns: list[int]
    """Nanoseconds of each run."""
    waited: float
    """Fraction of the block's time that its threads spent waiting for a core."""
    drift: float = 0.0
    """Relative deviation of the reference model beside it from its median."""

    def noise(self, max_drift: float) -> float:
        """The larger of waiting and drift, relative to its limit; a clean block has at most 1."""
        return max(self.waited / MAX_WAITED, self.drift / max_drift)

    def is_clean(self, max_drift: float) -> bool:
        """Return whether the block is neither contended nor drifted."""
        return self.noise(max_drift) <= 1


class WaitClock:
    """Time that this process's threads spent ready to run while other programs had the cores.

    Linux only; elsewhere, and where the kernel does not account for it, it stands still.
    """

    def __init__(self) -> None:
        self._files: list[int] = []
        try:
            for thread in os.listdir("/proc/self/task"):
                self._files.append(os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY))
            self.ns()
            self.available = True
        except (OSError, IndexError, ValueError):
            self.close()
            self.available = False

    def ns(self) -> int:
        """Nanoseconds since the threads began, summed over them."""
        return sum(int(os.pread(file, 96, 0).split()[1]) for file in self._files)

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())


def time_block(run: RunOnce, block_ns: int, max_runs: int, waiting: WaitClock) -> TimedBlock:
    """Times as many runs as fit into `block_ns`: at least one, at most `max_runs`.

    A tenth of that time (at least one run) precedes it untimed: the model before has left its own
    data in the caches, and an application that runs one model does not see that.
    """
    clock = time.perf_counter_ns
    samples: list[int] = []
    end = clock() + block_ns // 10
    run()
    while clock() < end:
        run()
    waited = waiting.ns()
    begin = clock()
    end = begin + block_ns
    while True:
        start = clock()
        run()
        stop = clock()
        samples.append(stop - start)
        if stop + samples[-1] > end or len(samples) >= max_runs:
            break
    return TimedBlock(samples, (waiting.ns() - waited) / (stop - begin))


def warm_up(run: RunOnce, block_ns: int, waiting: WaitClock) -> bool:
    """Runs until the medians of two blocks in a row differ by less than 5 %.

    Returns:
        Whether 20 blocks were enough.
    """
    before = 0.0
    for _ in range(_MAX_WARMUP_BLOCKS):
        median = statistics.median(time_block(run, block_ns, 50, waiting).ns)
        if abs(median - before) < _CONVERGED_FRACTION * median:
            return True
        before = median
    return False


class Interleaved(NamedTuple):
    """All blocks of every model, and the reference model beside the repetitions."""

    blocks: dict[str, list[TimedBlock]]
    reference_ns: list[float | None]
    """Median nanoseconds before, between and after the repetitions; None where that block was
    contended itself.
    """


def interleave(
    models: dict[str, RunOnce],
    reference: RunOnce,
    *,
    num_blocks: int,
    min_s: float,
    max_s: float,
    max_drift: float,
    block_ns: int,
    max_runs: int,
    seed: int,
    waiting: WaitClock,
    on_block: Callable[[str, float], None],
) -> Interleaved:
    """Times repetitions for `min_s`, and then until each model has `num_blocks` clean blocks or
    `max_s` is over.

    Args:
        on_block: called before each block with the model and the fraction done.
    """
    generator = random.Random(seed)
    taken: dict[str, list[tuple[int, TimedBlock]]] = {name: [] for name in models}
    reference_ns: list[float | None] = []

    def time_one(run: RunOnce) -> TimedBlock:
        block = time_block(run, block_ns, max_runs, waiting)
        if block.waited > MAX_WAITED:
            time.sleep(_PAUSE_S)
        return block

    def time_reference() -> None:
        block = time_one(reference)
        reference_ns.append(statistics.median(block.ns) if block.waited <= MAX_WAITED else None)

    time_reference()
    start = time.monotonic()
    while True:
        elapsed = time.monotonic() - start
        drifts = repetition_drifts(reference_ns)
        blocks = {
            name: [block._replace(drift=drifts[repetition]) for repetition, block in ones]
            for name, ones in taken.items()
        }
        num_clean = {
            name: sum(block.is_clean(max_drift) for block in found)
            for name, found in blocks.items()
        }
        needed = num_blocks if elapsed >= min_s else sys.maxsize
        missing = [name for name in models if num_clean[name] < needed]
        if not missing or (elapsed > max_s and all(blocks.values())):
            return Interleaved(blocks, reference_ns)
        done = min(1.0, elapsed / min_s if min_s else 1.0, min(num_clean.values()) / num_blocks)
        generator.shuffle(missing)
        for name in missing:
            on_block(name, done)
            taken[name].append((len(reference_ns) - 1, time_one(models[name])))
        time_reference()


def repetition_drifts(reference_ns: Sequence[float | None]) -> list[float]:
    """Relative deviation of the reference model at each repetition: the larger of before and after.

    Args:
        reference_ns: before, between and after the repetitions; None where it is not known, which
            counts as no deviation.
    """
    median_ns = median_reference_ns(reference_ns)
    off = [
        0.0 if ns is None or median_ns is None else abs(ns / median_ns - 1) for ns in reference_ns
    ]
    return [max(pair) for pair in itertools.pairwise(off)]


def median_reference_ns(reference_ns: Sequence[float | None]) -> float | None:
    """The median of the known ones; None if none is."""
    known = [ns for ns in reference_ns if ns is not None]
    return statistics.median(known) if known else None


def choose(blocks: list[TimedBlock], num_blocks: int, max_drift: float) -> list[TimedBlock]:
    """The blocks that count: the clean ones; if those are fewer than `num_blocks`, the least noisy.

    Args:
        num_blocks: at least this many.
    """
    clean = [block for block in blocks if block.is_clean(max_drift)]
    if len(clean) >= num_blocks:
        return clean
    return sorted(blocks, key=lambda block: block.noise(max_drift))[:num_blocks]


def serve(request: dict[str, Any], emit: child.Emit) -> None:
    """Answers a request.

    Raises:
        MeasurementError: a model cannot be loaded or run.
    """
    runtime = runtimes.create(request["runtime"], request["threads"])
    block_ns = round(request["block_s"] * 1e9)
    emit({"event": "loading", "model": _REFERENCE_NAME})
    reference = runtime.load(Path(request["reference"]), 1)
    models: dict[str, RunOnce] = {}
    for name, path in request["models"].items():
        emit({"event": "loading", "model": name})
        models[name] = runtime.load(Path(path), request["batch_size"])
    waiting = WaitClock()  # after the sessions have started their threads
    gc.disable()
    not_warm = _warm_up_all({_REFERENCE_NAME: reference, **models}, block_ns, waiting, emit)
    interleaved = interleave(
        models,
        reference,
        num_blocks=request["num_blocks"],
        min_s=request["min_s"],
        max_s=request["max_s"],
        max_drift=request["max_drift"],
        block_ns=block_ns,
        max_runs=request["max_runs"],
        seed=request["seed"],
        waiting=waiting,
        on_block=lambda name, done: emit({"event": "timing", "model": name, "fraction": done}),
    )
    node_times = _profile(runtime, request, emit) if request["num_profiled_runs"] else {}
    environment = {
        **runtime.describe(),
        **describe_machine(),
        "waiting_accounted": waiting.available,
    }
    emit(
        {
            "event": "done",
            "environment": environment,
            "not_warm": not_warm,
            **_summarized(interleaved, request["num_blocks"], request["max_drift"]),
            "node_times": node_times,
        }
    )


def _warm_up_all(
    models: Mapping[str, RunOnce], block_ns: int, waiting: WaitClock, emit: child.Emit
) -> list[str]:
    """Warms all models up; returns the names of those whose median has not converged."""
    not_warm = []
    for name, run in models.items():
        emit({"event": "warming up", "model": name})
        try:
            if not warm_up(run, block_ns, waiting):
                not_warm.append(name)
        # whatever the runtime raises, it is this model that it cannot run
        except Exception as error:
            reason = " ".join(str(error).split())
            raise MeasurementError(
                f"the runtime cannot run the model ({reason}): export it again."
            ) from None
    return not_warm


def _profile(
    runtime: Runtime, request: Mapping[str, Any], emit: child.Emit
) -> dict[str, list[dict[str, Any]]]:
    """The time of each operation, by model."""
    node_times = {}
    for name, path in request["models"].items():
        emit({"event": "profiling", "model": name})
        nodes = runtime.profile(Path(path), request["batch_size"], request["num_profiled_runs"])
        node_times[name] = [asdict(node) for node in nodes]
    return node_times


def _summarized(interleaved: Interleaved, num_blocks: int, max_drift: float) -> dict[str, Any]:
    """The blocks that count, and how noisy all of them were."""
    blocks, reference_ns = interleaved
    drifts = repetition_drifts(reference_ns)
    return {
        "num_blocks": sum(map(len, blocks.values())),
        "num_contended": sum(
            block.waited > MAX_WAITED for taken in blocks.values() for block in taken
        ),
        "num_repetitions": len(drifts),
        "num_drifted": sum(drift > max_drift for drift in drifts),
        "reference_ns": median_reference_ns(reference_ns),
        "blocks": {
            name: [block._asdict() for block in choose(taken, num_blocks, max_drift)]
            for name, taken in blocks.items()
        },
    }


if __name__ == "__main__":
    sys.exit(child.main(serve))
