"""`front`, `compare`, `download`, `discretize`: what jobs found."""

from __future__ import annotations

from pathlib import Path

import click

from inn_automl.cli.options import (
    connect,
    print_json,
    print_table,
    renamed_option,
    server_options,
    transfer_bar,
)
from inn_automl.cli.summary import classes_table, front_table
from inn_automl.cli.watching import follow
from inn_automl.client import Client
from inn_automl.client.client import RECOMMENDED
from inn_automl.client.transfers import DownloadedFile
from inn_automl.core.errors import InputError
from inn_automl.core.precision import DEFAULT, PRECISIONS

OUT = click.option(
    "-o",
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="To write to.",
)


@click.command()
@click.argument("job")
@click.option("--device", metavar="NAME", help="Only this device's.")
@server_options
def front(
    job: str, device: str | None, home: Path | None, url: str | None, key: str | None, as_json: bool
) -> None:
    """Show a finished job's fronts.

    With --json: one front with --device, else {"job_id", "devices": [...]}.
    """
    with connect(home, url, key) as client:
        if device is not None:
            one = client.front(job, device)
            devices, found = [one], one.model_dump(mode="json")
        else:
            fronts = client.fronts(job)
            devices, found = fronts.devices, fronts.model_dump(mode="json")
        page = None if as_json else client.job(job).mlflow_url
    if as_json:
        print_json(found)
        return
    for shown in devices:
        click.echo(front_table(shown))
        click.echo(shown.recommendation)
        if classes := classes_table(shown):
            click.echo(classes)
        if shown.front:
            point = RECOMMENDED if shown.recommended else shown.front[0].id
            command = (
                f"inn-automl download {job} --device {shown.name} --point {point} -o model.zip"
            )
            click.echo(f"Download: {command}")
        click.echo()
    if page:
        click.echo(f"In MLflow: {page}")


@click.command()
@click.argument("first")
@click.argument("second")
@server_options
def compare(
    first: str, second: str, home: Path | None, url: str | None, key: str | None, as_json: bool
) -> None:
    """Compare the fronts of two finished jobs, device by device."""
    with connect(home, url, key) as client:
        comparison = client.compare(first, second)
    if as_json:
        print_json(comparison)
        return
    rows = []
    for device in comparison.devices:
        values = [
            f"{device.hypervolume[job]:.4g}" if job in device.hypervolume else "-"
            for job in comparison.jobs
        ]
        rows.append((device.device, *values, device.better or "equal"))
    print_table(("device", *comparison.jobs, "better"), rows)
    for job, names in comparison.only_in.items():
        if names:
            click.echo(f"Only in {job}: {', '.join(names)}")
    if rows:
        click.echo(
            "Dominated hypervolume (metric value times milliseconds) against one reference point; "
            "more "
            "is better."
        )


@click.command()
@click.argument("job")
@click.option("--device", metavar="NAME", help="Whose front.  [default: the job's only device]")
@click.option(
    "--point", default=RECOMMENDED, metavar="ID|recommended", help="Which model of the front."
)
@click.option("--inn", "is_inn", is_flag=True, help="The Integral Neural Network itself instead.")
@click.option(
    "--elastic",
    "is_elastic",
    is_flag=True,
    help="All points as one model that resizes itself instead.",
)
@OUT
@server_options
def download(
    job: str,
    device: str | None,
    point: str,
    is_inn: bool,
    is_elastic: bool,
    out: Path,
    home: Path | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Write the bundle of a front's point to a file."""
    if is_inn and is_elastic:
        raise click.UsageError("Give either --inn or --elastic.")
    if (is_inn or is_elastic) and device:
        raise click.UsageError(
            f"--{'inn' if is_inn else 'elastic'} is one for all devices: leave out --device."
        )
    with connect(home, url, key) as client, transfer_bar(f"downloading {out.name}") as on_progress:
        if is_inn:
            file = client.download_inn(job, out, on_progress)
        elif is_elastic:
            file = client.download_elastic(job, out, on_progress)
        else:
            name = device or _only_device(client, job)
            file = client.download(job, out, device=name, point=point, on_progress=on_progress)
    _written(file, as_json)


def _only_device(client: Client, job: str) -> str:
    names = [device.name for device in client.fronts(job).devices]
    if len(names) != 1:
        raise InputError(
            f"job {job} has {len(names)} devices: give --device with one of {', '.join(names)}."
        )
    return names[0]


@click.command()
@click.argument("job")
@click.option(
    "--ratio", type=click.FloatRange(0, 1, min_open=True), help="Of the full width, for all groups."
)
@click.option("--widths", metavar="GROUP=N,...", help="Channels of each group.")
@click.option(
    "--precision", default=DEFAULT, show_default=True, help=f"One of {', '.join(PRECISIONS)}."
)
@click.option(
    "--fine-tune-seconds",
    type=float,
    default=0.0,
    metavar="S",
    help="Tune it on the training samples first, at most 3600 s.",
)
@renamed_option("--tune-seconds", "--fine-tune-seconds")
@OUT
@server_options
def discretize(
    job: str,
    ratio: float | None,
    widths: str | None,
    precision: str,
    fine_tune_seconds: float,
    out: Path,
    home: Path | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Sample a finished job's network at other widths and write that bundle to a file."""
    if (ratio is None) == (widths is None):
        raise click.UsageError("Give either --ratio or --widths.")
    chosen = None if widths is None else parse_widths(widths)
    with connect(home, url, key) as client:
        made = client.discretize(
            job,
            widths=chosen,
            ratio=ratio,
            precision=precision,
            fine_tune_seconds=fine_tune_seconds,
        )
        follow(client, made.id)
        with transfer_bar(f"downloading {out.name}") as on_progress:
            file = client.download_bundle(made.id, out, on_progress)
    _written(file, as_json, job_id=made.id)


def parse_widths(text: str) -> dict[str, int]:
    """`a=8,b=16` as a mapping.

    Raises:
        InputError: it is not of that form.
    """
    widths: dict[str, int] = {}
    for part in text.split(","):
        group, _, value = part.strip().rpartition("=")
        if (
            not group
            or not value.isascii()
            or not value.isdigit()
            or int(value) < 1
            or group in widths
        ):
            raise InputError(
                f"--widths {text!r}: {part!r} is not GROUP=N, each group once: write a=8,b=16."
            )
        widths[group] = int(value)
    return widths


def _written(file: DownloadedFile, as_json: bool, **more: str) -> None:
    if as_json:
        print_json(
            {**more, "path": str(file.path), "sha256": file.sha256, "size_bytes": file.size_bytes}
        )
    else:
        click.echo(file.path)
