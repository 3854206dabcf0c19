"""Exit codes of the commands, and the sentence that says why one failed."""

from __future__ import annotations

import errno
import json
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from inn_automl.core.errors import BackendError, InnAutomlError, InputError, StorageError
from inn_automl.core.storage import write_atomically

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

OWN_PACKAGES = ("inn_automl", "inn_automl_services", "inn_automl_workers")
KEPT = "What was done so far is kept, and the same command resumes."


class Ending(Exception):
    """Ends a command with a sentence.

    Args:
        code: of the error that ends it, `inn_automl.core.errors.InnAutomlError.code`.
    """

    def __init__(self, sentence: str, exit_code: int, code: str) -> None:
        super().__init__(sentence)
        self.exit_code, self.code = exit_code, code

    def show(self, *, as_json: bool) -> None:
        """Prints the sentence on standard error; as JSON with its code, if requested."""
        if as_json:
            click.echo(json.dumps({"code": self.code, "detail": str(self)}), err=True)
        else:
            click.echo(f"inn-automl: {self}", err=True)


def ending_of(error: Exception, log: Path) -> Ending:
    """The ending for an exception; the traceback of an unforeseen one is written to `log`."""
    match error:
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "inn-automl"
            sentence = f"{error.format_message()} See '{path} --help'."
            return Ending(sentence, BAD_INPUT, InputError.code)
        case click.ClickException():
            return Ending(error.format_message(), error.exit_code, InputError.code)
        case Ending():
            return error
        case InputError():
            return Ending(str(error), BAD_INPUT, error.code)
        case InnAutomlError():
            return Ending(str(error), FAILED, error.code)
        case ModuleNotFoundError() if _package(error) not in OWN_PACKAGES:
            sentence = (
                f"{_package(error)} is not installed: pip install 'inn-automl[worker]' brings it."
            )
            return Ending(sentence, FAILED, InnAutomlError.code)
    return _unforeseen(error, log)


@contextmanager
def failures_explained(out: Path) -> Iterator[None]:
    """Makes every failure of a job an `Ending` that says whether the same command resumes it.

    Args:
        out: folder of the job; the traceback of an unforeseen failure is written there.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise interrupted() from None
    except (BackendError, StorageError) as error:
        raise Ending(f"{error} {KEPT}", FAILED, error.code) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise ending_of(error, out / "error.log") from error
        sentence = f"the disk that holds {str(out)!r} is full: free some space. {KEPT}"
        raise Ending(sentence, FAILED, StorageError.code) from error
    except Exception as error:
        raise ending_of(error, out / "error.log") from error


def interrupted() -> Ending:
    """The ending of a job that Ctrl-C or SIGTERM stopped."""
    return Ending(f"interrupted. {KEPT}", INTERRUPTED, "interrupted")


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM end a job as Ctrl-C does: what was found is kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _unforeseen(error: Exception, log: Path) -> Ending:
    lines = str(error).splitlines() or ["no message"]
    sentence = f"this should not happen: {type(error).__name__}: {lines[0]}"
    try:
        write_atomically(log, "".join(traceback.format_exception(error)).encode())
    except StorageError:
        traceback.print_exception(error)
        return Ending(f"{sentence}; the traceback is above.", FAILED, InnAutomlError.code)
    return Ending(f"{sentence}; the traceback is in {log}.", FAILED, InnAutomlError.code)


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "a package").partition(".")[0]
