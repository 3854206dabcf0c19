"""The loop that takes jobs from the queue to Ray and sees to it that none is lost.

Each duty loads what it needs, works outside of any transaction, and applies what it found guarded
by the lease token on the locked job: several dispatchers do the same duties side by side, and each
may be killed anywhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy.exc import DBAPIError

from inn_automl.api.jobs import JobError, JobState
from inn_automl.core.errors import BackendError, InnAutomlError, StorageError
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.dispatch import repository
from inn_automl_services.coordinator.dispatch.logs import keep_log
from inn_automl_services.coordinator.dispatch.ray_jobs import RayJobs
from inn_automl_services.coordinator.dispatch.repository import Leased
from inn_automl_services.coordinator.dispatch.runner import (
    Runner,
    RunnerUnavailableError,
    RunState,
    RunStatus,
    Submission,
)
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.jobs.lifecycle import RunLost, RunStopped
from inn_automl_services.coordinator.keys import hash_secret

logger = logging.getLogger(__name__)

BATCH = 16
"""Jobs that are submitted side by side."""
START_S = 5.0
"""Starting jobs gives way to the other duties after this time."""
WATCH_S = 2.0
"""Between two looks at what Ray runs."""
MISSING_S = 25.0
"""A run that Ray does not list for this long is gone: longer than a submission may be under way."""
KEEP_RAY_JOBS_S, KEEP_RAY_JOBS = 3600.0, 500
"""Ray forgets an ended run after this time, or when this many younger ones have ended: it lists
them all each time.
"""
MAX_RAY_JOBS = 20_000
"""Beyond this many it forgets them even before their log was kept."""
LOG_S, LOGS_S = 5.0, 1.0
"""A running job's log is copied this often, as far as copying takes no more than this of a round."""
MAX_LOGS, LOG_THREADS = 2000, 8
"""Logs to copy in a round at most, and side by side."""
LAST_LINES = 3
"""Of a lost run's log: they tell the reason more often than not."""
LONGEST_PAUSE_S = 30.0


@dataclass
class _Seen:
    """What this dispatcher remembers between rounds; nothing that another one could not find out
    again.
    """

    missing_since_s: dict[str, float] = field(default_factory=dict)
    logged_s: dict[str, float] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    """Ended runs whose whole log is kept."""


