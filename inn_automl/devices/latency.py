"""Measures how long ONNX files take on a device, so that the figure still holds when somebody measures again.

All models of one call are measured together, in several fresh processes one after another: `timing` says what happens
inside of one, `confidence` what is made of the samples. Fresh ones, because the caller's own threads (torch, Ray) must
not disturb a measurement, and because how a process happens to lie in memory stays with it as long as it lives.

The processes are not pinned to cores. Pinned, a model was no steadier on a quiet machine, and on a shared one slower:
it must share that core with whoever else is put there, where the scheduler would have moved it to an idle one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inn_automl.devices import runtimes
from inn_automl.devices.confidence import relative_width, summarize
from inn_automl.devices.environment import num_usable_cores
from inn_automl.devices.isolation import Event, run_timing
from inn_automl.devices.measurement import QUICK, THOROUGH, LatencyMeasurement, Measure, Protocol
from inn_automl.devices.timing import MAX_WAITED
from inn_automl.errors import MeasurementError, SpecError
from inn_automl.spec import DeviceBudget

__all__ = ["QUICK", "THOROUGH", "LatencyMeasurement", "Measure", "Protocol", "check_device", "measure"]

# A loaded model takes about its file's size for the graph, again for weights laid out as the kernels want them, and
# its activations; to that comes what an empty session takes.
_SESSION_FACTOR, _SESSION_BYTES = 4, 8 * 2**20


def check_device(device: DeviceBudget) -> None:
    """Refuses a device that this machine cannot be.

    Raises:
        SpecError: it has more threads than this process may use cores, or its runtime is not installed; says what adds
            it.
    """
    cores = num_usable_cores()
    if device.threads > cores:
        raise SpecError(
            f"device {device.name!r} has threads = {device.threads}, but only {cores} cores can be used here: "
            f"give at most {cores}, or measure on a machine with more."
        )
    try:
        runtimes.create(device.runtime, device.threads)
    except MeasurementError as error:
        raise SpecError(f"device {device.name!r}: {error}") from None


def measure(
    models: Mapping[str, Path],
    device: DeviceBudget,
    *,
    protocol: Protocol = THOROUGH,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, LatencyMeasurement]:
    """Measures ONNX files (name -> path) on a device, interleaved.

    Args:
        on_progress: called now and then with the share done, 0 to 1, which never falls.

    Raises:
        SpecError: the device has more threads than there are cores, or a runtime that is not installed.
        MeasurementError: a file is missing, cannot be loaded or run, or its process died or hung; names the model.
    """
    check_device(device)
    for name, path in models.items():
        if not Path(path).is_file():
            raise MeasurementError(
                f"model {name!r} cannot be measured: there is no file {str(path)!r}, export it first."
            )
    if not models:
        return {}
    campaign = _Campaign(models, device, protocol, on_progress)
    campaign.run()
    return campaign.measurements()


class _Campaign:
    """One call of `measure`."""

    def __init__(
        self,
        models: Mapping[str, Path],
        device: DeviceBudget,
        protocol: Protocol,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._models, self._device, self._protocol = models, device, protocol
        self._on_progress = on_progress
        self._chance = random.Random(protocol.seed)
        self._answers: list[Event] = []
        self._samples: dict[str, list[list[list[float]]]] = {name: [] for name in models}
        self._waited: dict[str, list[float]] = {name: [] for name in models}
        self._share = 0.0
        self._started_at, self._start = datetime.now(UTC), time.monotonic()

    def run(self) -> None:
        protocol = self._protocol
        for index in range(protocol.max_processes):
            if index >= protocol.min_processes and (self._all_settled() or self._elapsed_s() > protocol.max_s):
                break
            chunks = self._chunks()
            for position, chunk in enumerate(chunks):
                self._run_chunk(chunk, (index + position / len(chunks)), len(chunks))
        self._report(1.0)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def _report(self, share: float) -> None:
        self._share = max(self._share, share)
        if self._on_progress is not None:
            self._on_progress(self._share)

    def _chunks(self) -> list[list[str]]:
        """The models in parts that fit into memory together, drawn anew for each process: one part for most jobs."""
        names = list(self._models)
        self._chance.shuffle(names)
        chunks: list[list[str]] = [[]]
        free = self._protocol.max_bytes
        for name in names:
            need = _SESSION_FACTOR * self._models[name].stat().st_size + _SESSION_BYTES
            if need > free and chunks[-1]:
                chunks.append([])
                free = self._protocol.max_bytes
            chunks[-1].append(name)
            free -= need
        return chunks

    def _run_chunk(self, chunk: list[str], num_before: float, num_chunks: int) -> None:
        protocol, device = self._protocol, self._device
        request = {
            "runtime": device.runtime,
            "threads": device.threads,
            "batch_size": device.batch_size,
            "models": {name: str(self._models[name].absolute()) for name in chunk},
            "block_s": protocol.block_s,
            "max_runs": protocol.max_runs,
            "num_blocks": protocol.num_blocks,
            "min_s": protocol.min_s / num_chunks,
            "max_s": protocol.max_s / protocol.min_processes / num_chunks,
            "seed": self._chance.getrandbits(32),
            "num_profiled_runs": protocol.num_profiled_runs,
        }

        def on_event(event: Event) -> None:
            self._report((num_before + event.get("share", 0.0) / num_chunks) / protocol.max_processes)

        answer = run_timing(request, stalled_s=protocol.stalled_s, on_event=on_event)
        self._answers.append(answer)
        for name, blocks in answer["blocks"].items():
            self._samples[name].append([[ns / 1e6 for ns in block["ns"]] for block in blocks])
            self._waited[name] += [block["waited"] for block in blocks]

    def _width(self, name: str) -> float:
        return relative_width(self._samples[name], self._device.percentile)

    def _all_settled(self) -> bool:
        return all(self._width(name) <= self._protocol.settled_share for name in self._models)

    def measurements(self) -> dict[str, LatencyMeasurement]:
        environment = self._environment()
        return {
            name: LatencyMeasurement(
                summary=summary,
                samples_ms=self._samples[name],
                remark=self._remark(name),
                environment={**environment, **self._node_times(name)},
            )
            for name, summary in summarize(self._samples, self._device.percentile).items()
        }

    def _node_times(self, name: str) -> dict[str, Any]:
        # Of the last process: accounting is the same in all of them.
        found = [times for answer in self._answers if (times := answer.get("node_times", {}).get(name))]
        return {"node_times": found[-1]} if found else {}

    def _remark(self, name: str) -> str:
        waited = sum(self._waited[name]) / len(self._waited[name])
        if waited > MAX_WAITED:
            return f"other programs had the cores for {waited:.0%} of the time"
        if any(name in answer["not_warm"] for answer in self._answers):
            return "its median had not settled when warming up ended"
        if (width := self._width(name)) > self._protocol.settled_share:
            return (
                f"p{self._device.percentile:g} differs between processes: after {len(self._samples[name])} of them "
                f"it is known to {width:.0%}, not to {self._protocol.settled_share:.0%}"
            )
        return ""

    def _environment(self) -> dict[str, Any]:
        num_blocks = sum(answer["num_blocks"] for answer in self._answers)
        return {
            **self._answers[0]["environment"],
            "threads": self._device.threads,
            "batch_size": self._device.batch_size,
            "protocol": asdict(self._protocol),
            "num_processes": len(self._samples[next(iter(self._samples))]),
            "disturbed_share": sum(answer["num_disturbed"] for answer in self._answers) / num_blocks,
            "started_at": self._started_at.isoformat(timespec="seconds"),
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
