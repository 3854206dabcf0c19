"""`predict`: what a downloaded model says of files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from inn_automl.cli.endings import FAILED, Ending
from inn_automl.cli.options import print_json
from inn_automl.core.errors import DatasetFormatError, InputError
from inn_automl.serving.files import find_files
from inn_automl.serving.prediction import Prediction, Predictor, needed_packages


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("sources", metavar="FILE|FOLDER...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Of the network.  [default: as many as cores]",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def predict(bundle: Path, sources: tuple[Path, ...], threads: int | None, as_json: bool) -> None:
    """Predict files with a downloaded bundle.

    Prints a line a file, as soon as it is known: {"path", "class", "probabilities"} with --json,
    {"path", "targets"} of a regression. Images are those that Pillow decodes, recordings those of
    libsndfile; a .npy file holds one sample as in the dataset.

    Files that cannot be read are told at the end, with exit code 1; all others are predicted.
    """
    if not sources:
        raise click.UsageError("Give files or folders to predict.")
    predictor = Predictor(bundle, threads=threads)
    if packages := needed_packages(predictor.config):
        raise InputError(
            f"files for this model are read with {' and '.join(packages)}, which are not "
            "installed: pip install 'inn-automl[predict]' brings them."
        )
    faults: list[Prediction] = []
    num_predicted = 0
    for found in predictor.predict(find_files(sources, predictor.config.preprocessing)):
        if found.fault is not None:
            faults.append(found)
            continue
        num_predicted += 1
        if as_json:
            print_json(found.record())
        else:
            click.echo(_line(found))
    if faults:
        _tell(faults, as_json=as_json)
        num_files = num_predicted + len(faults)
        raise Ending(
            f"{len(faults)} of {num_files} files could not be predicted.",
            FAILED,
            DatasetFormatError.code,
        )


def _line(found: Prediction) -> str:
    assert found.output is not None
    if found.label is None:
        return f"{found.path}: {' '.join(f'{value:.6g}' for value in found.output)}"
    return f"{found.path}: {found.label} {100 * found.output.max():.2f} %"


def _tell(faults: list[Prediction], *, as_json: bool) -> None:
    """Prints each fault on standard error."""
    for found in faults:
        assert found.fault is not None
        if as_json:
            about = {"path": str(found.path), "code": found.fault.code, "detail": str(found.fault)}
            click.echo(json.dumps(about), err=True)
        else:
            click.echo(f"{found.path}: {found.fault}", err=True)
