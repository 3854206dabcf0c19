"""What it costs to claim one job from a queue of 100 and from one of 10,000, in PostgreSQL, in
turns.

A claim is the dispatcher's own transaction, commit included. The queues lie in two databases of
one server.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.migrate import upgrade
from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import JobRow, ProjectRow
from inn_automl_services.coordinator.dispatch.repository import claim_next
from sqlalchemy import insert, text, update

from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from benchmarks.stack import percentile, postgres

MAX_P99_MS, MAX_RATIO = 20.0, 2.0
FEW, MANY = 100, 10_000
NUM_PROJECTS = 50


def run(num_rounds: int, num_running: int) -> Report:
    """Each round claims a job from each queue and ends it, so that queue and running jobs keep
    their sizes.
    """
    milliseconds: dict[int, list[float]] = {FEW: [], MANY: []}
    with ExitStack() as stack:
        databases = {}
        for size in (FEW, MANY):
            url = stack.enter_context(postgres())
            upgrade(url)
            databases[size] = Database(make_engine(url))
            stack.callback(databases[size].engine.dispose)
            fill(databases[size], size, num_running)
        for round_number in range(num_rounds + 20):
            for size, database in databases.items():
                started_at = time.perf_counter()
                with database.write() as session:
                    submissions = claim_next(session, max_running=1_000_000, lease_s=3600)
                elapsed_ms = 1000 * (time.perf_counter() - started_at)
                if not submissions:
                    raise SystemExit(f"nothing was claimed from {size} queued jobs")
                if round_number >= 20:  # what a connection's first statements cost is paid once
                    milliseconds[size].append(elapsed_ms)
                replace(database, submissions[0].job_id)
    few, many = (percentile(milliseconds[size], 0.99) for size in (FEW, MANY))
    ratio = statistics.median(milliseconds[MANY]) / statistics.median(milliseconds[FEW])
    report = Report(
        "claim",
        "Time to claim one queued job in PostgreSQL.",
        {"rounds": num_rounds, "projects": NUM_PROJECTS, "running_jobs": num_running},
    )
    report.goals += [
        Goal(
            f"p99 of a claim, {MANY:,} queued",
            f"under {MAX_P99_MS:g} ms",
            f"{many:.2f} ms",
            many < MAX_P99_MS,
        ),
        Goal(
            f"median, {MANY:,} queued against {FEW}",
            f"at most {MAX_RATIO:g} times",
            f"{ratio:.2f} times",
            ratio <= MAX_RATIO,
        ),
        Goal(
            f"p99, {MANY:,} queued against {FEW}",
            f"at most {MAX_RATIO:g} times",
            f"{many / few:.2f} times",
            many / few <= MAX_RATIO,
        ),
    ]
    rows = [
        (f"{size:,}", *(f"{percentile(taken, share):.2f}" for share in (0.5, 0.95, 0.99, 1.0)))
        for size, taken in milliseconds.items()
    ]
    report.tables.append(
        Table("Milliseconds of a claim", ("queued", "p50", "p95", "p99", "max"), rows)
    )
    report.raw.update(
        {str(size): [round(one, 4) for one in taken] for size, taken in milliseconds.items()}
    )
    return report


def fill(database: Database, num_queued: int, num_running: int) -> None:
    """Projects with queued and running jobs, and statistics for the planner."""
    projects = [new_id("project") for _ in range(NUM_PROJECTS)]
    with database.write() as session:
        session.execute(
            insert(ProjectRow),
            [
                {
                    "id": one,
                    "name": one,
                    "max_running_jobs": 100_000,
                    "max_gpu_hours": None,
                    "gpu_s": 0.0,
                    "created_at": now(),
                }
                for one in projects
            ],
        )
        jobs = [job(projects[i % NUM_PROJECTS], priority=i % 3) for i in range(num_queued)]
        held = [
            {
                **job(projects[i % NUM_PROJECTS]),
                "state": "training",
                "lease_token_hash": str(i),
                "attempt": 1,
                "lease_expires_at": now(),
                "submission_id": str(i),
            }
            for i in range(num_running)
        ]
        session.execute(insert(JobRow), jobs + held)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def replace(database: Database, job_id: str) -> None:
    """Ends a claimed job as if it had run, and queues another one of its project."""
    with database.write() as session:
        done = session.get_one(JobRow, job_id)
        session.execute(insert(JobRow), [job(done.project_id, priority=done.priority)])
        session.execute(
            update(JobRow)
            .where(JobRow.id == job_id)
            .values(state="succeeded", lease_token_hash=None, lease_expires_at=None)
        )


def job(project_id: str, *, priority: int = 0) -> dict[str, Any]:
    """A queued job's row."""
    instant, identifier = now(), new_id("job")
    return {
        "id": identifier,
        "project_id": project_id,
        "name": None,
        "kind": "search",
        "parent_id": None,
        "dataset_id": None,
        "spec": {"dataset": "digits", "budget": {"devices": [{"name": "d"}]}},
        "widths": None,
        "idempotency_key": None,
        "request_hash": None,
        "state": "queued",
        "priority": priority,
        "queue_position": identifier,
        "available_at": instant,
        "attempt": 0,
        "max_attempts": 5,
        "lease_token_hash": None,
        "lease_expires_at": None,
        "submission_id": None,
        "progress": None,
        "cost_before": {},
        "cost": {},
        "notes": [],
        "error": None,
        "created_at": instant,
        "started_at": None,
        "finished_at": None,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks claim", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument(
        "--running", type=int, default=200, help="jobs that run meanwhile (default: 200)"
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    return conclude(run(options.rounds, options.running), options)


if __name__ == "__main__":
    sys.exit(main())
