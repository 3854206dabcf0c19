"""The embedded stack as its user meets it: real processes, which tests kill."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from inn_automl.api.jobs import Job
from inn_automl.client import Client, find_server

PROGRAM = Path(sys.executable).with_name("inn-automl")
WAIT_S = 120.0


class Stack:
    """A home folder, and commands about it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("INN_AUTOML_")
        }

    def __call__(self, command: str, *arguments: str, code: int = 0) -> str:
        """Standard output of a command that must end with `code`; its standard error for another
        code than 0.
        """
        ended = subprocess.run(
            [PROGRAM, command, *arguments, "--home", self.home],
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * WAIT_S,
            env=self.environment,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr + self.logs()
        return ended.stdout if code == 0 else ended.stderr

    def start(self) -> None:
        assert self("up", "--port", "0", "--detach").rstrip().endswith("ready")

    def client(self) -> Client:
        return Client.at(find_server(self.home))

    def processes(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(
            (self.home / "processes.json").read_text(encoding="utf-8")
        )
        return found

    def logs(self) -> str:
        ends = {
            path.name: path.read_text(errors="replace")[-1500:]
            for path in (self.home / "logs").glob("*.log")
        }
        return "".join(f"\n--- {name}\n{end}" for name, end in ends.items())

    def left(self) -> list[str]:
        """Command lines of processes that belong to the stack."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                is_ours = (
                    process.environ().get("INN_AUTOML_STACK") == str(self.home)
                    or str(self.home) in line
                )
                if is_ours and process.pid != os.getpid():
                    found.append(line)
        return found

    def reach(self, job_id: str, *stages: str) -> Job:
        """Waits until the job is in one of the stages.

        An unreachable coordinator is waited for; that one was killed is what these tests are
        about.
        """
        with self.client() as client:
            found: list[Job] = []

            def is_there() -> bool:
                found.append(client.job(job_id))
                job = found[-1]
                assert job.state not in ("failed", "cancelled"), (
                    f"{job.error}\n{client.logs(job_id).decode()[-3000:]}"
                )
                return job.progress is not None and job.progress.stage in stages

            eventually(is_there, f"{job_id} reaches no {' or '.join(stages)}")
            return found[-1]

    def run_of(self, job_id: str) -> psutil.Process:
        """The process of the worker that runs the job."""
        found: list[psutil.Process] = []

        def is_there() -> bool:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    words = process.cmdline()
                    if (
                        "inn_automl_workers.run_job" in words
                        and process.environ().get("INN_AUTOML_JOB_ID") == job_id
                    ):
                        found.append(process)
            return bool(found)

        eventually(is_there, f"nothing runs {job_id}")
        return found[-1]


def eventually(condition: Callable[[], bool], what: str, limit_s: float = WAIT_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.2)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack((tmp_path / "home").resolve())
    yield stack
    stack("down")
    assert not stack.left()
