"""Benchmark of ONNX files on a device, made so that the figures still hold when it is repeated.

All models of one call are measured together, in several fresh processes one after another:
`timing` is what happens inside of one, `statistics` what follows from the samples. The processes
are fresh because the caller's own threads (torch, Ray) must not disturb a measurement, and because
the layout of a process in memory stays with it for life and biases all its runs (Mytkowicz et al.,
"Producing Wrong Data Without Doing Anything Obviously Wrong!", ASPLOS 2009). Processes, not runs,
are therefore the replicates (Georges, Buytaert & Eeckhout, "Statistically Rigorous Java Performance
Evaluation", OOPSLA 2007; Kalibera & Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013).

A process in which the machine had another speed, by the reference model, does not count and is
repeated. It is compared with the other processes, or with an earlier measurement that this one is
to be compared with. `timing` does the same with the repetitions inside of one process.

The processes are not pinned to cores. Pinned, a model was no steadier on a quiet machine, and on a
shared one slower: it must share that core with whoever else is put there, where the scheduler
would have moved it to an idle one.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inn_automl import runtimes
from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.spec import DeviceBudget
from inn_automl.latency.config import MEMORY, QUICK, THOROUGH, BenchmarkConfig
from inn_automl.latency.isolation import Event, run_memory, run_timing
from inn_automl.latency.measurement import LatencyMeasurement, Measure, PeakMemory
from inn_automl.latency.reference import REFERENCE
from inn_automl.latency.statistics import relative_width, summarize
from inn_automl.latency.timing import MAX_WAITED
from inn_automl.runtimes.environment import num_usable_cores

__all__ = [
    "MEMORY",
    "QUICK",
    "THOROUGH",
    "BenchmarkConfig",
    "LatencyMeasurement",
    "Measure",
    "check_device",
    "measure",
]

# A loaded model takes about its file's size for the graph, again for weights laid out as the
# kernels want them, and its activations; to that comes what an empty session takes.
_SESSION_FACTOR, _SESSION_BYTES = 4, 8 * 2**20


def check_device(device: DeviceBudget) -> None:
    """Refuses a device that this machine cannot be.

    Raises:
        SpecError: it has more threads than this process may use cores, or its runtime is not
            installed; says what adds it.
    """
    cores = num_usable_cores()
    if device.threads > cores:
        raise SpecError(
            f"device {device.name!r} has threads = {device.threads}, but only {cores} cores can be "
            f"used here: "
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
    config: BenchmarkConfig = THOROUGH,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, LatencyMeasurement]:
    """Measures ONNX files (name -> path) on a device, interleaved.

    Args:
        on_progress: called now and then with the fraction done, 0 to 1, which never falls.

    Raises:
        SpecError: the device has more threads than there are cores, or a runtime that is not
            installed.
        MeasurementError: a file is missing, cannot be loaded or run, or its process died or hung;
            names the model.

    Example:
        >>> from inn_automl import Device, measure
        >>> from inn_automl.latency.config import QUICK
        >>> from inn_automl.latency.reference import REFERENCE
        >>> found = measure({"small": REFERENCE}, Device(name="laptop"), config=QUICK)
        >>> found["small"].summary.p50 > 0
        True
    """
    check_device(device)
    for name, path in models.items():
        if not Path(path).is_file():
            raise MeasurementError(
                f"model {name!r} cannot be measured: there is no file {str(path)!r}, export it "
                f"first."
            )
    if not models:
        return {}
    campaign = _Campaign(models, device, config, on_progress)
    campaign.run()
    return campaign.measurements()


@dataclass
class _Process:
    """Samples of all models from one process, or from several if the models do not fit into one."""

    answers: list[Event] = field(default_factory=list)

    @property
    def blocks(self) -> dict[str, list[dict[str, Any]]]:
        return {
            name: blocks for answer in self.answers for name, blocks in answer["blocks"].items()
        }

    @property
    def reference_ns(self) -> float | None:
        known = [
            answer["reference_ns"] for answer in self.answers if answer["reference_ns"] is not None
        ]
        return statistics.median(known) if known else None

    def samples_ms(self, name: str) -> list[list[float]]:
        return [[ns / 1e6 for ns in block["ns"]] for block in self.blocks[name]]


class _Campaign:
    """One call of `measure`."""

    def __init__(
        self,
        models: Mapping[str, Path],
        device: DeviceBudget,
        config: BenchmarkConfig,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._models, self._device, self._config = models, device, config
        self._on_progress = on_progress
        self._chance = random.Random(config.seed)
        self._processes: list[_Process] = []
        self._memory: dict[str, PeakMemory | None] = {}
        self._fraction = 0.0
        self._started_at, self._start = datetime.now(UTC), time.monotonic()

    def run(self) -> None:
        if self._config.num_memory_runs:
            for name in self._models:
                self._memory[name] = self._measure_memory(name)
                self._report(0.0)
        while self._needs_another():
            chunks, process = self._chunks(), _Process()
            for position, chunk in enumerate(chunks):
                process.answers.append(
                    self._time(chunk, len(self._processes) + position / len(chunks), len(chunks))
                )
            self._processes.append(process)
        self._report(1.0)

    def _needs_another(self) -> bool:
        config = self._config
        num_started, num_clean = len(self._processes), len(self._clean())
        is_late = time.monotonic() - self._start > config.max_s
        if num_started < config.min_processes:
            return True
        if is_late or num_clean >= config.max_processes or num_started >= self._max_processes():
            return False
        return num_clean < config.min_processes or not self._all_converged()

    def _max_processes(self) -> int:
        return self._config.max_processes + self._config.max_repeated

    def _drift(self, process: _Process) -> float:
        """Relative deviation of the reference model in a process."""
        if process.reference_ns is None:
            return 0.0
        return abs(process.reference_ns / (1e6 * self._config.reference_ms or self._mode_ns()) - 1)

    def _mode_ns(self) -> float:
        """Nanoseconds of the reference model in the process that most others agree with.

        It is the mode and not the median, which can fall between two clock regimes, where no
        process ran. Of two modes it is the slower one.
        """
        known = [one.reference_ns for one in self._processes if one.reference_ns is not None]
        allowed = self._config.max_process_drift

        def num_agreeing(ns: float) -> int:
            return sum(abs(other / ns - 1) <= allowed for other in known)

        return max(known, key=lambda ns: (num_agreeing(ns), ns))

    def _clean(self) -> list[_Process]:
        return [
            one for one in self._processes if self._drift(one) <= self._config.max_process_drift
        ]

    def _counted(self) -> list[_Process]:
        """The processes that count: the clean ones; if those are too few, the least drifted."""
        clean, least = self._clean(), self._config.min_processes
        return clean if len(clean) >= least else sorted(self._processes, key=self._drift)[:least]

    def _report(self, fraction: float) -> None:
        self._fraction = max(self._fraction, min(fraction, 1.0))
        if self._on_progress is not None:
            self._on_progress(self._fraction)

    def _chunks(self) -> list[list[str]]:
        """Groups of models that fit into memory together, drawn again for each process; mostly one
        group.
        """
        names = list(self._models)
        self._chance.shuffle(names)
        chunks: list[list[str]] = [[]]
        free = self._config.max_bytes
        for name in names:
            need = _SESSION_FACTOR * self._models[name].stat().st_size + _SESSION_BYTES
            if need > free and chunks[-1]:
                chunks.append([])
                free = self._config.max_bytes
            chunks[-1].append(name)
            free -= need
        return chunks

    def _request(self, names: list[str]) -> dict[str, Any]:
        return {
            "runtime": self._device.runtime,
            "threads": self._device.threads,
            "batch_size": self._device.batch_size,
            "models": {name: str(self._models[name].absolute()) for name in names},
        }

    def _time(self, chunk: list[str], num_before: float, num_chunks: int) -> Event:
        config = self._config
        request = {
            **self._request(chunk),
            "reference": str(REFERENCE),
            "block_s": config.block_s,
            "max_runs": config.max_runs,
            "num_blocks": config.num_blocks,
            "min_s": config.min_s / num_chunks,
            "max_s": config.max_s / config.min_processes / num_chunks,
            "max_drift": config.max_drift,
            "seed": self._chance.getrandbits(32),
            "num_profiled_runs": config.num_profiled_runs,
        }

        def on_event(event: Event) -> None:
            self._report(
                (num_before + event.get("fraction", 0.0) / num_chunks) / config.max_processes
            )

        return run_timing(request, stalled_s=config.stalled_s, on_event=on_event)

    def _measure_memory(self, name: str) -> PeakMemory | None:
        config = self._config
        request = {**self._request([name]), "num_runs": config.num_memory_runs}
        answer = run_memory(
            request, stalled_s=config.stalled_s, on_event=lambda event: self._report(0.0)
        )
        if answer["idle_bytes"] is None or answer["peak_bytes"] <= answer["idle_bytes"]:
            return None
        return PeakMemory(answer["idle_bytes"], answer["peak_bytes"])

    def _samples(self, name: str) -> list[list[list[float]]]:
        return [process.samples_ms(name) for process in self._counted()]

    def _width(self, name: str) -> float:
        return relative_width(self._samples(name), self._device.percentile)

    def _all_converged(self) -> bool:
        return all(self._width(name) <= self._config.convergence_tolerance for name in self._models)

    def measurements(self) -> dict[str, LatencyMeasurement]:
        environment = self._environment()
        samples = {name: self._samples(name) for name in self._models}
        return {
            name: LatencyMeasurement(
                summary=summary,
                samples_ms=samples[name],
                diagnostic=self._diagnostic(name),
                environment={**environment, **self._node_times(name)},
                memory=self._memory.get(name),
            )
            for name, summary in summarize(samples, self._device.percentile).items()
        }

    def _node_times(self, name: str) -> dict[str, Any]:
        # Of the last process: accounting is the same in all of them.
        answers = [answer for process in self._counted() for answer in process.answers]
        found = [times for answer in answers if (times := answer.get("node_times", {}).get(name))]
        return {"node_times": found[-1]} if found else {}

    def _diagnostic(self, name: str) -> str:
        """Reason why a model's measurement did not converge; empty if it did."""
        config, counted = self._config, self._counted()
        blocks = [block for process in counted for block in process.blocks[name]]
        waited = sum(block["waited"] for block in blocks) / len(blocks)
        drifted = sum(block["drift"] > config.max_drift for block in blocks) / len(blocks)
        if waited > MAX_WAITED:
            return f"other programs had the cores for {waited:.0%} of the time"
        if (drift := max(map(self._drift, counted))) > config.max_process_drift:
            if config.reference_ms:
                return (
                    "the machine was not as fast as before: the reference model was off by "
                    f"{drift:.0%}"
                )
            return (
                f"the machine's speed changed by {drift:.0%} from process to process, by the "
                "reference model"
            )
        if drifted > 0:
            return (
                f"the reference model drifted by more than {config.max_drift:.0%} in "
                f"{drifted:.0%} of the repetitions, and there was no time to repeat them"
            )
        if any(name in answer["not_warm"] for process in counted for answer in process.answers):
            return "its median had not converged when warming up ended"
        if (width := self._width(name)) > config.convergence_tolerance:
            return (
                f"p{self._device.percentile:g} differs between processes: after {len(counted)} of "
                f"them it is known to {width:.0%}, not to {config.convergence_tolerance:.0%}"
            )
        return ""

    def _environment(self) -> dict[str, Any]:
        answers = [answer for process in self._processes for answer in process.answers]
        counted = self._counted()
        known_ns = [process.reference_ns for process in counted if process.reference_ns is not None]
        return {
            **answers[0]["environment"],
            "threads": self._device.threads,
            "batch_size": self._device.batch_size,
            "benchmark_config": asdict(self._config),
            "num_processes": len(counted),
            "num_drifted_processes": len(self._processes) - len(self._clean()),
            "num_repetitions": sum(answer["num_repetitions"] for answer in answers),
            "num_drifted_repetitions": sum(answer["num_drifted"] for answer in answers),
            "reference_ms": statistics.median(known_ns) / 1e6 if known_ns else None,
            "contended_fraction": sum(answer["num_contended"] for answer in answers)
            / sum(answer["num_blocks"] for answer in answers),
            "started_at": self._started_at.isoformat(timespec="seconds"),
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
