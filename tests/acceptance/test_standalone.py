"""The embedded stack as its user meets it: real processes, killed one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PROGRAM = Path(sys.executable).with_name("inn-automl")
BUDGET = """\
devices: [{name: here}]
training: {max_minutes: 0.3, max_epochs: 3, cpus: 1, trials: 1}
search: {max_evaluations: 8, batch_size: 4}
"""
WAIT_S = 90.0


class Stack:
    """A home folder, and commands about it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, command: str, *arguments: str, code: int = 0) -> str:
        """Standard output of a command that must end with `code`."""
        ended = subprocess.run(
            [PROGRAM, command, *arguments, "--home", self.home],
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * WAIT_S,
            env=self.environment(),
        )
        assert ended.returncode == code, ended.stdout + ended.stderr + self.logs()
        return ended.stdout if code == 0 else ended.stderr

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("INN_AUTOML_")}

    def processes(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.home / "processes.json").read_text(encoding="utf-8"))
        return found

    def logs(self) -> str:
        ends = {path.name: path.read_text(errors="replace")[-1500:] for path in (self.home / "logs").glob("*.log")}
        return "".join(f"\n--- {name}\n{end}" for name, end in ends.items())

    def left(self) -> list[str]:
        """Command lines of processes that belong to the stack."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                is_ours = process.environ().get("INN_AUTOML_STACK") == str(self.home) or str(self.home) in line
                if is_ours and process.pid != os.getpid():
                    found.append(line)
        return found


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.2)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack((tmp_path / "home").resolve())
    yield stack
    stack("down")
    assert not stack.left()


@pytest.mark.slow
def test_a_job_survives_the_death_of_every_part(stack: Stack, tmp_path: Path) -> None:
    assert stack("up", "--port", "0", "--cpus", "1", "--detach").rstrip().endswith("ready")
    assert (stack.home / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert "runs already" in stack("up", "--port", "0", code=2)
    budget = tmp_path / "budget.yaml"
    budget.write_text(BUDGET, encoding="utf-8")
    job = json.loads(stack("submit", "--dataset", "digits", "--budget", str(budget), "--json"))["job_id"]
    for part in ("agent", "mlflow", "coordinator"):
        before = stack.processes()
        os.kill(before[part], signal.SIGKILL)
        eventually(lambda: stack.processes().get(part, before[part]) != before[part], f"{part} stays dead")  # noqa: B023
    stack("watch", job)
    assert [listed["state"] for listed in json.loads(stack("jobs", "--json"))] == ["succeeded"]
    (front,) = json.loads(stack("front", job, "--json"))["devices"]
    point = front["recommended"] or front["front"][0]["id"]
    stack("download", job, "--device", "here", "--point", point, "-o", str(tmp_path / "model.zip"))
    with zipfile.ZipFile(tmp_path / "model.zip") as bundle:
        assert bundle.testzip() is None
        assert "model.onnx" in bundle.namelist()
    assert [device["name"] for device in json.loads(stack("devices", "--json"))] == ["local"]


@pytest.mark.slow
def test_what_a_killed_supervisor_left_behind_is_ended(stack: Stack) -> None:
    stack("up", "--port", "0", "--cpus", "1", "--detach")
    before = stack.processes()
    os.kill(before["supervisor"], signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(before["supervisor"]) or is_zombie(before["supervisor"]), "still there")
    assert stack.left()
    stack("up", "--port", "0", "--cpus", "1", "--detach")
    after = stack.processes()
    assert not set(before.values()) & set(after.values())
    assert not [pid for pid in before.values() if psutil.pid_exists(pid) and not is_zombie(pid)]


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
