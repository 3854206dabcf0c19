"""The commands over the service, with a client in the server's place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from inn_automl.api.jobs import Job, JobEvent
from inn_automl.cli import main as cli
from inn_automl.cli.results import parse_widths
from inn_automl.client import Client
from inn_automl.core.errors import InputError
from inn_automl.core.spec import JobSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(state: str = "succeeded", **more: Any) -> Job:
    return Job.model_validate(
        {
            "id": "job_1",
            "name": None,
            "kind": "search",
            "parent_id": None,
            "state": state,
            "priority": 0,
            "spec": {"dataset": "digits", "budget": {"devices": [{"name": "laptop"}]}},
            "progress": None,
            "cost": {},
            "error": None,
            "attempt": 1,
            "max_attempts": 5,
            "notes": [],
            "created_at": NOW,
            "started_at": None,
            "finished_at": None,
            **more,
        }
    )


class Terminal:
    """Runs commands; `calls` has what the client was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.job, self.events = (
            job(),
            [JobEvent(id=1, kind="state", data={"state": "training"}, at=NOW)],
        )
        self._capsys = capsys
        monkeypatch.setenv("INN_AUTOML_URL", "http://server")
        monkeypatch.setenv("INN_AUTOML_KEY", "inn_key")
        monkeypatch.setattr(Client, "submit", self._submit)
        monkeypatch.setattr(Client, "watch", self._watch)
        monkeypatch.setattr(Client, "job", lambda client, job_id: self.job)
        monkeypatch.setattr(Client, "upload_dataset", self._upload)

    def _submit(self, spec: JobSpec, **more: Any) -> Job:
        self.calls.append(("submit", (spec.dataset, more)))
        return self.job

    def _watch(self, job_id: str, **more: Any) -> Iterator[JobEvent]:
        self.calls.append(("watch", job_id))
        yield from self.events

    def _upload(self, path: Path, **more: Any) -> Any:
        self.calls.append(("upload", path))
        return type("Uploaded", (), {"name": "uploaded"})

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        printed = self._capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    monkeypatch.chdir(tmp_path)
    Path("budget.yaml").write_text("devices: [{name: laptop}]", encoding="utf-8")
    return Terminal(monkeypatch, capsys)


def test_submit_prints_exactly_the_id(terminal: Terminal) -> None:
    code, out, _ = terminal(
        "submit", "--dataset", "digits", "--budget", "budget.yaml", "--priority", "3", "--json"
    )
    assert (code, json.loads(out)) == (0, {"job_id": "job_1"})
    assert terminal.calls == [("submit", ("digits", {"name": None, "priority": 3}))]


def test_a_path_is_uploaded_first(terminal: Terminal) -> None:
    Path("cats.npz").write_bytes(b"content")
    assert terminal("submit", "--dataset", "cats.npz", "--budget", "budget.yaml", "--watch")[0] == 0
    assert [name for name, _ in terminal.calls] == ["upload", "submit", "watch"]
    assert terminal.calls[1][1][0] == "uploaded"


def test_bad_budgets_reach_no_server(terminal: Terminal) -> None:
    code, out, err = terminal("submit", "--dataset", "digits", "--budget", "none.yaml")
    assert (code, out) == (2, "")
    assert "there is no budget file" in err
    assert not terminal.calls


def test_watch_shows_stages_and_prints_events(terminal: Terminal) -> None:
    code, out, err = terminal("watch", "job_1", "--json")
    assert code == 0
    assert json.loads(out)["data"] == {"state": "training"}
    assert "training" in err


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (
            job("failed", error={"code": "training_failed", "detail": "it diverged."}),
            "job job_1 failed: it diverged.",
        ),
        (job("cancelled"), "job job_1 is cancelled: `inn-automl retry job_1` continues it."),
    ],
)
def test_watch_fails_with_the_jobs_error(terminal: Terminal, ended: Job, told: str) -> None:
    terminal.job = ended
    code, _, err = terminal("watch", "job_1")
    assert code == 1
    assert err.endswith(f"inn-automl: {told}\n")


def test_widths_are_read(terminal: Terminal) -> None:
    assert parse_widths("a=8, b.c=16") == {"a": 8, "b.c": 16}
    for text in ("", "a", "a=0", "a=-1", "a=x", "=3", "a=1,a=2", "a=²"):
        with pytest.raises(InputError, match="a=8,b=16"):
            parse_widths(text)


def test_discretize_wants_one_of_both(terminal: Terminal) -> None:
    code, _, err = terminal("discretize", "job_1", "-o", "model.zip")
    assert code == 2
    assert "Give either --ratio or --widths." in err


def test_elastic_is_one_file_of_a_job(terminal: Terminal) -> None:
    for more, told in (
        ("--inn", "Give either --inn or --elastic."),
        ("--device=a", "--elastic is one for all devices"),
    ):
        code, _, err = terminal("download", "job_1", "--elastic", more, "-o", "elastic.zip")
        assert code == 2
        assert told in err
    assert not terminal.calls


def test_no_server_says_how_to_start_one(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INN_AUTOML_URL")
    code, _, err = terminal("jobs")
    assert code == 2
    assert "inn-automl up --detach" in err


def test_lists_the_runtimes_of_this_machine_without_a_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("INN_AUTOML_URL", raising=False)
    found = {"onnxruntime-cpu": "1.32.0"}, {"openvino": "`pip install openvino` adds it."}
    monkeypatch.setattr("inn_automl.runtimes.probe", lambda: found)
    with pytest.raises(SystemExit) as ended:
        cli.main(["agent", "--list-runtimes"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["onnxruntime-cpu", "1.32.0"]
    assert lines[-1] == "openvino: `pip install openvino` adds it."
