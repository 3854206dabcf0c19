"""What the service adds to a job: the same spec through `inn-automl run` and through a running
stack, in turns.

The worker's first line is the first progress that it reports to the coordinator.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from inn_automl.client import Client, find_server

PROGRAM = Path(sys.executable).with_name("inn-automl")
MAX_SHARE, MAX_FIRST_LINE_S = 0.05, 15.0
BUDGET = """\
devices:
  - {name: one-thread, threads: 1, max_latency_ms: 5}
  - {name: two-threads, threads: 2, max_latency_ms: 5}
training: {max_minutes: 10, max_epochs: 8, cpus: 2, trials: 2}
search: {max_evaluations: 60}
"""


def run(num_pairs: int) -> Report:
    alone: list[float] = []
    served: list[float] = []
    first_lines: list[float] = []
    with tempfile.TemporaryDirectory(prefix="inn-cost-") as scratch:
        folder = Path(scratch)
        budget = folder / "budget.yaml"
        budget.write_text(BUDGET, encoding="utf-8")
        home = folder / "home"
        job = ["--dataset", "mnist5k", "--budget", str(budget)]
        for number in range(num_pairs):
            alone.append(
                timed(
                    [PROGRAM, "run", *job, "--out", folder / f"run{number}"], folder / "home-of-run"
                )
            )
            call([PROGRAM, "up", "--detach", "--port", "0", "--home", home], home)
            try:
                with Client.at(find_server(home)) as client:
                    seconds, first_line = serve(client, job, home)
            finally:
                call([PROGRAM, "down", "--home", home], home)
            served.append(seconds)
            first_lines.append(first_line)
            print(
                f"pair {number + 1}: {alone[-1]:.1f} s, {seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    added = [s / a - 1 for s, a in zip(served, alone, strict=True)]
    report = Report(
        "service_cost",
        "Time of one job, submit to succeeded, against `inn-automl run` of the same spec.",
        {"pairs": num_pairs, "budget": BUDGET},
    )
    share, first = statistics.median(added), statistics.median(first_lines)
    report.goals += [
        Goal(
            "added to a job",
            f"under {MAX_SHARE:.0%} of its time",
            f"{share:+.1%}",
            share < MAX_SHARE,
        ),
        Goal(
            "submit to the worker's first line",
            f"under {MAX_FIRST_LINE_S:g} s",
            f"{first:.1f} s",
            first < MAX_FIRST_LINE_S,
        ),
    ]
    rows = [
        (f"{a:.1f}", f"{s:.1f}", f"{s / a - 1:+.1%}", f"{f:.1f}")
        for a, s, f in zip(alone, served, first_lines, strict=True)
    ]
    report.tables.append(Table("Seconds", ("run", "service", "added", "first line"), rows))
    report.notes.append("The stack is up before the job is submitted; starting it is not counted.")
    return report


def serve(client: Client, job: list[str], home: Path) -> tuple[float, float]:
    """Seconds until the job had succeeded, and until its worker was first heard of."""
    started_at = time.monotonic()
    job_id = json.loads(call([PROGRAM, "submit", *job, "--json", "--home", home], home))["job_id"]
    first_line = 0.0
    for event in client.watch(job_id):
        if event.kind == "progress" and not first_line:
            first_line = time.monotonic() - started_at
    if client.job(job_id).state != "succeeded":
        raise SystemExit(f"the job did not succeed: {client.job(job_id).error}")
    return time.monotonic() - started_at, first_line


def timed(command: Sequence[object], home: Path) -> float:
    started_at = time.monotonic()
    call(command, home)
    return time.monotonic() - started_at


def call(command: Sequence[object], home: Path) -> str:
    """Standard output of a command that must succeed."""
    environment = {**os.environ, "INN_AUTOML_HOME": str(home)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    ended = subprocess.run(
        [str(word) for word in command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"{command} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return ended.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks service_cost", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    add_report_options(parser)
    options = parser.parse_args(arguments)
    return conclude(run(options.pairs), options)


if __name__ == "__main__":
    sys.exit(main())
