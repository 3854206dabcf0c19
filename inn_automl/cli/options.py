"""Options that all client commands share, and how they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel
from tqdm import tqdm

from inn_automl.cli.text_table import text_table
from inn_automl.client import Client, find_server
from inn_automl.client.transfers import OnProgress

Function = TypeVar("Function", bound=Callable[..., Any])


def server_options(function: Function) -> Function:
    """`--home`, `--url`, `--key` and `--json`, as arguments `home`, `url`, `key` and `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Machine-readable output."),
        click.option("--key", metavar="KEY", help="API key.  [default: INN_AUTOML_KEY]"),
        click.option("--url", metavar="URL", help="Of the server.  [default: INN_AUTOML_URL]"),
        click.option(
            "--home",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="Folder of a running stack.",
        ),
    ):
        function = option(function)
    return function


def renamed_option(old: str, new: str) -> Callable[[Function], Function]:
    """An option that refuses its old name and says the new one."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"{old} is now {new}.", context)

    return click.option(old, hidden=True, expose_value=False, is_eager=True, callback=refuse)


def MODEL(function: Function) -> Function:
    """`--model`, as argument `model`."""
    option = click.option(
        "--model",
        metavar="NAME",
        help="A family, timm:NAME, torchvision:NAME or module:factory."
        "  [default: what suits the data]",
    )
    return renamed_option("--family", "--model")(option(function))


def WEIGHTS(function: Function) -> Function:
    """`--weights`, as argument `weights`."""
    option = click.option(
        "--weights",
        metavar="FILE|auto|none",
        help="Weights to start from; of a trained network of a family: nothing is trained."
        "  [default: what the model's library offers]",
    )
    return renamed_option("--pretrained", "--weights")(option(function))


METRIC = click.option(
    "--metric",
    metavar="NAME",
    help="What models are compared by: accuracy, balanced_accuracy, macro_f1, auroc or "
    "recall:CLASS.  [default: accuracy]",
)
CLASS_WEIGHTS = click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced"]),
    default="none",
    show_default=True,
    help="In the loss: balanced lets all classes weigh the same.",
)
AUGMENTATION = click.option(
    "--augmentation",
    metavar="LEVEL|NAMES",
    default="auto",
    show_default=True,
    help="How training varies samples: auto, none, light, strong, or names with commas: shift, "
    "resized_crop, flip, trivial_augment, erasing, mixup, cutmix.",
)
SEED = click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    help="Of the splits, training and search.",
)


def connect(home: Path | None, url: str | None, key: str | None) -> Client:
    """A client of the server that the options mean.

    Raises:
        RefusedError: they and the environment name none.
    """
    return Client.at(find_server(home, url, key))


def print_json(value: Any) -> None:
    """One JSON value on a line of standard output."""
    click.echo(json.dumps(json_ready(value)))


def json_ready(value: Any) -> Any:
    """The JSON value of a model, or of a list of them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [json_ready(item) for item in value]
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    click.echo(text_table(columns, rows))


@contextmanager
def transfer_bar(title: str) -> Iterator[OnProgress]:
    """A bar on standard error for bytes that move; nothing where that is no terminal."""
    with tqdm(
        desc=title, unit="B", unit_scale=True, dynamic_ncols=True, leave=False, disable=None
    ) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
