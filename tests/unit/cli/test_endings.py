"""How a command ends: exit codes, sentences, codes of errors."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from inn_automl.cli import endings
from inn_automl.core.errors import BackendError, DatasetTooSmallError, StorageError, TrainingError
from inn_automl.core.progress import Progress
from inn_automl.core.result import (
    JobResult,
)
from inn_automl.core.spec import JobSpec
from tests.unit.cli.terminal import (
    FakeBackend,
    Terminal,
    after_progress,
    one_sentence,
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budget": "nowhere.yaml"}, "there is no budget file 'nowhere.yaml'"),
        ({"dataset": "mnist5"}, "did you mean 'mnist5k'?"),
        ({"dataset": "data/cats.npz"}, "no file or folder at 'data/cats.npz'"),
        ({"backend": "rai"}, "unknown backend 'rai': did you mean 'ray'?"),
        (
            {"backend": "local", "address": "auto"},
            "the local backend joins no cluster, --address 'auto'",
        ),
        ({"seed": "-1"}, "-1 is not in the range"),
        ({"sed": "1"}, "No such option"),
        ({"out": "budget.yaml"}, "--out 'budget.yaml' is a file"),
        (
            {"out": "budget.yaml/below"},
            "--out 'budget.yaml/below' cannot be written (Not a directory)",
        ),
        ({"out": "/proc/out"}, "--out '/proc/out' cannot be written"),
    ],
)
def test_bad_input_is_refused(terminal: Terminal, changes: dict[str, str], told: str) -> None:
    code, out, err = terminal.run(**changes)
    assert (code, out) == (2, "")
    assert one_sentence(err)
    assert told in err
    assert not terminal.jobs
    assert not FakeBackend.made
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "old", "new"),
    [
        (("run", "--family", "mlp"), "--family", "--model"),
        (("run", "--pretrained", "w.st"), "--pretrained", "--weights"),
        (("submit", "--family", "mlp"), "--family", "--model"),
        (("discretize", "job_1", "--tune-seconds", "3"), "--tune-seconds", "--fine-tune-seconds"),
    ],
)
def test_an_option_of_an_old_name_says_the_new_one(
    terminal: Terminal, arguments: tuple[str, ...], old: str, new: str
) -> None:
    code, out, err = terminal(*arguments)
    assert (code, out) == (2, "")
    assert one_sentence(err)
    assert f"{old} is now {new}." in err


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (DatasetTooSmallError("too few samples: add some."), 2),
        (TrainingError("training diverged."), 1),
        (BackendError("the last worker died."), 1),
        (OSError(errno.ENOSPC, "No space"), 1),
        (KeyError("x"), 1),
    ],
)
def test_json_tells_the_code_of_a_failure(
    terminal: Terminal, error: Exception, exit_code: int
) -> None:
    def fail(spec: JobSpec, out: Path, progress: Progress) -> JobResult:
        raise error

    terminal.job(fail)
    code, out, err = terminal.run("--json")
    assert (code, out) == (exit_code, "")
    told = json.loads(err.splitlines()[-1])
    expected = {OSError: "storage_failed", KeyError: "internal"}
    assert told["code"] == expected.get(type(error), getattr(error, "code", None))
    assert set(told) == {"code", "detail"} and told["detail"]


def test_json_tells_the_code_of_bad_options(terminal: Terminal) -> None:
    code, _, err = terminal.run("--json", seed="-1")
    assert (code, json.loads(err)["code"]) == (2, "invalid")


def test_a_missing_option_is_bad_input(terminal: Terminal) -> None:
    code, out, err = terminal("run", "--dataset", "digits")
    assert (code, out) == (2, "")
    assert one_sentence(err)
    assert "Missing option '--budget'" in err
    assert "See 'inn-automl run --help'" in err


def test_an_unknown_command_is_bad_input(terminal: Terminal) -> None:
    code, _, err = terminal("rum")
    assert code == 2
    assert one_sentence(err)
    assert "'rum'" in err


def test_no_command_shows_the_help(terminal: Terminal) -> None:
    code, _, err = terminal()
    assert code == 2
    assert "Commands:" in err


def test_input_that_the_pipeline_refuses(terminal: Terminal) -> None:
    def refuse(spec: JobSpec, out: Path, progress: Progress) -> JobResult:
        raise DatasetTooSmallError("class 'cat' has 2 samples and the splits need 3: add some.")

    terminal.job(refuse)
    code, _, err = terminal.run()
    assert code == 2
    assert (
        after_progress(err)
        == "inn-automl: class 'cat' has 2 samples and the splits need 3: add some.\n"
    )
    assert not Path("out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_says_that_it_resumes(
    terminal: Terminal, number: signal.Signals
) -> None:
    def job(spec: JobSpec, out: Path, progress: Progress) -> JobResult:
        progress.stage("training")
        out.mkdir()
        (out / "checkpoint").write_text("kept", encoding="utf-8")
        os.kill(os.getpid(), number)
        signal.pause()
        raise AssertionError("not interrupted")

    terminal.job(job)
    before = signal.getsignal(signal.SIGTERM)
    code, out, err = terminal.run()
    assert (code, out) == (130, "")
    assert after_progress(err) == (
        "inn-automl: interrupted. What was done so far is kept, and the same command resumes.\n"
    )
    assert Path("out/checkpoint").read_text(encoding="utf-8") == "kept"
    assert FakeBackend.made[0].closed
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TrainingError("training diverged at epoch 3."), "training diverged at epoch 3."),
        (BackendError("the last worker died."), f"the last worker died. {endings.KEPT}"),
        (StorageError("no room for 'a'."), f"no room for 'a'. {endings.KEPT}"),
        (
            OSError(errno.ENOSPC, "No space"),
            f"the disk that holds 'out' is full: free some space. {endings.KEPT}",
        ),
        (
            ModuleNotFoundError("No module named 'ray.tune'", name="ray.tune"),
            "ray is not installed: pip install 'inn-automl[worker]' brings it.",
        ),
    ],
)
def test_a_failure_is_one_sentence(terminal: Terminal, error: Exception, told: str) -> None:
    def fail(spec: JobSpec, out: Path, progress: Progress) -> JobResult:
        raise error

    terminal.job(fail)
    code, out, err = terminal.run()
    assert (code, out) == (1, "")
    assert after_progress(err) == f"inn-automl: {told}\n"
    assert not Path("out/error.log").exists()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("two\nlines"),
        KeyError(),
        ModuleNotFoundError("No module", name="inn_automl.gone"),
    ],
)
def test_the_unforeseen_leaves_a_traceback(terminal: Terminal, error: Exception) -> None:
    def fail(spec: JobSpec, out: Path, progress: Progress) -> JobResult:
        raise error

    terminal.job(fail)
    code, out, err = terminal.run()
    assert (code, out) == (1, "")
    assert one_sentence(after_progress(err))
    assert f"{type(error).__name__}: " in err
    assert f"the traceback is in {Path('out/error.log')}." in err
    log = Path("out/error.log").read_text(encoding="utf-8")
    assert log.startswith("Traceback")
    assert "raise error" in log


def test_without_room_for_the_traceback_it_is_shown(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spec: JobSpec, out: Path, progress: Progress) -> JobResult:
        raise RuntimeError("odd")

    def full(path: Path, data: bytes) -> None:
        raise StorageError("no room.")

    terminal.job(fail)
    monkeypatch.setattr(endings, "write_atomically", full)
    code, _, err = terminal.run()
    assert code == 1
    assert "Traceback" in err
    assert err.endswith(
        "inn-automl: this should not happen: RuntimeError: odd; the traceback is above.\n"
    )


def test_a_command_that_fails_outside_of_a_job_leaves_a_traceback(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("tempfile.tempdir", str(terminal.folder))
    monkeypatch.setitem(sys.modules, "greeter", types.SimpleNamespace(broken=broken))
    terminal.register({"inn_automl.cli.commands": {"broken": "greeter:broken"}})
    code, _, err = terminal("broken")
    log = terminal.folder / "inn-automl-error.log"
    assert code == 1
    assert (
        err
        == f"inn-automl: this should not happen: ZeroDivisionError: by zero; the traceback is in "
        f"{log}.\n"
    )
    assert "ZeroDivisionError" in log.read_text(encoding="utf-8")


def test_the_installed_program_refuses_bad_input(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("inn-automl")
    arguments = [
        "run",
        "--dataset",
        "digits",
        "--budget",
        str(tmp_path / "none.yaml"),
        "--out",
        str(tmp_path / "out"),
    ]
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert one_sentence(ended.stderr)
