"""`run`: a job on this machine."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click

from inn_automl.cli.endings import failures_explained, sigterm_interrupts
from inn_automl.cli.job_options import CACHE_DIR, job_options
from inn_automl.core.errors import InputError, JobDirectoryError
from inn_automl.core.progress import show_progress
from inn_automl.core.result import JobResult
from inn_automl.core.spec import JobSpec
from inn_automl.core.stage import Stage
from inn_automl.facade.backends import check_backend


@click.command()
@click.option(
    "--dataset",
    required=True,
    metavar="NAME|PATH",
    help="digits, mnist5k, mnist1d, photo-digits, a folder, a file or a URL.",
)
@click.option(
    "--budget",
    "budget_path",
    required=True,
    metavar="FILE",
    help="The hardware budget, a YAML file.",
)
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the results go.",
)
@job_options
@CACHE_DIR
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The last line of standard output is the path of result.json.",
)
@click.option(
    "--backend", default="ray", metavar="NAME", help="Who trains and evaluates: ray or local."
)
@click.option(
    "--address", metavar="ADDRESS", help="A Ray cluster to join.  [default: start one here]"
)
def run(
    spec: JobSpec,
    out: Path,
    as_json: bool,
    backend: str,
    address: str | None,
) -> None:
    """Search a front of models for each device of a budget.

    The same command resumes an interrupted job, and shows the result of a finished one again.
    """
    _check_backend(backend, address)
    _check_dataset(spec.dataset)
    _check_out(out)
    result = _run(spec, out, backend, address)
    if as_json:
        click.echo(out / "result.json")
    else:
        from inn_automl.cli.summary import print_summary

        print_summary(result, out, f"{_program()} browse")


def _run(spec: JobSpec, out: Path, backend: str, address: str | None) -> JobResult:
    with failures_explained(out), sigterm_interrupts(), show_progress() as progress:
        progress.stage(Stage.STARTING)
        from inn_automl.facade.jobs import search

        return search(
            spec.dataset,
            spec.budget,
            model=spec.model,
            weights=spec.weights,
            metric=spec.metric,
            class_weights=spec.class_weights,
            augmentation=spec.augmentation,
            data=spec.data,
            out=out,
            seed=spec.seed,
            backend=backend,
            address=address,
            progress=progress,
        ).record


def _check_out(out: Path) -> None:
    """Refuses a folder that could not be written; makes nothing."""
    if out.exists() and not out.is_dir():
        raise JobDirectoryError(
            f"--out {str(out)!r} is a file: give a folder, which need not exist yet."
        )
    path = out.absolute()
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise JobDirectoryError(
            f"--out {str(out)!r} cannot be written ({reason}): give another folder."
        ) from None


def _check_backend(name: str, address: str | None) -> None:
    check_backend(name)
    if address is not None and name == "local":
        raise InputError(
            f"the local backend joins no cluster, --address {address!r} was given: add --backend "
            f"ray."
        )


def _check_dataset(source: str) -> None:
    """Refuses a name or path that leads nowhere, before anything slow is imported."""
    from inn_automl.data import BUILTINS, load_dataset

    if source not in BUILTINS and "://" not in source and not Path(source).exists():
        load_dataset(source)  # its message names the nearest built-in dataset


def _program() -> str:
    """Command that runs this program again."""
    called = Path(sys.argv[0])
    return (
        str(called)
        if called.name == "inn-automl" and shutil.which("inn-automl") != str(called)
        else "inn-automl"
    )
