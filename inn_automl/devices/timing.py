"""Times models in a process of its own: `python -m inn_automl.devices.timing`.

Reads one JSON request from standard input and writes JSON lines to standard output: what it is doing, before each step
(so that a parent knows which model was in hand when the process died), and at the end one `done` line:

    {"event": "done", "environment": {...}, "not_warm": [model, ...], "num_blocks": ..., "num_disturbed": ...,
     "blocks": {model: [{"ns": [...], "waited": share}, ...]},
     "node_times": {model: [{"name": ..., "kind": ..., "ms": ...}, ...]}}

A *block* is a few milliseconds of one model's runs, one after another. The models take turns, block by block, in an
order that is drawn anew each round, so that whatever drifts (clocks, heat, neighbours) drifts under all of them alike.

**Disturbed blocks.** While other programs want the cores too, a run may be put aside in its middle for several
milliseconds. That time is a property of the load and not of the model and the device, and one such pause in twenty runs
is enough to become the 95th percentile. The operating system's own account of it (`schedstat`: nanoseconds that a
thread was ready and had no core) tells, without looking at the latencies, which blocks were hit: those are thrown away
whole and repeated. Within the blocks that count every run counts, however slow. After a disturbed block the process
sleeps for a moment, since a thread that just woke up is seldom put aside at once. Where the machine is never calm the
least disturbed blocks are taken, and the share of their time that was spent waiting is part of the result.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from inn_automl.devices import runtimes
from inn_automl.devices.environment import describe_machine
from inn_automl.devices.runtimes import RunOnce
from inn_automl.errors import MeasurementError

MAX_WAITED = 0.1
"""A block is disturbed when its threads were ready and had no core for more than this share of its time. A pause by
another program takes a millisecond or more, which is above this in any block; waking a thread takes microseconds."""

_PAUSE_S = 0.001
_SETTLED_SHARE = 0.05
_MAX_WARMUP_BLOCKS = 20

Block = tuple[list[int], float]
"""Nanoseconds of each run, and the share of the block's time that its threads spent waiting for a core."""


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


def time_block(run: RunOnce, block_ns: int, max_runs: int, waiting: WaitClock) -> Block:
    """Runs as often as fits into `block_ns`: at least once, at most `max_runs` times.

    A tenth of that time (at least one run) goes before it untimed: the model before has left its own data in the
    caches, and an application that runs one model does not see that.
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
    return samples, (waiting.ns() - waited) / (stop - begin)


def warm_up(run: RunOnce, block_ns: int, waiting: WaitClock) -> bool:
    """Runs until the medians of two blocks in a row differ by less than 5 %; False if 20 blocks were not enough."""
    before = 0.0
    for _ in range(_MAX_WARMUP_BLOCKS):
        samples, _ = time_block(run, block_ns, 50, waiting)
        median = statistics.median(samples)
        if abs(median - before) < _SETTLED_SHARE * median:
            return True
        before = median
    return False


def take_turns(
    models: dict[str, RunOnce],
    *,
    num_blocks: int,
    min_s: float,
    max_s: float,
    block_ns: int,
    max_runs: int,
    seed: int,
    waiting: WaitClock,
    on_block: Callable[[str, float], None],
) -> dict[str, list[Block]]:
    """All blocks of every model: for `min_s`, and then until each has `num_blocks` undisturbed ones or `max_s` is over.

    Args:
        on_block: called before each block with the model and the share done.
    """
    generator = random.Random(seed)
    blocks: dict[str, list[Block]] = {name: [] for name in models}
    num_calm = dict.fromkeys(models, 0)
    start = time.monotonic()
    while True:
        elapsed = time.monotonic() - start
        wanted = num_blocks if elapsed >= min_s else sys.maxsize
        turn = [name for name in models if num_calm[name] < wanted]
        if not turn or (elapsed > max_s and all(blocks.values())):
            return blocks
        share = min(1.0, elapsed / min_s if min_s else 1.0, min(num_calm.values()) / num_blocks)
        generator.shuffle(turn)
        for name in turn:
            on_block(name, share)
            block = time_block(models[name], block_ns, max_runs, waiting)
            blocks[name].append(block)
            if block[1] <= MAX_WAITED:
                num_calm[name] += 1
            else:
                time.sleep(_PAUSE_S)


def choose(blocks: list[Block], num_blocks: int) -> list[Block]:
    """The blocks that count: the undisturbed ones; if those are fewer than `num_blocks`, the least disturbed."""
    calm = [block for block in blocks if block[1] <= MAX_WAITED]
    return calm if len(calm) >= num_blocks else sorted(blocks, key=lambda block: block[1])[:num_blocks]


def serve(request: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> None:
    """Does what a request asks for.

    Raises:
        MeasurementError: a model cannot be loaded or run.
    """
    runtime = runtimes.create(request["runtime"], request["threads"])
    block_ns = round(request["block_s"] * 1e9)
    models: dict[str, RunOnce] = {}
    for name, path in request["models"].items():
        emit({"event": "loading", "model": name})
        models[name] = runtime.load(Path(path), request["batch_size"])
    waiting = WaitClock()  # after the sessions have started their threads
    gc.disable()
    not_warm = []
    for name, run in models.items():
        emit({"event": "warming up", "model": name})
        try:
            if not warm_up(run, block_ns, waiting):
                not_warm.append(name)
        except Exception as error:  # whatever the runtime raises, it is this model that it cannot run
            reason = " ".join(str(error).split())
            raise MeasurementError(f"the runtime cannot run the model ({reason}): export it again.") from None
    blocks = take_turns(
        models,
        num_blocks=request["num_blocks"],
        min_s=request["min_s"],
        max_s=request["max_s"],
        block_ns=block_ns,
        max_runs=request["max_runs"],
        seed=request["seed"],
        waiting=waiting,
        on_block=lambda name, share: emit({"event": "timing", "model": name, "share": share}),
    )
    node_times = {}
    if request["num_profiled_runs"]:
        for name, path in request["models"].items():
            emit({"event": "profiling", "model": name})
            nodes = runtime.profile(Path(path), request["batch_size"], request["num_profiled_runs"])
            node_times[name] = [asdict(node) for node in nodes]
    chosen = {name: choose(taken, request["num_blocks"]) for name, taken in blocks.items()}
    emit(
        {
            "event": "done",
            "environment": {**runtime.describe(), **describe_machine(), "waiting_accounted": waiting.available},
            "not_warm": not_warm,
            "num_blocks": sum(map(len, blocks.values())),
            "num_disturbed": sum(waited > MAX_WAITED for taken in blocks.values() for _, waited in taken),
            "blocks": {name: [{"ns": ns, "waited": waited} for ns, waited in taken] for name, taken in chosen.items()},
            "node_times": node_times,
        }
    )


def _end_with_parent() -> None:
    """Has the kernel kill this process when its parent is killed: nobody would read what it measures, and it would
    disturb the next measurement. Linux only (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> int:
    _end_with_parent()
    # Standard output is for the protocol alone: whatever a runtime prints goes to standard error.
    channel: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: dict[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    in_hand: dict[str, Any] = {}

    def step(event: dict[str, Any]) -> None:
        in_hand.update(event)
        emit(event)

    try:
        serve(json.load(sys.stdin), step)
    except MeasurementError as error:
        emit({"event": "failed", "model": in_hand.get("model"), "message": str(error)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
