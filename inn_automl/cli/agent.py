"""`agent`: this machine measures for a server."""

from __future__ import annotations

import logging
import re
import signal
import socket
import sys
import time
from contextlib import closing
from pathlib import Path
from types import FrameType

import click
from pydantic import TypeAdapter, ValidationError

from inn_automl.api.base import Name
from inn_automl.cli.endings import FAILED, Ending
from inn_automl.cli.options import print_table
from inn_automl.client import find_server
from inn_automl.core.errors import InputError, RefusedError
from inn_automl.core.runtimes import RUNTIMES

DEFAULT_CACHE = Path("~/.cache/inn_automl/models")


@click.command()
@click.option(
    "--server", "--url", "url", metavar="URL", help="Of the coordinator.  [default: INN_AUTOML_URL]"
)
@click.option("--key", metavar="KEY", help="Key of the role agent.  [default: INN_AUTOML_KEY]")
@click.option(
    "--home", metavar="DIR", type=click.Path(path_type=Path), help="Folder of a running stack."
)
@click.option(
    "--name", metavar="NAME", help="What jobs call this machine.  [default: its host name]"
)
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=DEFAULT_CACHE,
    help="For models to measure.",
)
@click.option(
    "--cache-gb", type=click.FloatRange(min=0), default=2.0, help="Most gigabytes of cached models."
)
@click.option(
    "--list-runtimes",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, wanted: _list_runtimes(context) if wanted else None,
    help="Show what can run models here, and what the others lack.",
)
def agent(
    url: str | None,
    key: str | None,
    home: Path | None,
    name: str | None,
    cache: Path,
    cache_gb: float,
) -> None:
    """Measure latencies on this machine for a server, until Ctrl-C.

    Server and key are best given as INN_AUTOML_URL and INN_AUTOML_KEY: other users see a command's
    arguments.
    """
    name = _checked(name or _host_name())
    server = find_server(home, url, key)
    _log_to_stderr()
    signal.signal(signal.SIGTERM, _end)
    from inn_automl.agent.agent import Agent
    from inn_automl.agent.agent_client import AgentClient
    from inn_automl.agent.model_cache import ModelCache

    with closing(AgentClient(server.url, server.key)) as client:
        models = ModelCache(cache.expanduser(), round(cache_gb * 1e9))
        try:
            Agent(client, name, models).run()
        except RefusedError as error:  # at work, not by its options
            raise Ending(str(error), FAILED, error.code) from error


def _list_runtimes(context: click.Context) -> None:
    from inn_automl import runtimes

    versions, reasons = runtimes.probe()
    print_table(
        ("runtime", "version"), [(name, versions.get(name, "missing")) for name in RUNTIMES]
    )
    for name, reason in reasons.items():
        click.echo(f"\n{name}: {reason}")  # whole, so that a command in it can be copied
    context.exit()


def _end(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C, but nothing went wrong: whoever stops a service wants to see 0.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).lstrip("._-")[:64]


def _checked(name: str) -> str:
    try:
        checked: str = TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise InputError(
            f"{name!r} cannot be a device's name: give --name up to 64 letters, digits, '.', '_' "
            f"or '-', a letter or "
            "digit first."
        ) from None
    return checked


def _log_to_stderr() -> None:
    formatter = logging.Formatter(
        "%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logger = logging.getLogger("inn_automl")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
