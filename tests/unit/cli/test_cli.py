"""The command as a user meets it: what it is asked, what it prints."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import click
import pytest

from inn_automl.core.errors import TrainingError
from inn_automl.core.progress import Progress
from inn_automl.core.result import (
    JobResult,
)
from inn_automl.core.spec import JobSpec
from inn_automl.core.version import __version__
from tests.unit.cli.terminal import (
    RESULT,
    FakeBackend,
    Terminal,
    point,
    result,
)


def test_the_options_reach_the_pipeline(terminal: Terminal) -> None:
    code, _, _ = terminal.run(
        "--model", "resnet", "--seed", "7", "--address", "10.0.0.1:6379", "--weights", "w.st"
    )
    assert code == 0
    (spec,) = terminal.jobs
    assert (spec.dataset, spec.model, spec.seed) == ("digits", "resnet", 7)
    assert spec.weights == "w.st"
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
