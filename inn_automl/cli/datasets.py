"""`datasets`: list, upload, register, delete."""

from __future__ import annotations

from pathlib import Path

import click

from inn_automl.api.datasets import StoredDataset
from inn_automl.cli.options import connect, print_json, print_table, server_options, transfer_bar


@click.group(invoke_without_command=True)
@server_options
@click.pass_context
def datasets(
    context: click.Context, home: Path | None, url: str | None, key: str | None, as_json: bool
) -> None:
    """List the project's datasets, or add and delete some."""
    if context.invoked_subcommand is not None:
        return
    with connect(home, url, key) as client:
        listed = list(client.datasets())
    if as_json:
        print_json(listed)
        return
    print_table(
        ("name", "kind", "shape", "task", "samples", "size", "id"),
        [_row(dataset) for dataset in listed],
    )


def _row(dataset: StoredDataset) -> tuple[str, ...]:
    metadata = dataset.metadata
    shape = " x ".join(map(str, metadata.input_shape))
    size = f"{dataset.size_bytes / 1e6:.3g} MB"
    task = f"{len(metadata.classes)} classes" if metadata.classes else metadata.task
    return dataset.name, metadata.kind, shape, task, str(metadata.num_samples), size, dataset.id


@datasets.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="What jobs call it.  [default: the file's name]")
@server_options
def upload(
    path: Path, name: str | None, home: Path | None, url: str | None, key: str | None, as_json: bool
) -> None:
    """Upload a dataset: a folder, or an .npz, .zip, .tar or .parquet file."""
    with connect(home, url, key) as client, transfer_bar(f"uploading {path.name}") as on_progress:
        dataset = client.upload_dataset(path, name, on_progress)
    print_json(dataset) if as_json else click.echo(dataset.name)


@datasets.command()
@click.argument("source")
@click.option("--name", required=True, metavar="NAME", help="What jobs call it.")
@click.option("--sha256", metavar="HASH", help="What the content must hash to.")
@server_options
def register(
    source: str,
    name: str,
    sha256: str | None,
    home: Path | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Have the server fetch a dataset from a URL that it allows."""
    with connect(home, url, key) as client:
        dataset = client.register_dataset(source, name, sha256)
    print_json(dataset) if as_json else click.echo(dataset.name)


@datasets.command()
@click.argument("dataset")
@server_options
def remove(
    dataset: str, home: Path | None, url: str | None, key: str | None, as_json: bool
) -> None:
    """Delete a dataset that no job uses."""
    with connect(home, url, key) as client:
        client.delete_dataset(dataset)
    print_json({"removed": dataset}) if as_json else click.echo(f"{dataset}: removed")
