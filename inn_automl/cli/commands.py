"""The commands that speak to a coordinator. `COMMANDS` are added to `inn-automl`."""

from __future__ import annotations

import click

from inn_automl.cli.datasets import datasets
from inn_automl.cli.devices import devices
from inn_automl.cli.jobs import cancel, delete, jobs, logs, retry
from inn_automl.cli.models import compare, discretize, download, front
from inn_automl.cli.submission import extend, submit
from inn_automl.cli.watching import watch

COMMANDS: tuple[click.Command, ...] = (
    cancel,
    compare,
    datasets,
    delete,
    devices,
    discretize,
    download,
    extend,
    front,
    jobs,
    logs,
    retry,
    submit,
    watch,
)
