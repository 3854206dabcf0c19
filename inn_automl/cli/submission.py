"""`submit` and `extend`: new work for the service."""

from __future__ import annotations

from pathlib import Path

import click

from inn_automl.api.jobs import Job
from inn_automl.cli.job_options import job_options
from inn_automl.cli.options import (
    connect,
    print_json,
    server_options,
    transfer_bar,
)
from inn_automl.cli.watching import follow
from inn_automl.client import Client
from inn_automl.core.spec import JobSpec, load_budget

BUDGET = click.option(
    "--budget", "budget_path", required=True, metavar="FILE", help="The hardware budget, YAML."
)
NAME = click.option("--name", metavar="NAME", help="What lists show the job as.")
PRIORITY = click.option(
    "--priority", type=click.IntRange(-100, 100), default=0, help="Higher ones start first."
)
WATCH = click.option("--watch", "is_watched", is_flag=True, help="Follow the job until it ends.")


@click.command()
@click.option(
    "--dataset",
    required=True,
    metavar="NAME|PATH",
    help="A built-in or uploaded one; a path is uploaded.",
)
@BUDGET
@job_options
@NAME
@PRIORITY
@WATCH
@server_options
def submit(
    spec: JobSpec,
    name: str | None,
    priority: int,
    is_watched: bool,
    home: Path | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Hand a job to the server and print its id."""
    with connect(home, url, key) as client:
        spec = spec.model_copy(update={"dataset": _uploaded(client, spec.dataset)})
        _started(client, client.submit(spec, name=name, priority=priority), is_watched, as_json)


@click.command()
@click.argument("job")
@click.option(
    "--budget",
    "budget_path",
    required=True,
    metavar="FILE",
    help="Its devices and search; nothing is trained again.",
)
@NAME
@PRIORITY
@WATCH
@server_options
def extend(
    job: str,
    budget_path: str,
    name: str | None,
    priority: int,
    is_watched: bool,
    home: Path | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Search a finished job's network for other devices or bounds."""
    budget = load_budget(budget_path)
    with connect(home, url, key) as client:
        extension = client.extend(job, budget.devices, budget.search, name=name, priority=priority)
        _started(client, extension, is_watched, as_json)


def _started(client: Client, job: Job, is_watched: bool, as_json: bool) -> None:
    if as_json:
        print_json({"job_id": job.id})
    else:
        click.echo(job.id)
    if is_watched:
        follow(client, job.id)


def _uploaded(client: Client, dataset: str) -> str:
    """The name of a dataset that the server knows: a path is uploaded first, a name is left to the
    server.
    """
    path = Path(dataset)
    if not path.exists() and path.name == dataset and not path.suffix:
        return dataset
    with transfer_bar(f"uploading {path.name}") as on_progress:
        return client.upload_dataset(path, on_progress=on_progress).name
