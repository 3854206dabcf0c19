"""Time, memory and fronts of the demo: the command of `make demo`, with every process that it
starts.

Memory is the proportional set size, which counts a page that several processes share once in all.
Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.report import ROOT, Goal, Report, Table, add_report_options, conclude
from inn_automl import Result
from inn_automl.core.result import DeviceResult, FrontPoint

JOB = ("run", "--dataset", "photo-digits", "--budget", "examples/demo-budget.yaml")
MAX_MEMORY_GIB, MAX_MINUTES, MIN_DISTINCT = 3.0, 5.0, 3
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Watched:
    """A command that ended, and the memory of all its processes while it ran."""

    minutes: float
    samples: list[tuple[float, float]]
    """Seconds from the start, and GiB in all."""
    at_peak: dict[str, float]
    """GiB by process."""

    @property
    def peak_gib(self) -> float:
        return max(gib for _, gib in self.samples)


def watch(command: Sequence[str], scratch: Path, interval_s: float) -> Watched:
    """Runs the command and watches the memory that all its processes take together.

    Raises:
        SystemExit: the command failed; with the end of its output.
    """
    # Daemons that outlive their parent become children of this process instead of leaving the
    # tree.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    samples: list[tuple[float, float]] = []
    at_peak: dict[str, float] = {}
    started_at = time.monotonic()
    # A home of its own: as on a fresh machine, and nothing is left in the user's.
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["INN_AUTOML_HOME"] = str(scratch / "home")
    with open(scratch / "output.txt", "wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                looked_at = time.monotonic()
                memory = memory_by_process()
                total = sum(memory.values())
                if total > max((gib for _, gib in samples), default=0.0):
                    at_peak = memory
                samples.append((time.monotonic() - started_at, total))
                # Adding up the pages of a process costs the kernel time that the demo would miss.
                time.sleep(max(interval_s, 20 * (time.monotonic() - looked_at)))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    watched = Watched((time.monotonic() - started_at) / 60, samples, at_peak)
    if process.returncode:
        tail = (scratch / "output.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise SystemExit(
            f"the demo ended with exit code {process.returncode}, having taken "
            f"{watched.peak_gib:.2f} GiB:\n{tail}"
        )
    return watched


def num_distinct(front: Sequence[FrontPoint]) -> int:
    """The most points of a front no two of whose 95 % intervals on the test split overlap."""
    found, last = 0, -math.inf
    for low, high in sorted((p.test_metric_value_ci for p in front), key=lambda ci: ci[1]):
        if low > last:
            found, last = found + 1, high
    return found


def summarize(watched: Watched, interval_s: float, devices: Sequence[DeviceResult]) -> Report:
    report = Report(
        "demo",
        "Wall-clock time and memory of the demo's job, all its processes together.",
        {"command": " ".join(("inn-automl", *JOB)), "sampled_every_s": interval_s},
        raw={
            "seconds": [round(s, 1) for s, _ in watched.samples],
            "gib": [round(gib, 3) for _, gib in watched.samples],
        },
    )
    report.goals += [
        Goal(
            "memory of the demo",
            f"under {MAX_MEMORY_GIB:g} GiB in all",
            f"{watched.peak_gib:.2f} GiB",
            watched.peak_gib < MAX_MEMORY_GIB,
        ),
        Goal(
            "time of the demo",
            f"under {MAX_MINUTES:g} minutes",
            f"{watched.minutes:.1f} minutes",
            watched.minutes < MAX_MINUTES,
        ),
    ]
    distinct = [num_distinct(device.front) for device in devices]
    report.goals.append(
        Goal(
            "points of a front that differ beyond their test intervals",
            f"at least {MIN_DISTINCT} of each device",
            ", ".join(
                f"{count} of {len(device.front)}"
                for count, device in zip(distinct, devices, strict=True)
            ),
            min(distinct) >= MIN_DISTINCT,
        )
    )
    largest = sorted(watched.at_peak.items(), key=lambda item: -item[1])
    report.tables.append(
        Table("At the peak", ("processes", "GiB"), [(name, f"{gib:.2f}") for name, gib in largest])
    )
    median = statistics.median(gib for _, gib in watched.samples)
    report.notes.append(f"Median over the run {median:.2f} GiB. Installing is not included.")
    return report


def memory_by_process() -> dict[str, float]:
    """Proportional set size in GiB of all processes below this one, by name, with their number."""
    taken: dict[str, list[int]] = {}
    for child in psutil.Process(os.getpid()).children(recursive=True):
        try:
            words = child.cmdline()
            size_bytes = child.memory_full_info().pss
        except psutil.Error:  # gone meanwhile
            continue
        name = Path(words[0].split()[0]).name if words else child.name()
        taken.setdefault(name, []).append(size_bytes)
    return {f"{len(sizes)} x {name}": sum(sizes) / 2**30 for name, sizes in taken.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks demo", description=__doc__)
    parser.add_argument(
        "--interval-s", type=float, default=1.0, help="between two looks at the memory (default: 1)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep the job's folder here (default: a scratch one)",
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        out = (options.out or Path(scratch) / "demo").resolve()
        program = Path(sys.executable).with_name("inn-automl")
        command = [str(program), *JOB, "--out", str(out)]
        watched = watch(command, Path(scratch), options.interval_s)
        devices = Result.load(out).record.devices
    return conclude(summarize(watched, options.interval_s, devices), options)


if __name__ == "__main__":
    sys.exit(main())
