"""Options that all client commands share, and how they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from inn_automl.client import Client, find_server
from inn_automl.client.transfers import OnProgress

PAGE_COLUMNS = 120
"""Width of tables where standard output is no terminal."""

Function = TypeVar("Function", bound=Callable[..., Any])


def server_options(function: Function) -> Function:
    """`--home`, `--url`, `--key` and `--json`, as arguments `home`, `url`, `key` and `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Machine-readable output."),
        click.option("--key", metavar="KEY", help="API key.  [default: INN_AUTOML_KEY]"),
        click.option("--url", metavar="URL", help="Of the server.  [default: INN_AUTOML_URL]"),
        click.option("--home", metavar="DIR", type=click.Path(path_type=Path), help="Folder of a running stack."),
    ):
        function = option(function)
    return function


def connect(home: Path | None, url: str | None, key: str | None) -> Client:
    """A client of the server that the options mean.

    Raises:
        RefusedError: they and the environment name none.
    """
    return Client.at(find_server(home, url, key))


def print_json(value: Any) -> None:
    """One JSON value on a line of standard output."""
    click.echo(json.dumps(plain(value)))


def plain(value: Any) -> Any:
    """The JSON value of a model, or of a list of them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    wide_console().print(table)


def wide_console() -> Console:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PAGE_COLUMNS
    return console


@contextmanager
def transfer_bar(title: str) -> Iterator[OnProgress]:
    """A bar on standard error for bytes that move; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as p:
        task = p.add_task(title, total=None)
        yield lambda done, total: p.update(task, completed=done, total=total)
