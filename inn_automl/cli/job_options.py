"""The options of `run` and `submit` that describe a job."""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import Any

import click

from inn_automl.cli.options import (
    AUGMENTATION,
    CLASS_WEIGHTS,
    METRIC,
    MODEL,
    SEED,
    WEIGHTS,
    Function,
)
from inn_automl.core.data_options import DataOptions
from inn_automl.core.home import CACHE_DIR_VARIABLE
from inn_automl.core.spec import JobSpec, load_budget, parse

_DATA_OPTIONS = (
    click.option(
        "--input-size",
        metavar="SIDE|HxW",
        help="Height and width of images.  [default: the model's, or the images']",
    ),
    click.option(
        "--resize",
        type=click.Choice(["crop", "pad", "stretch"]),
        help="How images of another size are brought to it.  [default: the model's, or crop]",
    ),
    click.option(
        "--skip-broken",
        type=float,
        metavar="SHARE",
        help="Share of the samples that may be left out as broken.  [default: 0]",
    ),
    click.option("--label-column", metavar="NAME", help="Of a manifest: the class or target."),
    click.option("--path-column", metavar="NAME", help="Of a manifest: the files or their bytes."),
    click.option("--split-column", metavar="NAME", help="Of a manifest: train, validation, test."),
    click.option(
        "--group-column", metavar="NAME", help="Of a manifest: the speaker, patient or device."
    ),
    click.option("--weight-column", metavar="NAME", help="Of a manifest: weights in training."),
    click.option("--group-pattern", metavar="REGEX", help="Finds the group in the path of a file."),
    click.option(
        "--sample-rate",
        "sample_rate_hz",
        type=int,
        metavar="HZ",
        help="That audio is resampled to.  [default: the recordings', 16000 at most]",
    ),
    click.option(
        "--window-seconds", type=float, metavar="S", help="Windows that recordings are cut into."
    ),
)


def _set_cache(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        # Where the processes of a job look for it, too.
        os.environ[CACHE_DIR_VARIABLE] = str(Path(value).absolute())


CACHE_DIR = click.option(
    "--cache-dir",
    metavar="DIR",
    expose_value=False,
    callback=_set_cache,
    help=f"Of decoded samples.  [default: ${CACHE_DIR_VARIABLE}, or ~/.inn_automl/cache]",
)


_JOB_KEYS = ("dataset", "model", "weights", "metric", "class_weights", "augmentation", "seed")
_OPTIONS = (MODEL, WEIGHTS, METRIC, CLASS_WEIGHTS, *_DATA_OPTIONS, AUGMENTATION, SEED)


def job_options(function: Function) -> Function:
    """The options of a job, with `--dataset` and `--budget` of the command itself, as one argument
    `spec`, a `JobSpec`.
    """

    @wraps(function)
    def call(**arguments: Any) -> Any:
        found = {name: arguments.pop(name) for name in DataOptions.model_fields}
        given = {name: value for name, value in found.items() if value is not None}
        values = {
            **{key: arguments.pop(key) for key in _JOB_KEYS},
            "data": parse(DataOptions, given, where="the options of the data"),
            "budget": load_budget(arguments.pop("budget_path")),
        }
        return function(spec=parse(JobSpec, values, where="the job"), **arguments)

    command: Any = call
    for option in reversed(_OPTIONS):
        command = option(command)
    decorated: Function = command
    return decorated
