"""The command as a user meets it, over a pipeline that is replaced: what it is asked, what it
prints, how it ends.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import click
import pytest

from inn_automl.cli import endings, plugins
from inn_automl.cli.main import main
from inn_automl.core.errors import BackendError, DatasetTooSmallError, StorageError, TrainingError
from inn_automl.core.progress import Progress
from inn_automl.core.result import (
    CostModelErrors,
    DeviceResult,
    FrontPoint,
    JobResult,
    LatencySummary,
)
from inn_automl.core.spec import JobSpec
from inn_automl.core.version import __version__
from inn_automl.latency.store import MeasurementCache

BUDGET = "devices: [{name: laptop, max_latency_ms: 2.0}]\ntraining: {cpus: 2, gpus: 1}\n"


def point(
    identifier: str, latency_ms: float, accuracy: float, percentile: float = 95.0
) -> FrontPoint:
    return FrontPoint(
        id=identifier,
        widths={"conv1": 8},
        metric_value=accuracy,
        test_metric_value=accuracy - 0.01,
        test_metric_value_ci=(accuracy - 0.02, accuracy),
        latency_ms=LatencySummary(
            p50=0.9 * latency_ms,
            p95=latency_ms,
            p99=1.5 * latency_ms,
            ci=(0.95 * latency_ms, 1.05 * latency_ms),
            percentile=percentile,
            at_percentile=latency_ms,
            num_samples=1000,
        ),
        params=45_300,
        macs=1_230_000,
        size_bytes=181_000,
        bundle=f"bundles/{identifier}.zip",
    )


def result(front: list[FrontPoint], recommended: str | None, sentence: str) -> JobResult:
    device = DeviceResult(
        name="laptop",
        recommended=recommended,
        recommendation=sentence,
        cost_model_errors=CostModelErrors(
            median_relative=0.03, p90_relative=0.07, spearman=0.99, num_fitted=30, num_held_out=8
        ),
        hypervolume=[1.0],
        reference_point=(3.0, 0.1),
        search_stopped="its budget of 200 evaluations",
        environment={},
        budget={
            "name": "laptop",
            "runtime": "onnxruntime-cpu",
            "threads": 1,
            "max_latency_ms": 2.0,
        },
        front=front,
    )
    return JobResult(job={}, devices=[device])


RESULT = result(
    [point("p0", 0.4, 0.91), point("p1", 1.6, 0.97)], "p1", "p1 is the most accurate within 2 ms."
)


class FakeBackend:
    made: list[FakeBackend]

    def __init__(self, **arguments: Any) -> None:
        self.arguments, self.closed = arguments, False
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
        FakeBackend.made.append(self)

    def close(self) -> None:
        self.closed = True


Job = Callable[[JobSpec, Path, Progress], JobResult]


class Terminal:
    """Runs the command with a job of the test's in the pipeline's place."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys
        self.jobs: list[JobSpec] = []
        self.weights: Path | None = None
        (folder / "budget.yaml").write_text(BUDGET, encoding="utf-8")
        monkeypatch.chdir(folder)
        FakeBackend.made = []
        groups = {"inn_automl.backends": {"ray": "made:RayBackend", "local": "made:FakeBackend"}}
        monkeypatch.setitem(
            sys.modules,
            "made",
            types.SimpleNamespace(FakeBackend=FakeBackend, RayBackend=FakeBackend),
        )
        self.register(groups)
        self.job(lambda spec, out, progress: RESULT)

    def register(self, groups: dict[str, dict[str, str]]) -> None:
        all_points = EntryPoints(
            EntryPoint(name, value, group)
            for group, names in groups.items()
            for name, value in names.items()
        )
        self._monkeypatch.setattr(plugins, "entry_points", all_points.select)

    def job(self, job: Job) -> None:
        def run_job(
            spec: JobSpec,
            out: Path,
            *,
            backend: FakeBackend,
            progress: Progress,
            measurement_cache: MeasurementCache,
            weights: Path | None,
        ) -> JobResult:
            assert not backend.closed and isinstance(measurement_cache, MeasurementCache)
            self.jobs.append(spec)
            self.weights = weights
            return job(spec, out, progress)

        self._monkeypatch.setitem(
            sys.modules, "inn_automl.pipeline.run", types.SimpleNamespace(run_job=run_job)
        )

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = self._capsys.readouterr()
        code = ended.value.code
        return (0 if code is None else int(code)), printed.out, printed.err

    def run(self, *more: str, **changes: str) -> tuple[int, str, str]:
        options = {"dataset": "digits", "budget": "budget.yaml", "out": "out", **changes}
        return self(
            "run", *(part for key, value in options.items() for part in (f"--{key}", value)), *more
        )


