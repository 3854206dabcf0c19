"""The commands of the library: all that `inn-automl` has without plugins."""

from __future__ import annotations

import click

from inn_automl.cli.browse import browse
from inn_automl.cli.datasets import datasets
from inn_automl.cli.devices import devices
from inn_automl.cli.jobs import cancel, delete, jobs, logs, retry
from inn_automl.cli.predict import predict
from inn_automl.cli.results import compare, discretize, download, front
from inn_automl.cli.run import run
from inn_automl.cli.submission import extend, submit
from inn_automl.cli.watching import watch

COMMANDS: tuple[click.Command, ...] = (
    browse,
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
    predict,
    retry,
    run,
    submit,
    watch,
)
