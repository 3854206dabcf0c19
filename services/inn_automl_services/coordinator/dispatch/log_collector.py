"""Copies what runs print into the logs of their jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from inn_automl.core.errors import StorageError
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.dispatch import repository
from inn_automl_services.coordinator.dispatch.job_log import keep_log
from inn_automl_services.coordinator.dispatch.runner import (
    Runner,
    RunState,
    RunStatus,
    tolerate_failure,
)
from inn_automl_services.coordinator.json_logs import fields

logger = logging.getLogger(__name__)


class LogCollector:
    """Keeps the logs of runs, and has the runner forget ended runs whose log is stored.

    Args:
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self, context: Context, runner: Runner, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database, self._store = context.database, context.store
        self._settings, self._runner, self._clock = context.settings, runner, clock
        self._pool = ThreadPoolExecutor(self._settings.log_threads, thread_name_prefix="logs")
        self._copied_at_s: dict[str, float] = {}
        self._complete: set[str] = set()
        """Ended runs whose whole log is stored."""

    def collect(self, runs: Mapping[str, RunStatus]) -> None:
        """Copies logs that are due, as many as the time limit allows.

        Runs whose log was copied longest ago come first. The log of an ended run is copied once
        more, and then is complete.

        Args:
            runs: all runs that the runner has, by submission id.
        """
        end_s = self._clock() + self._settings.log_time_limit_s
        due = sorted(filter(self._is_due, runs.values()), key=self._age_key)
        del due[self._settings.max_logs_per_tick :]
        with self._database.read() as session:
            jobs = repository.holders(session, {run.job_id for run in due})
        list(self._pool.map(lambda run: self._copy(run, run.job_id in jobs, end_s), due))
        self._complete.intersection_update(runs)
        self._copied_at_s = {n: at_s for n, at_s in self._copied_at_s.items() if n in runs}

    def forget(self, runs: Mapping[str, RunStatus]) -> None:
        """Has the runner forget ended runs that are old or many: it lists them all each time.

        A run whose log is not stored yet is forgotten only beyond `max_runs_without_log`.
        """
        settings = self._settings
        oldest = now() - timedelta(seconds=settings.ended_run_retention_s)
        ended = [(run.ended_at, run) for run in runs.values() if run.ended_at]
        ended.sort(key=lambda pair: pair[0], reverse=True)
        for position, (ended_at, run) in enumerate(ended):
            is_surplus = position >= settings.max_ended_runs or ended_at < oldest
            is_stored = run.submission_id in self._complete
            if (is_surplus and is_stored) or position >= settings.max_runs_without_log:
                with tolerate_failure(logger, "run not forgotten", fields(**run.log_fields)):
                    self._runner.forget(run.submission_id)

    def close(self) -> None:
        """Lets the threads end after the copies under way."""
        self._pool.shutdown(wait=False)

    def _age_key(self, run: RunStatus) -> float:
        return self._copied_at_s.get(run.submission_id, 0.0)

    def _is_due(self, run: RunStatus) -> bool:
        if run.state is RunState.PENDING or run.submission_id in self._complete:
            return False
        since_s = self._clock() - self._age_key(run)
        return run.state is RunState.ENDED or since_s >= self._settings.log_interval_s

    def _copy(self, run: RunStatus, has_job: bool, end_s: float) -> None:
        if self._clock() > end_s:
            return
        name = run.submission_id
        try:
            if has_job:
                keep_log(self._store, run.job_id, name, self._runner.log(name))
        except StorageError as error:
            logger.warning("log not stored", extra=fields(**run.log_fields, error=str(error)))
            return
        self._copied_at_s[name] = self._clock()
        if run.state is RunState.ENDED:
            self._complete.add(name)