@pytest.fixture
def terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


def one_sentence(text: str) -> bool:
    return text.startswith("inn-automl: ") and text.count("\n") == 1 and text.endswith(".\n")


def after_progress(text: str) -> str:
    """What was said after the progress display had ended."""
    lines = text.splitlines(keepends=True)
    return "".join(
        lines[next(i for i, line in enumerate(lines) if line.startswith("inn-automl: ")) :]
    )


def test_the_options_reach_the_pipeline(terminal: Terminal) -> None:
    code, _, _ = terminal.run(
        "--model", "resnet", "--seed", "7", "--address", "10.0.0.1:6379", "--weights", "w.st"
    )
    assert code == 0
    (spec,) = terminal.jobs
    assert (spec.dataset, spec.model, spec.seed) == ("digits", "resnet", 7)
    assert terminal.weights == Path("w.st")
    assert spec.budget.devices[0].max_latency_ms == 2.0
    (backend,) = FakeBackend.made
    assert backend.arguments == {"cpus": 2, "gpus": 1, "address": "10.0.0.1:6379"}
    assert backend.closed


def test_the_backend_is_freed_whatever_happens(terminal: Terminal) -> None:
    def fail(spec: JobSpec, out: Path, progress: Progress) -> JobResult:
        raise TrainingError("training diverged.")

    terminal.job(fail)
    assert terminal.run()[0] == 1
    assert FakeBackend.made[0].closed


def test_json_ends_with_the_path_of_the_result(terminal: Terminal) -> None:
    def job(spec: JobSpec, out: Path, progress: Progress) -> JobResult:
        progress.stage("training")
        progress.note("a note")
        return RESULT

    terminal.job(job)
    code, out, err = terminal.run("--json")
    assert (code, out) == (0, f"{Path('out') / 'result.json'}\n")
    assert "training" in err
    assert "a note" in err


def test_a_finished_job_shows_its_fronts(terminal: Terminal) -> None:
    code, out, _ = terminal.run()
    assert code == 0
    (row,) = [line for line in out.splitlines() if line.startswith("*   p1 ")]
    for cell in (
        "97.00",
        "96.00 (95.0-97.0)",
        "1.44",
        "1.6 (1.52-1.68)",
        "45.3 k",
        "1.23 M",
        "181 kB",
    ):
        assert cell in row
    (other,) = [line for line in out.splitlines() if " p0 " in line]
    assert "*" not in other
    assert "laptop (onnxruntime-cpu, 1 thread, p95 at most 2 ms)" in out
    assert "p1 is the most accurate within 2 ms." in out
    assert f"Its bundle: {Path('out/bundles/p1.zip')}" in out
    assert "inn-automl browse" in out


def test_a_bound_on_another_percentile_has_its_column(terminal: Terminal) -> None:
    terminal.job(
        lambda spec, out, progress: result(
            [point("p0", 0.4, 0.9, percentile=99.0)], None, "None does."
        )
    )
    _, out, _ = terminal.run()
    assert all(f"p{percentile} ms" in out for percentile in (50, 95, 99))
    assert "None does." in out
    assert "recommended" not in out


def test_a_front_without_points_is_shown_as_such(terminal: Terminal) -> None:
    terminal.job(lambda spec, out, progress: result([], None, "No model meets the bounds."))
    code, out, _ = terminal.run()
    assert code == 0
    assert "No model meets the bounds." in out
    assert "bundle" not in out.lower()


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


def test_version(terminal: Terminal) -> None:
    assert terminal("version") == (0, f"{__version__}\n", "")
    assert __version__ in terminal("--version")[1]


def test_browse_serves_the_store_it_is_given(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    server = types.SimpleNamespace(browse=lambda **arguments: calls.append(arguments))
    monkeypatch.setitem(sys.modules, "inn_automl.reporting.server", server)
    assert terminal("browse", "--home", "store", "--port", "5001")[0] == 0
    assert terminal("browse")[0] == 0
    assert calls == [{"home": Path("store"), "port": 5001}, {"home": None, "port": None}]


def test_installed_packages_add_commands(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    @click.argument("name")
    def greet(name: str) -> None:
        """Say hello."""
        click.echo(f"hello {name}")

    monkeypatch.setitem(sys.modules, "greeter", types.SimpleNamespace(greet=greet))
    terminal.register({"inn_automl.cli.commands": {"greet": "greeter:greet"}})
    assert "Say hello." in terminal("--help")[1]
    assert terminal("greet", "you") == (0, "hello you\n", "")


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
