"""The `inn-automl` command.

    exit code 0    done
              2    bad input; nothing was spent
              130  interrupted; the same command resumes
              1    anything else

A failure is one sentence on standard error; with `--json`, a JSON object with the keys `code` (of
`inn_automl.core.errors`) and `detail`. Packages above this one add commands through the
entry-point group `inn_automl.cli.commands`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from inn_automl.cli import plugins
from inn_automl.cli.commands import COMMANDS
from inn_automl.cli.endings import BAD_INPUT, INTERRUPTED, ending_of
from inn_automl.core.version import __version__


class _Commands(click.Group):
    """The library's commands, and those that installed packages add."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *plugins.command_names()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or plugins.load_command(cmd_name)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(__version__, prog_name="inn-automl")
def commands() -> None:
    """A dataset and a hardware budget in; measured accuracy-latency fronts and downloadable models
    out.
    """


@commands.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


for _command in COMMANDS:
    commands.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits; every failure ends as one sentence on standard error."""
    try:
        code = commands.main(arguments, prog_name="inn-automl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        ending = ending_of(error, log=Path(tempfile.gettempdir()) / "inn-automl-error.log")
        ending.show(as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
        code = ending.exit_code
    sys.exit(code)
