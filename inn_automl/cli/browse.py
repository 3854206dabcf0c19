"""`browse`: the fronts of all jobs in MLflow."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--home", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the embedded store."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of the server.  [default: 5000, or a free one]",
)
def browse(home: Path | None, port: int | None) -> None:
    """Show the fronts of all jobs in MLflow, until Ctrl-C."""
    from inn_automl.reporting.server import browse as serve

    serve(home=home, port=port)
