"""Compares what the runner has with what jobs hold, and brings both together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from inn_automl.api.jobs import JobState
from inn_automl.core.errors import BackendError, RunLostError, RunSilentError
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.dispatch import outcomes, repository
from inn_automl_services.coordinator.dispatch.repository import LeasedJob
from inn_automl_services.coordinator.dispatch.runner import (
    Runner,
    RunState,
    RunStatus,
    tolerate_failure,
)
from inn_automl_services.coordinator.json_logs import fields

logger = logging.getLogger(__name__)

MAX_REASON_CHARACTERS = 1000


class Reconciler:
    """Gives up runs that are silent or gone, stops those that hold no job, and ends cancellations.

    It remembers nothing that another dispatcher could not find out again.

    Args:
        grace_s: no run is given up for silence this soon after the start, or after the database
            was away: workers could not be heard.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        context: Context,
        runner: Runner,
        *,
        grace_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._settings, self._runner = context.database, context.settings, runner
        self._grace_s, self._clock = grace_s, clock
        self._hearing_since_s = clock()
        self._missing_since_s: dict[str, float] = {}

    def restart_grace(self) -> None:
        """Begins the grace period again: workers could not be heard until now."""
        self._hearing_since_s = self._clock()

    def reap(self) -> None:
        """Gives up runs that were not heard of until their lease expired."""
        if self._clock() - self._hearing_since_s < self._grace_s:
            return
        with self._database.read() as session:
            silent = repository.expired(session)
        for job in silent:
            error = RunSilentError("its worker was not heard of for too long.")
            if outcomes.mark_lost(self._database, job, error, only_expired=True):
                self._stop(job)

    def leased(self) -> list[LeasedJob]:
        """The jobs that runs hold. Read them before the runner's list of runs: a run that ends in
        between has delivered before, and is found to hold nothing any more.
        """
        with self._database.read() as session:
            return repository.leased(session)

    def reconcile(self, leased: Sequence[LeasedJob], runs: Mapping[str, RunStatus]) -> None:
        """Applies to jobs what became of their runs, and stops runs that hold no job.

        Args:
            leased: what `leased` returned.
            runs: all runs that the runner has, by submission id.
        """
        absent = {job.submission_id for job in leased} - runs.keys()
        self._missing_since_s = {
            name: at_s for name, at_s in self._missing_since_s.items() if name in absent
        }
        for job in leased:
            run = runs.get(job.submission_id)
            if job.state == JobState.CANCELLING:
                self._cancel(job, run)
            else:
                self._compare(job, run)
        self._stop_strays(runs)

    def _cancel(self, job: LeasedJob, run: RunStatus | None) -> None:
        if run and run.state is not RunState.ENDED:
            self._stop(job)
        elif run or self._is_missing(job):
            outcomes.finish_cancelled(self._database, job)

    def _compare(self, job: LeasedJob, run: RunStatus | None) -> None:
        if run is None:
            if self._is_missing(job):
                error = RunLostError("Ray does not know its run any more.")
                outcomes.mark_lost(self._database, job, error)
        elif run.state is RunState.PENDING:
            outcomes.extend_start_lease(self._database, job, self._settings.start_lease_s)
        elif run.state is RunState.ENDED and not run.began:
            outcomes.requeue(self._database, job)
        elif run.state is RunState.ENDED:
            error = RunLostError(f"its run ended without a result: {self._reason(run)}")
            outcomes.mark_lost(self._database, job, error)

    def _is_missing(self, job: LeasedJob) -> bool:
        """Return whether the job's run was not listed for longer than a submission may take."""
        since_s = self._missing_since_s.setdefault(job.submission_id, self._clock())
        return self._clock() - since_s >= self._settings.missing_run_s

    def _reason(self, run: RunStatus) -> str:
        """The last lines that a lost run printed, which tell the reason more often than not."""
        try:
            printed = self._runner.log(run.submission_id).strip()
        except BackendError:
            printed = ""
        last = printed.splitlines()[-self._settings.lost_run_log_lines :]
        return " | ".join(last)[-MAX_REASON_CHARACTERS:] or run.message or "nothing was printed."

    def _stop_strays(self, runs: Mapping[str, RunStatus]) -> None:
        """Stops runs that hold no job: it was lost, has ended or was deleted."""
        active = [run for run in runs.values() if run.state is not RunState.ENDED]
        with self._database.read() as session:
            holders = repository.holders(session, {run.job_id for run in active})
        for run in active:
            if holders.get(run.job_id) != run.submission_id:
                self._stop(run)

    def _stop(self, run: LeasedJob | RunStatus) -> None:
        with tolerate_failure(logger, "run not stopped", fields(**run.log_fields)):
            self._runner.stop(run.submission_id)
