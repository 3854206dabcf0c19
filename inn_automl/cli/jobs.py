"""`jobs`, `cancel`, `retry`, `delete`, `logs`."""

from __future__ import annotations

import sys
import time
from itertools import islice
from pathlib import Path

import click

from inn_automl.api.jobs import ENDED, JobKind, JobState, JobSummary
from inn_automl.cli.options import connect, print_json, print_table, server_options

LOG_STEP_S = 2.0


@click.command()
@click.option(
    "--state",
    type=click.Choice([state.value for state in JobState]),
    help="Only those in this state.",
)
@click.option(
    "--kind", type=click.Choice([kind.value for kind in JobKind]), help="Only those of this kind."
)
@click.option("--limit", type=click.IntRange(1), default=50, help="At most this many, the newest.")
@server_options
def jobs(
    state: str | None,
    kind: str | None,
    limit: int,
    home: Path | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """List the project's jobs, newest first."""
    with connect(home, url, key) as client:
        found = client.jobs(
            state=JobState(state) if state else None, kind=JobKind(kind) if kind else None
        )
        listed = list(islice(found, limit))
    if as_json:
        print_json(listed)
        return
    print_table(
        ("id", "name", "kind", "state", "dataset", "devices", "created"),
        [_row(job) for job in listed],
    )


def _row(job: JobSummary) -> tuple[str, ...]:
    state = job.state.value
    if job.stage and job.state not in (*ENDED, JobState.QUEUED):
        state = f"{job.stage} {job.fraction:.0%}"
    created = f"{job.created_at.astimezone():%Y-%m-%d %H:%M}"
    return (
        job.id,
        job.name or "",
        job.kind.value,
        state,
        job.dataset,
        ", ".join(job.devices),
        created,
    )


@click.command()
@click.argument("job")
@server_options
def cancel(job: str, home: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Stop a job; what it has so far is kept."""
    with connect(home, url, key) as client:
        changed = client.cancel(job)
    print_json(changed) if as_json else click.echo(f"{changed.id}: {changed.state}")


@click.command()
@click.argument("job")
@server_options
def retry(job: str, home: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Queue a failed or cancelled job again; it continues from what it has."""
    with connect(home, url, key) as client:
        changed = client.retry(job)
    print_json(changed) if as_json else click.echo(f"{changed.id}: {changed.state}")


@click.command()
@click.argument("job")
@server_options
def delete(job: str, home: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Delete an ended job with all its files."""
    with connect(home, url, key) as client:
        client.delete(job)
    print_json({"deleted": job}) if as_json else click.echo(f"{job}: deleted")


@click.command()
@click.argument("job")
@click.option("--follow", is_flag=True, help="Until the job has ended.")
@server_options
def logs(
    job: str, follow: bool, home: Path | None, url: str | None, key: str | None, as_json: bool
) -> None:
    """Print what a job's worker wrote."""
    offset = 0
    with connect(home, url, key) as client:
        while True:
            # asked first: what comes after the end is read, too
            has_ended = client.job(job).state in ENDED
            chunk = client.logs(job, offset=offset)
            if as_json and (chunk or not follow):
                print_json({"offset": offset, "text": chunk.decode(errors="replace")})
            elif chunk:
                sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
            offset += len(chunk)
            if not follow or (has_ended and not chunk):
                return
            if not chunk:
                time.sleep(LOG_STEP_S)
