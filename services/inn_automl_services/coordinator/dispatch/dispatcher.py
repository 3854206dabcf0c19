"""The loop that takes jobs from the queue to Ray and sees to it that none is lost.

Each periodic task loads what it needs, works outside of any transaction, and applies what it found
guarded by the lease token on the locked job. So several dispatchers may do the same tasks side by
side, and each may be killed anywhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError

from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.dispatch.claimer import Claimer
from inn_automl_services.coordinator.dispatch.log_collector import LogCollector
from inn_automl_services.coordinator.dispatch.ray_jobs import RayJobs
from inn_automl_services.coordinator.dispatch.reconciler import Reconciler
from inn_automl_services.coordinator.dispatch.runner import Runner, RunnerUnavailableError
from inn_automl_services.coordinator.json_logs import fields

logger = logging.getLogger(__name__)

dispatch_errors = Counter(
    "inn_automl_dispatch_errors", "Periodic tasks of dispatch that failed.", ("task", "kind")
)

STOP_TIMEOUT_S = 30.0


class Dispatcher:
    """Runs the periodic tasks of dispatch; one of possibly several at a database.

    Args:
        grace_s: no run is given up for silence this soon after the start; None for four
            heartbeats.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        context: Context,
        runner: Runner,
        *,
        grace_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._runner, self._clock = context.settings, runner, clock
        self._stopping = threading.Event()
        self._claimer = Claimer(context, runner, is_stopping=self._stopping.is_set, clock=clock)
        if grace_s is None:
            grace_s = 4 * self._settings.heartbeat_s
        self._reconciler = Reconciler(context, runner, grace_s=grace_s, clock=clock)
        self._log_collector = LogCollector(context, runner, clock=clock)
        self._next_reconcile_s = 0.0

    def run(self) -> None:
        """Ticks until `stop` is called; no error ends it."""
        logger.info("dispatcher started", extra=fields(interval_s=self._interval_s))
        while not self._stopping.is_set():
            self.tick()
            self._stopping.wait(self._interval_s)
        logger.info("dispatcher stopped")

    def stop(self) -> None:
        """Has `run` return after the task under way."""
        self._stopping.set()

    def close(self) -> None:
        """Ends the threads and frees what the runner holds."""
        self._claimer.close()
        self._log_collector.close()
        self._runner.close()

    def tick(self) -> None:
        """Runs every periodic task once; an error in one does not keep the others from running."""
        for task in (self.reap, self.reconcile, self.claim):
            name = task.__name__
            try:
                task()
            except RunnerUnavailableError as error:
                dispatch_errors.labels(name, "runner").inc()
                logger.warning("runner unavailable", extra=fields(task=name, error=str(error)))
            except DBAPIError as error:
                dispatch_errors.labels(name, "database").inc()
                logger.warning("database failed", extra=fields(task=name, error=str(error.orig)))
                self._reconciler.restart_grace()
            except Exception:
                dispatch_errors.labels(name, "unforeseen").inc()
                logger.exception("periodic task failed", extra=fields(task=name))

    def reap(self) -> None:
        """Gives up runs that were not heard of until their lease expired."""
        self._reconciler.reap()

    def reconcile(self) -> None:
        """Brings jobs and runs together, then keeps the logs of the runs."""
        if self._clock() < self._next_reconcile_s:
            return
        self._next_reconcile_s = self._clock() + self._settings.reconcile_interval_s
        leased = self._reconciler.leased()
        runs = self._runner.runs()
        self._reconciler.reconcile(leased, runs)
        self._log_collector.collect(runs)
        self._log_collector.forget(runs)

    def claim(self) -> None:
        """Starts queued jobs."""
        self._claimer.claim()

    @property
    def _interval_s(self) -> float:
        return self._settings.dispatch_interval_s


@contextmanager
def dispatching(context: Context) -> Iterator[None]:
    """Dispatches in a thread while the block runs; does nothing where the settings name no Ray."""
    url = context.settings.ray_url
    if not url:
        yield
        return
    dispatcher = Dispatcher(context, RayJobs.from_settings(context.settings, url))
    thread = threading.Thread(target=dispatcher.run, name="dispatcher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        dispatcher.stop()
        thread.join(timeout=STOP_TIMEOUT_S)
        dispatcher.close()
