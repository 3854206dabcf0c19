"""A simulated fleet: real dispatchers and a real PostgreSQL, workers that only pretend.

Each job takes a second or two of a worker and trains nothing. One in a hundred attempts fails:
half of them end without a result, half fall silent. Counted: what the runner was asked, what the
database says in the end, and how the projects fared beside each other.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.migrate import upgrade
from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import JobEventRow, JobRow, ProjectRow
from inn_automl_services.coordinator.dispatch.dispatcher import Dispatcher
from inn_automl_services.coordinator.dispatch.runner import Runner, RunState, RunStatus, Submission
from inn_automl_services.coordinator.keys import KeyRing
from inn_automl_services.coordinator.runs.service import succeed
from inn_automl_services.coordinator.settings import Settings
from sqlalchemy import func, insert, select

from benchmarks.claim import job
from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from benchmarks.stack import postgres
from inn_automl.api.runs import RunResult
from inn_automl.core.errors import StaleLeaseError
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.result import JobResult

MIN_RATE = 50.0
SILENT_LEASE_S = 20.0


class Fleet(Runner):
    """Workers that end after a drawn time, report their result as a worker's request would, or do
    not.

    Args:
        seconds: least and largest time that a job takes.
        fault_share: of the attempts that fail.
    """

    def __init__(
        self, database: Database, num_workers: int, seconds: tuple[float, float], fault_share: float
    ) -> None:
        self._database, self._num_workers, self._seconds, self._fault_share = (
            database,
            num_workers,
            seconds,
            fault_share,
        )
        self._lock, self._chance = threading.Lock(), random.Random(0)
        self._runs: dict[str, RunStatus] = {}
        self._due: list[tuple[float, str, Submission]] = []
        self._waiting: list[Submission] = []
        self._busy: set[str] = set()
        self._stopping = False
        self.submitted: list[tuple[float, str]] = []
        """Instant and job of every submission."""
        self.num_faults = Counter[str]()
        self.overlaps = 0
        """Attempts that began while another attempt at the same job was under way and not given
        up.
        """
        self._pool = ThreadPoolExecutor(4)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def check(self) -> None:
        pass

    def submit(self, submission: Submission) -> None:
        with self._lock:
            self.submitted.append((time.monotonic(), submission.job_id))
            self.overlaps += submission.job_id in self._busy
            self._busy.add(submission.job_id)
            self._runs[submission.submission_id] = RunStatus(
                submission.submission_id, submission.job_id, RunState.PENDING
            )
            self._waiting.append(submission)
            self._fill()

    def runs(self) -> dict[str, RunStatus]:
        with self._lock:
            return dict(self._runs)

    def stop(self, submission_id: str) -> None:
        with self._lock:
            run = self._runs.get(submission_id)
            if run and run.state is not RunState.ENDED:
                self._end(run)

    def log(self, submission_id: str) -> str:
        return f"run {submission_id}\n"

    def forget(self, submission_id: str) -> None:
        with self._lock:
            self._runs.pop(submission_id, None)

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        self._pool.shutdown()

    def _fill(self) -> None:
        while self._waiting and len(self._due) < self._num_workers:
            submission = self._waiting.pop(0)
            run = self._runs[submission.submission_id]
            self._runs[submission.submission_id] = RunStatus(
                run.submission_id, run.job_id, RunState.RUNNING
            )
            heapq.heappush(
                self._due,
                (time.monotonic() + self._chance.uniform(*self._seconds), new_id("x"), submission),
            )

    def _work(self) -> None:
        while not self._stopping:
            with self._lock:
                done = []
                while self._due and self._due[0][0] <= time.monotonic():
                    done.append(heapq.heappop(self._due)[2])
                self._fill()
            for submission in done:
                self._pool.submit(self._finish, submission)
            time.sleep(0.01)

    def _finish(self, submission: Submission) -> None:
        with self._lock:
            draw = self._chance.random()
            run = self._runs.get(submission.submission_id)
        if draw < self._fault_share / 2:
            self.num_faults["silent"] += 1  # stays RUNNING for Ray, and is never heard of again
            with self._lock:
                self._busy.discard(submission.job_id)
            return
        if draw < self._fault_share:
            self.num_faults["dead"] += 1
        else:
            try:
                with self._database.write() as session:
                    succeed(
                        session,
                        submission.job_id,
                        submission.token,
                        RunResult(result=JobResult(job={}, devices=[]), artifacts=[]),
                    )
            except StaleLeaseError:
                self.num_faults["refused"] += 1
        with self._lock:
            if run is not None:
                self._end(run)

    def _end(self, run: RunStatus) -> None:
        self._busy.discard(run.job_id)
        self._runs[run.submission_id] = RunStatus(
            run.submission_id, run.job_id, RunState.ENDED, "", True, now()
        )


def run(
    num_jobs: int, num_projects: int, num_workers: int, num_dispatchers: int, limit_s: float
) -> Report:
    with ExitStack() as stack:
        url = stack.enter_context(postgres())
        storage = stack.enter_context(tempfile.TemporaryDirectory())
        upgrade(url)
        database = Database(make_engine(url))
        stack.callback(database.engine.dispose)
        projects = fill(database, num_jobs, num_projects)
        settings = Settings(
            database_url=url,
            storage_url=Path(storage).as_uri(),
            max_running_jobs=num_workers,
            lease_s=SILENT_LEASE_S,
            start_lease_s=SILENT_LEASE_S,
            heartbeat_s=1.0,
            dispatch_interval_s=0.1,
        )
        context = Context(settings, database, ObjectStore(settings.storage_url), KeyRing(1))
        fleet = Fleet(database, num_workers, (1.0, 2.0), 0.01)
        dispatchers = [Dispatcher(context, fleet) for _ in range(num_dispatchers)]
        threads = [threading.Thread(target=one.run, daemon=True) for one in dispatchers]
        started_at = time.monotonic()
        for thread in threads:
            thread.start()
        shares = watch(database, num_jobs, projects, started_at + limit_s)
        seconds = time.monotonic() - started_at
        for one in dispatchers:
            one.stop()
        for thread in threads:
            thread.join()
        for one in dispatchers:
            one.close()
        with database.read() as session:
            states = dict(
                session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all()
            )
            twice = session.execute(
                select(func.count()).select_from(
                    select(JobEventRow.job_id)
                    .where(JobEventRow.kind == "result")
                    .group_by(JobEventRow.job_id)
                    .having(func.count() > 1)
                    .subquery()
                )
            ).scalar_one()
    settings_shown = {
        "num_jobs": num_jobs,
        "num_projects": num_projects,
        "num_workers": num_workers,
        "num_dispatchers": num_dispatchers,
    }
    return describe(fleet, states, twice, shares, seconds, settings_shown)


def fill(database: Database, num_jobs: int, num_projects: int) -> list[str]:
    """Queued jobs, all of the first project before all of the second: fairness must come from the
    dispatcher.
    """
    projects = [new_id("prj") for _ in range(num_projects)]
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
        rows: list[dict[str, Any]] = [
            job(projects[i * num_projects // num_jobs]) for i in range(num_jobs)
        ]
        for start in range(0, num_jobs, 5000):
            session.execute(insert(JobRow), rows[start : start + 5000])
    return projects


def watch(database: Database, num_jobs: int, projects: list[str], deadline_s: float) -> list[float]:
    """Waits until all jobs have ended; returns the share of each project's jobs that had ended
    when half of all had.
    """
    shares: list[float] = []
    while time.monotonic() < deadline_s:
        time.sleep(1.0)
        with database.read() as session:
            ended = dict(
                session.execute(
                    select(JobRow.project_id, func.count())
                    .where(JobRow.finished_at.is_not(None))
                    .group_by(JobRow.project_id)
                ).all()
            )
        total = sum(ended.values())
        if not shares and total >= num_jobs / 2:
            shares = [ended.get(one, 0) / (num_jobs / len(projects)) for one in projects]
        if total == num_jobs:
            break
    return shares or [0.0]


def describe(
    fleet: Fleet,
    states: dict[str, int],
    twice: int,
    shares: list[float],
    seconds: float,
    settings: dict[str, int],
) -> Report:
    report = Report(
        "fleet",
        "Dispatching to a simulated fleet, PostgreSQL and dispatchers on one machine.",
        settings,
    )
    num_jobs = settings["num_jobs"]
    # The last jobs wait for nothing but the lease of a worker that fell silent.
    counted = fleet.submitted[: round(0.95 * num_jobs)]
    rate = len(counted) / (counted[-1][0] - counted[0][0])
    report.goals += [
        Goal(
            "jobs that succeeded",
            f"all {num_jobs:,}",
            f"{states.get('succeeded', 0):,}",
            states == {"succeeded": num_jobs},
        ),
        Goal(
            "jobs with two results, attempts side by side",
            "none",
            f"{twice}, {fleet.overlaps}",
            twice == fleet.overlaps == 0,
        ),
        Goal(
            "a project's jobs done when half of all were",
            "at least 40 % of each",
            f"{min(shares):.0%} at least",
            min(shares) >= 0.4,
        ),
        Goal(
            "dispatched",
            f"at least {MIN_RATE:g} a second",
            f"{rate:.0f} a second",
            rate >= MIN_RATE,
        ),
    ]
    report.tables.append(
        Table(
            "Attempts",
            ("what", "number"),
            [("submitted", len(fleet.submitted)), *fleet.num_faults.most_common()],
        )
    )
    begin = fleet.submitted[0][0]
    by_minute = Counter(int((at - begin) // 60) for at, _ in fleet.submitted)
    rows = [(minute + 1, f"{count / 60:.0f}") for minute, count in sorted(by_minute.items())]
    report.tables.append(Table("Submissions a second, by minute", ("minute", "a second"), rows))
    report.notes.append(
        f"The rate is that of the first 95 % of the submissions; from the first one to the last "
        f"end {seconds:.0f} s."
    )
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fleet", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--dispatchers", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=4 * 3600.0, help="give up after this time")
    add_report_options(parser)
    options = parser.parse_args(arguments)
    report = run(
        options.jobs, options.projects, options.workers, options.dispatchers, options.limit_s
    )
    return conclude(report, options)


if __name__ == "__main__":
    sys.exit(main())
