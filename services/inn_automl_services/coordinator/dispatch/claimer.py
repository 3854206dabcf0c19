"""Claims queued jobs and submits them to the runner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from inn_automl.core.errors import RunNotStartedError
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.dispatch import outcomes, repository
from inn_automl_services.coordinator.dispatch.repository import LeasedJob
from inn_automl_services.coordinator.dispatch.runner import (
    Runner,
    RunnerUnavailableError,
    Submission,
)
from inn_automl_services.coordinator.json_logs import fields

logger = logging.getLogger(__name__)


class Claimer:
    """Starts queued jobs, a batch side by side, with a backoff while the runner is unavailable.

    Args:
        is_stopping: whether to claim no further batch.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        context: Context,
        runner: Runner,
        *,
        is_stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._settings, self._runner = context.database, context.settings, runner
        self._is_stopping, self._clock = is_stopping, clock
        self._pool = ThreadPoolExecutor(
            self._settings.claim_batch_size, thread_name_prefix="submit"
        )
        self._backoff_s = 0.0
        self._resume_at_s = 0.0

    def claim(self) -> None:
        """Starts jobs until none is left to start, or the other tasks are due.

        Raises:
            RunnerUnavailableError: the runner is away. What was claimed is queued again and no
                attempt is lost; until the backoff has passed, nothing is claimed.
        """
        if self._clock() < self._resume_at_s:
            return
        try:
            self._runner.check()
            end_s = self._clock() + self._settings.claim_time_limit_s
            while self._clock() < end_s and not self._is_stopping() and self._claim_batch():
                pass
        except RunnerUnavailableError:
            doubled_s = max(self._settings.dispatch_min_backoff_s, 2 * self._backoff_s)
            self._backoff_s = min(self._settings.dispatch_max_backoff_s, doubled_s)
            self._resume_at_s = self._clock() + self._backoff_s
            raise
        self._backoff_s = 0.0

    def close(self) -> None:
        """Lets the threads end after the submissions under way."""
        self._pool.shutdown(wait=False)

    def _claim_batch(self) -> bool:
        """Starts a batch, and returns whether there may be more to start."""
        limit = self._settings.claim_batch_size
        with self._database.write() as session:
            submissions = repository.claim_next(
                session,
                max_running=self._settings.max_running_jobs,
                lease_s=self._settings.start_lease_s,
                limit=limit,
            )
        unavailable = [error for error in self._pool.map(self._submit, submissions) if error]
        if unavailable:
            raise unavailable[0]
        return len(submissions) == limit

    def _submit(self, submission: Submission) -> RunnerUnavailableError | None:
        """Hands one run over. A runner that is away is returned, so that all of a batch are dealt
        with before it is raised.
        """
        leased = LeasedJob.from_submission(submission)
        try:
            self._runner.submit(submission)
        except RunnerUnavailableError as error:
            outcomes.requeue(self._database, leased)
            return error
        except Exception as error:  # refused: another attempt later, as long as there are some
            logger.warning("run not started", extra=fields(**leased.log_fields, error=str(error)))
            reason = RunNotStartedError(f"Ray did not start it: {error}")
            outcomes.mark_lost(self._database, leased, reason)
        return None
