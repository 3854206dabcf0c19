"""A run's requests to the coordinator: heartbeats in a thread, requests that outlast restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import httpx

from inn_automl.api.jobs import JobCost, JobProgress
from inn_automl.api.runs import RunAnswer, RunAssignment, RunFailure, RunHeartbeat, RunResult
from inn_automl.core.errors import StaleLeaseError
from inn_automl.http.connection import Connection
from inn_automl.http.heartbeats import Heartbeats
from inn_automl.http.retries import RetryPolicy
from inn_automl_workers.processes import stop_process

RETRY = RetryPolicy(
    deadline_s=6 * 3600.0,  # training goes on while the coordinator is away
    first_delay_s=0.5,
    max_delay_s=5.0,
    is_unattended=True,
)
REQUEST_TIMEOUT_S = 30.0
MAX_CHARS = 4000
MAX_NOTES = 50
"""Notes in one heartbeat."""


class Reporter:
    """The coordinator, as a run sees it. The process ends when the run no longer holds its job.

    Args:
        url: of the coordinator.
        token: the lease token of this attempt.
        leave: ends the process; never returns.
        retry: how requests are retried.
        transport: sends the requests in place of the network, e.g. in a test.
    """

    def __init__(
        self,
        url: str,
        job_id: str,
        token: str,
        *,
        leave: Callable[[str], NoReturn] = stop_process,
        retry: RetryPolicy = RETRY,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._run, self._leave = f"/runs/{job_id}", leave
        self.connection = Connection(
            url,
            token,
            retry=retry,
            read_timeout_s=REQUEST_TIMEOUT_S,
            user_agent="inn-automl-worker",
            uses_proxies=False,
            transport=transport,
        )
        """Speaks to the coordinator in the name of this run."""
        self._lock = threading.Lock()
        self._progress: JobProgress | None = None
        self._notes: list[str] = []
        self._started_s, self._cpus, self._gpus = time.monotonic(), 1, 0
        self._heartbeats: Heartbeats | None = None

    def assignment(self) -> RunAssignment:
        """The work of this run."""
        return RunAssignment.model_validate_json(self._request("GET", "").content)

    def hold(self, *, cpus: int, gpus: int) -> None:
        """Sets the processors that the run holds from now on, for its cost."""
        self._cpus, self._gpus = cpus, gpus

    def cost(self) -> JobCost:
        """Seconds since the run began, and those times the processors that it holds."""
        wall_s = time.monotonic() - self._started_s
        return JobCost(wall_s=wall_s, cpu_s=wall_s * self._cpus, gpu_s=wall_s * self._gpus)

    def report(self, progress: JobProgress, *, now: bool = False) -> None:
        """Sets how far the run is; sent with the next heartbeat, or at once."""
        with self._lock:
            self._progress = progress
        if now and self._heartbeats is not None:
            self._heartbeats.wake()

    def note(self, message: str) -> None:
        """Adds something that the user should know; sent with the next heartbeat."""
        with self._lock:
            self._notes.append(printable(message))

    def beat(self) -> None:
        """Sends one heartbeat. The process ends if the run is to stop."""
        with self._lock:
            progress, notes = self._progress, self._notes[:MAX_NOTES]
        heartbeat = RunHeartbeat(progress=progress, notes=notes, cost=self.cost())
        response = self._request("POST", "/heartbeat", heartbeat.model_dump(mode="json"))
        answer = RunAnswer.model_validate_json(response.content, extra="ignore")
        with self._lock:
            del self._notes[: len(notes)]
        if answer.cancel:
            self._leave("the job is cancelled")

    def keep_beating(self, every_s: float) -> None:
        """Sends heartbeats from a thread until `succeed`, `fail` or `close`."""
        self._heartbeats = Heartbeats(self.beat, every_s)
        self._heartbeats.start()

    def succeed(self, result: RunResult) -> None:
        """Delivers the result; nothing is reported afterwards.

        Raises:
            InnAutomlError: the coordinator cannot take it; the class is that of its code.
        """
        self._request("POST", "/result", result.model_dump(mode="json"))
        self.close()

    def fail(self, failure: RunFailure) -> None:
        """Tells that there will be no result; nothing is reported afterwards."""
        self._request("POST", "/failure", failure.model_dump(mode="json"))
        self.close()

    def close(self) -> None:
        """Ends the heartbeats."""
        if self._heartbeats is not None:
            self._heartbeats.close(REQUEST_TIMEOUT_S)

    def _request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Requests `/runs/JOB` + `path` until there is an answer.

        Raises:
            InnAutomlError: the coordinator refused; the class is that of its code.
            ConnectionLostError: the coordinator has been away for hours.
        """
        try:
            return self.connection.request(
                method, f"{self._run}{path}", json=body, is_repeatable=True
            )
        except StaleLeaseError as error:
            self._leave(str(error))


def printable(text: str) -> str:
    """Text that JSON and every database can keep."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:MAX_CHARS]
