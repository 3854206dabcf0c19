"""Commands that installed packages add, through the entry points `inn_automl.cli.commands`.

Nothing is imported before it is requested by its name.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import click

COMMANDS = "inn_automl.cli.commands"


def command_names() -> set[str]:
    """Names of the commands that packages add."""
    return set(entry_points(group=COMMANDS).names)


def load_command(name: str) -> click.Command | None:
    """The command of that name; None if no package adds one."""
    for entry_point in entry_points(group=COMMANDS, name=name):
        command: click.Command = entry_point.load()
        return command
    return None
