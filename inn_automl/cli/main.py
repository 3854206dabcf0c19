"""The `inn-automl` command.

    exit code 0    done
              2    bad input; nothing was spent
              130  interrupted; the same command resumes
              1    anything else

A fault is one sentence on standard error. Packages above this one add commands through the
entry-point group `inn_automl.cli.commands` and backends through `inn_automl.backends`; both are
loaded only when they are asked for.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from inn_automl import __version__
from inn_automl.cli.commands import COMMANDS
from inn_automl.core.errors import (
    BackendError,
    InnAutomlError,
    InputError,
    JobDirectoryError,
    StorageError,
    UnknownNameError,
)
from inn_automl.core.progress import show_progress
from inn_automl.core.spec import JobSpec, TrainingBudget, load_budget, parse
from inn_automl.core.stage import Stage
from inn_automl.core.storage import write_atomically

if TYPE_CHECKING:
    from inn_automl.pipeline.backend import Backend

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

OWN_PACKAGES = ("inn_automl", "services", "workers")
KEPT = "What was done so far is kept, and the same command resumes."


class _Commands(click.Group):
    """The commands below, and those that installed packages add."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(
            {*super().list_commands(ctx), *entry_points(group="inn_automl.cli.commands").names}
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if own := super().get_command(ctx, cmd_name):
            return own
        for entry_point in entry_points(group="inn_automl.cli.commands", name=cmd_name):
            command: click.Command = entry_point.load()
            return command
        return None


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(__version__, prog_name="inn-automl")
def commands() -> None:
    """A dataset and a hardware budget in; measured accuracy-latency fronts and downloadable models
    out.
    """


for _command in COMMANDS:
    commands.add_command(_command)


@commands.command()
@click.option(
    "--dataset",
    required=True,
    metavar="NAME|PATH",
    help="digits, mnist5k, mnist1d, an .npz, a folder or ZIP.",
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
@click.option(
    "--family", metavar="NAME", help="Architecture family.  [default: what suits the data]"
)
@click.option(
    "--pretrained",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Weights (.safetensors) of a trained network of the family: nothing is trained.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    help="Of the splits, training and search.",
)
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
    dataset: str,
    budget_path: str,
    out: Path,
    family: str | None,
    pretrained: Path | None,
    seed: int,
    as_json: bool,
    backend: str,
    address: str | None,
) -> None:
    """Search a front of models for each device of a budget.

    The same command resumes an interrupted job, and shows the result of a finished one again.
    """
    values = {
        "dataset": dataset,
        "budget": load_budget(budget_path),
        "model": family,
        "seed": seed,
    }
    spec = parse(JobSpec, values, where="the job")
    _check_backend(backend, address)
    _check_dataset(spec.dataset)
    _check_out(out)
    with _faults_explained(out), _sigterm_interrupts(), show_progress() as progress:
        progress.stage(Stage.STARTING)
        # Read when torch is loaded. Threads that spin while they wait for each other stand still
        # for as long as another program has their core; on a busy machine that made two threads
        # ten times slower than one.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from inn_automl.core.object_store import ObjectStore
        from inn_automl.latency.store import MeasurementCache
        from inn_automl.pipeline.run import run_job

        home = Path(os.environ.get("INN_AUTOML_HOME") or "~/.inn_automl").expanduser().absolute()
        measurement_cache = MeasurementCache(ObjectStore(str(home / "measurement-cache")))
        workers = _make_backend(backend, spec.budget.training, address)
        # once more: Ray has put its own handler there
        with closing(workers), _sigterm_interrupts():
            result = run_job(
                spec,
                out,
                backend=workers,
                progress=progress,
                measurement_cache=measurement_cache,
                weights=pretrained,
            )
    if as_json:
        click.echo(out / "result.json")
    else:
        from inn_automl.cli.summary import print_summary

        print_summary(result, out, f"{_program()} browse")


@commands.command()
@click.option(
    "--home", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the embedded store."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of the server.  [default: 5000, or a free one]",
)
def browse(home: Path | None, port: int | None) -> None:
    """Show the fronts of all jobs in MLflow, until Ctrl-C."""
    from inn_automl.reporting.server import browse as serve

    serve(home=home, port=port)


@commands.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits; every fault ends as one sentence on standard error."""
    try:
        code = commands.main(arguments, prog_name="inn-automl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        ended = _end(error, log=Path(tempfile.gettempdir()) / "inn-automl-error.log")
        click.echo(f"inn-automl: {ended}", err=True)
        code = ended.exit_code
    sys.exit(code)


class _Ended(Exception):
    """Ends the command with a sentence and an exit code."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def _end(error: Exception, log: Path) -> _Ended:
    """How an exception is told; the traceback of one that nobody foresaw goes to `log`."""
    match error:
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "inn-automl"
            return _Ended(f"{error.format_message()} See '{path} --help'.", BAD_INPUT)
        case click.ClickException():
            return _Ended(error.format_message(), error.exit_code)
        case _Ended():
            return error
        case InputError():
            return _Ended(str(error), BAD_INPUT)
        case InnAutomlError():
            return _Ended(str(error), FAILED)
        case ModuleNotFoundError() if _package(error) not in OWN_PACKAGES:
            return _Ended(
                f"{_package(error)} is not installed: pip install 'inn-automl[worker]' brings it.",
                FAILED,
            )
    lines = str(error).splitlines() or ["no message"]
    sentence = f"this should not happen: {type(error).__name__}: {lines[0]}"
    try:
        write_atomically(log, "".join(traceback.format_exception(error)).encode())
    except StorageError:
        traceback.print_exception(error)
        return _Ended(f"{sentence}; the traceback is above.", FAILED)
    return _Ended(f"{sentence}; the traceback is in {log}.", FAILED)


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "a package").partition(".")[0]


@contextmanager
def _faults_explained(out: Path) -> Iterator[None]:
    """Says of every way in which a job can end whether the same command resumes it."""
    try:
        yield
    except KeyboardInterrupt:
        raise _Ended(f"interrupted. {KEPT}", INTERRUPTED) from None
    except (BackendError, StorageError) as error:
        raise _Ended(f"{error} {KEPT}", FAILED) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise _end(error, out / "error.log") from error
        raise _Ended(
            f"the disk that holds {str(out)!r} is full: free some space. {KEPT}", FAILED
        ) from error
    except Exception as error:
        raise _end(error, out / "error.log") from error


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a job as Ctrl-C does: what was found is kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    known = entry_points(group="inn_automl.backends").names
    if name not in known:
        raise UnknownNameError("backend", name, known)
    if address is not None and name == "local":
        raise InputError(
            f"the local backend joins no cluster, --address {address!r} was given: add --backend "
            f"ray."
        )


def _make_backend(name: str, budget: TrainingBudget, address: str | None) -> Backend:
    entry_point = next(iter(entry_points(group="inn_automl.backends", name=name)))
    backend: Backend = entry_point.load()(cpus=budget.cpus, gpus=budget.gpus, address=address)
    return backend


def _check_dataset(source: str) -> None:
    """Refuses a name or path that leads nowhere, before anything slow is imported."""
    from inn_automl.data import BUILTINS, load_dataset

    if source not in BUILTINS and not Path(source).exists():
        load_dataset(source)  # knows how to say it


def _program() -> str:
    """What to type to run this program again."""
    called = Path(sys.argv[0])
    return (
        str(called)
        if called.name == "inn-automl" and shutil.which("inn-automl") != str(called)
        else "inn-automl"
    )
