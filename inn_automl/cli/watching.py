"""`watch`: a job's progress as `run` shows its own."""

from __future__ import annotations

from pathlib import Path

import click

from inn_automl.api.jobs import Job, JobEvent, JobProgress
from inn_automl.cli.options import connect, print_json, server_options
from inn_automl.client import Client
from inn_automl.client.client import succeeded
from inn_automl.core.progress import Progress, show_progress


@click.command()
@click.argument("job")
@server_options
def watch(job: str, home: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Follow a job until it ends; the exit code is 0 only if it succeeded.

    With --json, each event is a line of standard output.
    """
    with connect(home, url, key) as client:
        follow(client, job, as_json=as_json)


def follow(client: Client, job_id: str, *, as_json: bool = False) -> Job:
    """Shows the job's progress on standard error until it succeeded.

    Raises:
        JobEndedError: it failed or was cancelled.
    """
    with show_progress() as progress:
        display = _Display(progress)
        for event in client.watch(job_id, on_reconnect=display.reconnecting):
            display.show(event)
            if as_json:
                print_json(event)
        return succeeded(client.job(job_id))


class _Display:
    """Tells a `Progress` what a job's events say."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage: str | None = None
        self._lost = False

    def show(self, event: JobEvent) -> None:
        self._lost = False
        match event.kind:
            case "state":
                self._state(str(event.data.get("state")), int(event.data.get("attempt", 0)))
            case "progress":
                self._progressed(JobProgress.model_validate(event.data))
            case "note":
                self._progress.note(str(event.data.get("message", "")))
            case "error" | "result":
                pass  # reported at the end of the command

    def reconnecting(self, reason: str) -> None:
        if not self._lost:
            self._progress.note(
                f"connection lost ({reason}); the job goes on, and so does this once it is back"
            )
        self._lost = True

    def _state(self, state: str, attempt: int) -> None:
        if state == "queued" or self._stage is None:
            self._enter(state)
        if state == "queued" and attempt:
            self._progress.note("queued again; it continues from what it has")

    def _progressed(self, progress: JobProgress) -> None:
        self._enter(progress.stage)
        self._progress.update(progress.fraction, best=progress.best, detail=progress.detail)

    def _enter(self, stage: str) -> None:
        if stage != self._stage:
            self._stage = stage
            self._progress.stage(stage)