class Dispatcher:
    """One of possibly several at a database.

    Args:
        runner: None: nothing is dispatched from here.
        grace_s: nobody is given up for silence this soon after the start, or after the database
            was away: workers could not be heard. None for four heartbeats.
    """

    def __init__(
        self, context: Context, runner: Runner | None, *, grace_s: float | None = None
    ) -> None:
        self._context, self._settings, self._database = context, context.settings, context.database
        self._runner_or_none = runner
        self._grace_s = 4 * self._settings.heartbeat_s if grace_s is None else grace_s
        self._hearing_since_s = time.monotonic()
        self._seen = _Seen()
        self._next_watch_s = self._next_start_s = 0.0
        self._pause_s = 0.0
        self._stopping = threading.Event()

    @classmethod
    def of(cls, context: Context) -> Dispatcher:
        url = context.settings.ray_url
        return cls(context, RayJobs.of(context.settings, url) if url else None)

    @property
    def _runner(self) -> Runner:
        if self._runner_or_none is None:
            raise BackendError("no Ray is configured: set INN_AUTOML_RAY_URL.")
        return self._runner_or_none

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Does its duties in a thread while the block runs."""
        if self._runner_or_none is None:
            yield
            return
        thread = threading.Thread(target=self.run, name="dispatcher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(timeout=30.0)
            self._runner.close()

    def run(self) -> None:
        """Rounds until it is told to stop; no fault ends it."""
        while not self._stopping.is_set():
            self.tick()
            self._stopping.wait(self._settings.dispatch_interval_s)

    def tick(self) -> None:
        """Every duty once, each on its own: what keeps one from its work does not keep the others."""
        for duty in (self.reap, self.watch, self.start):
            try:
                duty()
            except RunnerUnavailableError as error:
                logger.warning("%s", error)
            except DBAPIError as error:
                logger.warning("the database failed while jobs were dispatched: %s", error.orig)
                self._hearing_since_s = time.monotonic()
            except Exception:
                logger.exception("dispatching failed in %s", duty.__name__)

    def start(self) -> None:
        """Claims queued jobs and hands them to the runner. While it is away, nothing is claimed.

        Raises:
            RunnerAwayError: the runner is away; what was claimed is queued again, and no attempt
                is lost.
        """
        if time.monotonic() < self._next_start_s:
            return
        try:
            self._runner.check()
            end_s = time.monotonic() + START_S
            while time.monotonic() < end_s and not self._stopping.is_set() and self._start_some():
                pass
        except RunnerUnavailableError:
            self._pause_s = min(LONGEST_PAUSE_S, max(1.0, 2 * self._pause_s))
            self._next_start_s = time.monotonic() + self._pause_s
            raise
        self._pause_s = 0.0

    def reap(self) -> None:
        """Gives up runs that were not heard of until their lease ended."""
        if time.monotonic() - self._hearing_since_s < self._grace_s:
            return
        with self._database.read() as session:
            silent = repository.expired(session)
        for job in silent:
            if self._mark_lost(
                job, "run_silent", "its worker was not heard of for too long.", only_expired=True
            ):
                self._try(self._runner.stop, job.submission_id)

    def watch(self) -> None:
        """Compares what the runner has with what jobs hold: stops, gives up, keeps logs, forgets."""
        if time.monotonic() < self._next_watch_s:
            return
        self._next_watch_s = time.monotonic() + WATCH_S
        # The jobs first: a run that ends in between has delivered before, and is found to hold
        # nothing any more.
        with self._database.read() as session:
            leased = repository.leased(session)
        runs = self._runner.runs()
        self._forget_found(leased, runs)
        self._cancel([job for job in leased if job.state == JobState.CANCELLING], runs)
        self._mark_ended_lost([job for job in leased if job.state != JobState.CANCELLING], runs)
        self._copy_logs(runs)
        self._clear_away(runs)

    def _start_some(self) -> bool:
        """Starts a batch; False if there is no more to start."""
        with self._database.write() as session:
            submissions = repository.claim_next(
                session,
                max_running=self._settings.max_running_jobs,
                lease_s=self._settings.start_lease_s,
                limit=BATCH,
            )
        with ThreadPoolExecutor(max(1, len(submissions)), thread_name_prefix="submit") as pool:
            errors = list(pool.map(self._submit, submissions))
        if away := next(
            (error for error in errors if isinstance(error, RunnerUnavailableError)), None
        ):
            raise away
        return len(submissions) == BATCH

    def _submit(self, submission: Submission) -> Exception | None:
        try:
            self._runner.submit(submission)
            return None
        except RunnerUnavailableError as error:
            self._requeue(submission)
            return error
        except Exception as error:  # refused: another attempt later, as long as there are some
            logger.warning("job %s could not be started: %s", submission.job_id, error)
            self._mark_lost(_held_by(submission), "not_started", f"Ray did not start it: {error}")
            return error

    def _requeue(self, submission: Submission | Leased) -> None:
        """Queues a job whose run never began, as if it had not been claimed."""
        seen = submission if isinstance(submission, Leased) else _held_by(submission)
        with self._database.write() as session:
            if job := repository.lock(session, seen):
                job.attempt -= 1
                transitions.apply(session, job, RunLost())

    def _cancel(self, cancelling: list[Leased], runs: dict[str, RunStatus]) -> None:
        for job in cancelling:
            run = runs.get(job.submission_id)
            if run and run.state is not RunState.ENDED:
                self._try(self._runner.stop, job.submission_id)
            elif run or self._missing(job):
                with self._database.write() as session:
                    if locked := repository.lock(session, job):
                        transitions.apply(session, locked, RunStopped())

    def _mark_ended_lost(self, leased: list[Leased], runs: dict[str, RunStatus]) -> None:
        for job in leased:
            run = runs.get(job.submission_id)
            if run is None:
                if self._missing(job):
                    self._mark_lost(job, "run_lost", "Ray does not know its run any more.")
            elif run.state is RunState.PENDING:
                self._wait_for_room(job)
            elif run.state is RunState.ENDED and not run.began:
                self._requeue(job)
            elif run.state is RunState.ENDED:
                self._mark_lost(
                    job, "run_lost", f"its run ended without a result: {self._reason(run)}"
                )

    def _forget_found(self, leased: list[Leased], runs: dict[str, RunStatus]) -> None:
        wanted = {job.submission_id for job in leased} - runs.keys()
        self._seen.missing_since_s = {
            k: v for k, v in self._seen.missing_since_s.items() if k in wanted
        }

    def _missing(self, job: Leased) -> bool:
        since_s = self._seen.missing_since_s.setdefault(job.submission_id, time.monotonic())
        return time.monotonic() - since_s >= MISSING_S

    def _wait_for_room(self, seen: Leased) -> None:
        """A run that waits for resources cannot report: its first lease lasts as long as it waits."""
        soon = now() + timedelta(seconds=self._settings.start_lease_s / 2)
        with self._database.write() as session:
            job = repository.lock(session, seen)
            if job is not None and job.lease_expires_at is not None and job.lease_expires_at < soon:
                job.lease_expires_at = now() + timedelta(seconds=self._settings.start_lease_s)

    def _mark_lost(
        self, seen: Leased, code: str, detail: str, *, only_expired: bool = False
    ) -> bool:
        """Gives the run up, if it still holds its job; says whether it did."""
        with self._database.write() as session:
            job = repository.lock(session, seen)
            if job is None or (
                only_expired and job.lease_expires_at is not None and job.lease_expires_at >= now()
            ):
                return False
            logger.info("job %s lost its run %s: %s", job.id, job.submission_id, detail)
            remedy = "look at the logs, then retry it."
            ends = job.attempt >= job.max_attempts
            error = JobError(
                code=code,
                detail=f"{detail} After {job.attempt} attempts: {remedy}" if ends else detail,
            )
            transitions.apply(session, job, RunLost(), error=error)
            return True

    def _reason(self, run: RunStatus) -> str:
        try:
            printed = self._runner.log(run.submission_id).strip()
        except BackendError:
            printed = ""
        return (
            " | ".join(printed.splitlines()[-LAST_LINES:])[-1000:]
            or run.message
            or "nothing was printed."
        )

    def _copy_logs(self, runs: dict[str, RunStatus]) -> None:
        """Those that were copied longest ago first; of an ended run once more, and no more then."""
        logged_s, end_s = self._seen.logged_s, time.monotonic() + LOGS_S
        due = sorted(
            filter(self._log_is_due, runs.values()),
            key=lambda run: logged_s.get(run.submission_id, 0.0),
        )
        del due[MAX_LOGS:]
        with self._database.read() as session:
            jobs = repository.holders(session, {run.job_id for run in due})
        with ThreadPoolExecutor(LOG_THREADS, thread_name_prefix="logs") as pool:
            list(pool.map(lambda run: self._copy_log(run, run.job_id in jobs, end_s), due))
        self._seen.closed.intersection_update(runs)
        self._seen.logged_s = {name: at_s for name, at_s in logged_s.items() if name in runs}

    def _log_is_due(self, run: RunStatus) -> bool:
        if run.state is RunState.PENDING or run.submission_id in self._seen.closed:
            return False
        since_s = time.monotonic() - self._seen.logged_s.get(run.submission_id, 0.0)
        return run.state is RunState.ENDED or since_s >= LOG_S

    def _copy_log(self, run: RunStatus, has_job: bool, end_s: float) -> None:
        if time.monotonic() > end_s:
            return
        try:
            if has_job:
                keep_log(
                    self._context.store,
                    run.job_id,
                    run.submission_id,
                    self._runner.log(run.submission_id),
                )
        except StorageError as error:
            logger.warning("the log of job %s could not be kept: %s", run.job_id, error)
            return
        self._seen.logged_s[run.submission_id] = time.monotonic()
        if run.state is RunState.ENDED:
            self._seen.closed.add(run.submission_id)

    def _clear_away(self, runs: dict[str, RunStatus]) -> None:
        """Stops runs that hold no job (lost, ended, deleted), and has old ones forgotten."""
        going = [run for run in runs.values() if run.state is not RunState.ENDED]
        with self._database.read() as session:
            holders = repository.holders(session, {run.job_id for run in going})
        for run in going:
            if holders.get(run.job_id) != run.submission_id:
                self._try(self._runner.stop, run.submission_id)
        ended = [run for run in runs.values() if run.ended_at]
        ended.sort(key=lambda run: run.ended_at or now(), reverse=True)
        for position, run in enumerate(ended):
            logged = run.submission_id in self._seen.closed
            if position >= MAX_RAY_JOBS or (logged and (position >= KEEP_RAY_JOBS or _is_old(run))):
                self._try(self._runner.forget, run.submission_id)

    def _try(self, action: Callable[[str], object], submission_id: str) -> None:
        """What is tried again in the next round if it fails now."""
        try:
            action(submission_id)
        except InnAutomlError as error:
            logger.warning("%s", error)


def _held_by(submission: Submission) -> Leased:
    return Leased(
        submission.job_id,
        "",
        submission.attempt,
        submission.submission_id,
        hash_secret(submission.token),
    )


def _is_old(run: RunStatus) -> bool:
    return run.ended_at is not None and now() - run.ended_at > timedelta(seconds=KEEP_RAY_JOBS_S)
