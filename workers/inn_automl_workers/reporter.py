"""How a run speaks with the coordinator: heartbeats in a thread, and requests that outlast its
restarts.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import httpx

from inn_automl.api.jobs import JobCost, JobProgress
from inn_automl.api.runs import RunAnswer, RunAssignment, RunFailure, RunHeartbeat, RunResult
from inn_automl.core.errors import BackendError, InnAutomlError, StaleLeaseError
from inn_automl.core.progress import LineProgress, Progress, TimeLeft
from inn_automl.core.stage import Stage
from inn_automl.http.problems import error_of

STOPPED_EXIT_CODE = 3
"""Of a run that was cancelled, or whose job another attempt holds."""
PATIENCE_S = 6 * 3600.0
"""For how long a coordinator that is away is tried again: training goes on meanwhile."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
REQUEST_S = 30.0
MAX_TEXT = 4000
MAX_NOTES = 50
"""In one heartbeat."""


class Reporter:
    """The coordinator, as a run sees it. The process ends where the run no longer holds its job.

    Args:
        url: of the coordinator.
        token: the lease token of this attempt.
        leave: ends the process; never returns.
    """

    def __init__(
        self,
        url: str,
        job_id: str,
        token: str,
        *,
        leave: Callable[[str], NoReturn] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url, self._run = url, f"/v1/runs/{job_id}"
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=REQUEST_S,
            transport=transport,
            trust_env=False,
        )
        """Speaks to the coordinator in the name of this run."""
        self._leave = leave or stop_process
        self._lock = threading.Lock()
        self._wake, self._done = threading.Event(), threading.Event()
        self._progress: JobProgress | None = None
        self._notes: list[str] = []
        self._started_s, self._cpus, self._gpus = time.monotonic(), 1, 0
        self._thread: threading.Thread | None = None

    def order(self) -> RunAssignment:
        """What is to be done."""
        return RunAssignment.model_validate(self.request("GET", ""))

    def hold(self, *, cpus: int, gpus: int) -> None:
        """What the run holds from now on, for its cost."""
        self._cpus, self._gpus = cpus, gpus

    def cost(self) -> JobCost:
        wall_s = time.monotonic() - self._started_s
        return JobCost(wall_s=wall_s, cpu_s=wall_s * self._cpus, gpu_s=wall_s * self._gpus)

    def report(self, progress: JobProgress, *, now: bool = False) -> None:
        """How far the run is; sent with the next heartbeat, or at once."""
        with self._lock:
            self._progress = progress
        if now:
            self._wake.set()

    def note(self, message: str) -> None:
        """Something that the user should know; sent with the next heartbeat."""
        with self._lock:
            self._notes.append(printable(message))

    def beat(self) -> None:
        """One heartbeat. The process ends if the run is to stop."""
        with self._lock:
            progress, notes = self._progress, self._notes[:MAX_NOTES]
        heartbeat = RunHeartbeat(progress=progress, notes=notes, cost=self.cost())
        answer = RunAnswer.model_validate(
            self.request("POST", "/heartbeat", heartbeat.model_dump(mode="json")), extra="ignore"
        )
        with self._lock:
            del self._notes[: len(notes)]
        if answer.cancel:
            self._leave("the job is cancelled")

    def keep_beating(self, every_s: float) -> None:
        """Heartbeats from a thread until `succeed`, `fail` or `close`."""
        self._thread = threading.Thread(
            target=self._beat_on, args=(every_s,), name="heartbeats", daemon=True
        )
        self._thread.start()

    def succeed(self, result: RunResult) -> None:
        """Delivers the result; nothing is reported afterwards.

        Raises:
            InnAutomlError: the coordinator cannot take it.
        """
        self.request("POST", "/result", result.model_dump(mode="json"))
        self.close()

    def fail(self, failure: RunFailure) -> None:
        """Tells that there will be no result; nothing is reported afterwards."""
        self.request("POST", "/failure", failure.model_dump(mode="json"))
        self.close()

    def close(self) -> None:
        """Ends the heartbeats."""
        self._done.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=REQUEST_S)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Asks for `/runs/JOB` + `path` until there is an answer, through restarts of the
        coordinator.

        Raises:
            InnAutomlError: the coordinator refused; the class is that of its code.
            BackendError: the coordinator has been away for hours.
        """
        end_s, pause_s = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        while True:
            try:
                answer = self.http.request(method, f"{self._run}{path}", json=body)
                if answer.status_code < 500 and answer.status_code not in (408, 425, 429):
                    return self._read(answer)
                reason = f"it answered {answer.status_code}"
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            if time.monotonic() > end_s:
                raise BackendError(
                    f"the coordinator at {self._url} has been away for {PATIENCE_S / 3600:.0f} h "
                    f"({reason}): start it."
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _read(self, answer: httpx.Response) -> Any:
        if answer.is_success:
            return answer.json() if answer.content else None
        error = error_of(answer)
        if isinstance(error, StaleLeaseError):
            self._leave(str(error))
        raise error

    def _beat_on(self, every_s: float) -> None:
        while not self._done.is_set():
            try:
                self.beat()
            except InnAutomlError as error:
                say(f"heartbeat: {error}")
            self._wake.wait(every_s)
            self._wake.clear()


class RunProgress:
    """A job's progress, to the coordinator and as lines of the log.

    Args:
        on_stage: called when a stage begins, after the one before it left its results.
    """

    def __init__(self, reporter: Reporter, on_stage: Callable[[], None] | None = None) -> None:
        self._reporter, self._on_stage = reporter, on_stage
        self._lines: Progress = LineProgress(sys.stdout)
        self._stage, self._best, self._detail = Stage.STARTING, "", ""
        self._left = TimeLeft()

    def stage(self, name: str) -> None:
        if self._on_stage is not None:
            self._on_stage()
        self._stage, self._detail, self._left = Stage(name), "", TimeLeft()
        self._lines.stage(name)
        self._reporter.report(JobProgress(stage=self._stage, best=self._best or None), now=True)

    def update(
        self, fraction: float, *, best: str | None = None, detail: str | None = None
    ) -> None:
        fraction = min(max(fraction, 0.0), 1.0)
        self._lines.update(fraction, best=best, detail=detail)
        self._left.update(fraction)
        self._best = self._best if best is None else best
        self._detail = self._detail if detail is None else detail
        self._reporter.report(
            JobProgress(
                stage=self._stage,
                fraction=fraction,
                seconds_left=self._left.seconds(),
                best=printable(self._best) or None,
                detail=printable(self._detail) or None,
            )
        )

    def note(self, message: str) -> None:
        self._lines.note(message)
        self._reporter.note(message)


def printable(text: str) -> str:
    """Text that JSON and every database can keep."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:MAX_TEXT]


def stop_process(reason: str) -> NoReturn:
    """Ends this process and its children at once. What they wrote is whole: another attempt
    continues it.
    """
    say(f"stopped: {reason}")
    for pid in _descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(STOPPED_EXIT_CODE)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, listing.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def say(message: object) -> None:
    """A line in the job's log, unless the disk that it lies on is full."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)
