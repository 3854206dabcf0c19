"""How many running jobs one coordinator process can hear: heartbeats of 500 of them, at growing
rates.

A heartbeat is a transaction: it locks the job, keeps its progress and cost, and prolongs the
lease.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import JobRow, ProjectRow
from inn_automl_services.coordinator.keys import hash_secret
from inn_automl_services.coordinator.settings import Settings
from sqlalchemy import insert, select

from benchmarks.claim import job
from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from benchmarks.stack import Asked, Coordinator, coordinator, percentile, postgres, steady_load

NUM_JOBS = 500
MAX_P99_MS = 1000.0
TOKEN = "token-{}"


def run(rates: Sequence[float], seconds: float) -> Report:
    with (
        tempfile.TemporaryDirectory() as scratch,
        postgres() as url,
        coordinator(url, Path(scratch)) as server,
    ):
        ids = fill(url)
        rows, kept = [], 0.0
        for rate in rates:
            latencies, errors = asyncio.run(beat(server, ids, rate, seconds))
            p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
            rows.append((f"{rate:g}", f"{p50:.1f}", f"{p99:.1f}", errors))
            if errors or p99 > MAX_P99_MS:
                break
            kept = rate
    interval_s = Settings.model_fields["heartbeat_s"].default
    report = Report(
        "heartbeats",
        f"Heartbeats of {NUM_JOBS} running jobs at one coordinator process, PostgreSQL.",
        {"seconds_each": seconds, "heartbeat_s": interval_s},
    )
    asked = f"p99 under {MAX_P99_MS / 1000:g} s and no error at the lowest rate"
    report.goals.append(
        Goal("heartbeats a second", asked, f"up to {kept:g} a second", kept >= rates[0])
    )
    report.tables.append(Table("By rate", ("a second", "p50 ms", "p99 ms", "errors"), rows))
    report.notes.append(
        f"{kept:g} a second are {kept * interval_s:,.0f} running jobs that report every "
        f"{interval_s:g} s. "
        "Client, coordinator and database share the machine's cores."
    )
    return report


def fill(url: str) -> list[str]:
    """Running jobs, each with a lease; their ids."""
    database = Database(make_engine(url))
    with database.write() as session:
        project = session.execute(select(ProjectRow)).scalars().one()
        rows = [job(project.id) for _ in range(NUM_JOBS)]
        for row in rows:
            row |= {
                "state": "training",
                "attempt": 1,
                "lease_expires_at": now(),
                "submission_id": row["id"],
            }
            row["lease_token_hash"] = hash_secret(TOKEN.format(row["id"]))
        session.execute(insert(JobRow), rows)
    database.engine.dispose()
    return [row["id"] for row in rows]


async def beat(
    server: Coordinator, ids: list[str], rate: float, seconds: float
) -> tuple[list[float], int]:
    def requests() -> Iterator[Asked]:
        for number, one in enumerate(itertools.cycle(ids)):
            body = {
                "progress": {"stage": "training", "fraction": (number % 1000) / 1000},
                "cost": {"wall_s": number / len(ids)},
            }
            headers = {"Authorization": f"Bearer {TOKEN.format(one)}"}
            yield Asked("heartbeat", "POST", f"/runs/{one}/heartbeat", body, headers)

    async with server.async_client() as client:
        return (await steady_load(client, requests(), rate, seconds))["heartbeat"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks heartbeats", description=__doc__)
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[50, 100, 150, 200, 300, 400], help="a second"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of each rate")
    add_report_options(parser)
    options = parser.parse_args(arguments)
    return conclude(run(options.rates, options.seconds), options)


if __name__ == "__main__":
    sys.exit(main())
