"""Commands and backends that installed packages add, through entry-point groups.

Nothing is imported before it is requested by its name.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import click

from inn_automl.core.errors import UnknownNameError

if TYPE_CHECKING:
    from inn_automl.core.spec import TrainingBudget
    from inn_automl.pipeline.backend import Backend

BACKENDS, COMMANDS = "inn_automl.backends", "inn_automl.cli.commands"


def command_names() -> set[str]:
    """Names of the commands that packages add."""
    return set(entry_points(group=COMMANDS).names)


def load_command(name: str) -> click.Command | None:
    """The command of that name; None if no package adds one."""
    for entry_point in entry_points(group=COMMANDS, name=name):
        command: click.Command = entry_point.load()
        return command
    return None


def check_backend(name: str) -> None:
    """Checks that a backend of that name is installed.

    Raises:
        UnknownNameError: it is not.
    """
    known = entry_points(group=BACKENDS).names
    if name not in known:
        raise UnknownNameError("backend", name, known)


def make_backend(name: str, budget: TrainingBudget, address: str | None) -> Backend:
    """The backend of that name, with the processors of the budget."""
    entry_point = next(iter(entry_points(group=BACKENDS, name=name)))
    backend: Backend = entry_point.load()(cpus=budget.cpus, gpus=budget.gpus, address=address)
    return backend
