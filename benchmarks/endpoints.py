"""How quickly the coordinator answers: list, show and front endpoints at a steady rate, from
another process.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import JobDeviceRow, JobRow, ProjectRow
from sqlalchemy import insert, select

from benchmarks.claim import job
from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from benchmarks.stack import Asked, Coordinator, coordinator, percentile, postgres, steady_load
from inn_automl.core.result import JobResult
from inn_automl.core.storage import read_json

MAX_P99_MS = 100.0


def run(result: Path, num_jobs: int, rate: float, seconds: float) -> Report:
    with tempfile.TemporaryDirectory() as scratch, postgres() as url:
        folder = Path(scratch)
        with coordinator(url, folder) as server:
            jobs, device = fill(
                url, JobResult.model_validate(read_json(result / "result.json")), num_jobs
            )
            found = asyncio.run(load(server, jobs, device, rate, seconds))
    report = Report(
        "endpoints",
        f"Latency of list, show and front endpoints over {num_jobs:,} jobs in PostgreSQL at a "
        f"steady rate.",
        {"num_jobs": num_jobs, "rate_per_s": rate, "seconds": seconds, "result": result.name},
    )
    everything = [one for latencies, _ in found.values() for one in latencies]
    errors = sum(errors for _, errors in found.values())
    p99 = percentile(everything, 0.99)
    report.goals += [
        Goal("p99 of all requests", f"under {MAX_P99_MS:g} ms", f"{p99:.1f} ms", p99 < MAX_P99_MS),
        Goal("errors", "none", f"{errors} of {len(everything)}", errors == 0),
    ]
    rows = [
        (
            name,
            len(latencies),
            *(f"{percentile(latencies, share):.1f}" for share in (0.5, 0.95, 0.99, 1.0)),
        )
        for name, (latencies, _) in found.items()
    ]
    report.tables.append(
        Table(
            "Milliseconds by endpoint", ("endpoint", "requests", "p50", "p95", "p99", "max"), rows
        )
    )
    report.notes.append("Client, coordinator and database share the machine's cores.")
    report.raw.update(
        {name: [round(one, 3) for one in latencies] for name, (latencies, _) in found.items()}
    )
    return report


def fill(url: str, result: JobResult, num_jobs: int) -> tuple[list[str], str]:
    """Succeeded jobs that all have the given result; their ids, and the name of a device."""
    database = Database(make_engine(url))
    spec = result.job["spec"]
    ids = [new_id("job") for _ in range(num_jobs)]
    with database.write() as session:
        project = session.execute(select(ProjectRow)).scalars().first()
        if project is None:
            raise SystemExit("the coordinator made no project")
        ended = {"spec": spec, "state": "succeeded", "attempt": 1, "finished_at": now()}
        session.execute(insert(JobRow), [{**job(project.id), **ended, "id": one} for one in ids])
        session.execute(
            insert(JobDeviceRow),
            [
                {
                    "job_id": one,
                    "position": i,
                    "name": device.name,
                    "result": device.model_dump(mode="json"),
                }
                for one in ids
                for i, device in enumerate(result.devices)
            ],
        )
    database.engine.dispose()
    return ids, result.devices[0].name


async def load(
    server: Coordinator, jobs: list[str], device: str, rate: float, seconds: float
) -> dict[str, tuple[list[float], int]]:
    """Milliseconds of every request, and the number of errors, by endpoint."""
    kinds = [
        ("list", "/jobs"),
        ("list, next page", "/jobs?cursor={job}"),
        ("show", "/jobs/{job}"),
        ("fronts", "/jobs/{job}/fronts"),
        ("front of a device", f"/jobs/{{job}}/fronts/{device}"),
    ]
    chosen = itertools.cycle(jobs[:: max(1, len(jobs) // 97)])
    requests = (
        Asked(name, "GET", path.format(job=next(chosen))) for name, path in itertools.cycle(kinds)
    )
    async with server.async_client() as client:
        for _ in range(20):
            await client.get("/jobs")
        return await steady_load(client, requests, rate, seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks endpoints", description=__doc__)
    parser.add_argument(
        "--result",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of a finished job to serve",
    )
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    add_report_options(parser)
    options = parser.parse_args(arguments)
    return conclude(run(options.result, options.jobs, options.rate, options.seconds), options)


if __name__ == "__main__":
    sys.exit(main())
