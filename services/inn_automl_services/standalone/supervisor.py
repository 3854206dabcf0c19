"""Starts the processes of a stack, restarts those that died, and ends all of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from inn_automl.core.errors import BackendError
from inn_automl_services.standalone import processes
from inn_automl_services.standalone.process_specs import ProcessSpec
from inn_automl_services.standalone.state_dir import StateDir

POLL_S = 0.25
READY_TIMEOUT_S = 120.0
FIRST_DELAY_S, MAX_DELAY_S = 1.0, 30.0
STEADY_S = 60.0
"""A process that ran for this long is restarted after the first delay, however often it died
before.
"""
MAX_EARLY_DEATHS = 3
"""A process that died this often before it was ever ready does not come up by itself."""
NUM_LAST_LINES = 8
DROPPED_VARIABLES = ("INN_AUTOML_URL", "INN_AUTOML_KEY", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
"""Variables that would lead a process to another stack."""


class SupervisedProcess:
    """One process of a stack, which is restarted when it dies."""

    def __init__(self, spec: ProcessSpec, state_dir: StateDir) -> None:
        self.spec, self._state_dir = spec, state_dir
        self.process: subprocess.Popen[bytes] | None = None
        self.num_deaths = 0
        self._started_s = 0.0
        self._start_at_s = 0.0
        self._delay_s = FIRST_DELAY_S

    def start(self) -> None:
        """Starts the process, in a session of its own: Ctrl-C in a terminal reaches the supervisor
        alone.
        """
        folder = self._state_dir.folder
        inherited = {
            name: value for name, value in os.environ.items() if name not in DROPPED_VARIABLES
        }
        own = {"INN_AUTOML_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
        marks = processes.marks(folder, self.spec.name)
        with self._log_file() as log:
            self.process = subprocess.Popen(
                self.spec.command,
                cwd=folder,
                env=inherited | own | dict(self.spec.environment) | marks,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started_s = time.monotonic()

    def poll(self) -> str | None:
        """Restarts the process where that is due; returns a line about a change, if any."""
        now_s = time.monotonic()
        if self.process is None:
            if now_s < self._start_at_s:
                return None
            self.start()
            return f"{self.spec.name}: restarted"
        code = self.process.poll()
        if code is None:
            return None
        self.process = None
        self.num_deaths += 1
        # Its children still hold its ports.
        processes.end(self._state_dir.folder, self.spec.name, timeout_s=0.0)
        if now_s - self._started_s > STEADY_S:
            self._delay_s = FIRST_DELAY_S
        self._start_at_s = now_s + self._delay_s
        line = f"{self.spec.name}: ended with code {code}, restarts in {self._delay_s:g} s"
        self._delay_s = min(MAX_DELAY_S, 2 * self._delay_s)
        return line

    def stop(self) -> None:
        """Ends the process and its children, and waits for it."""
        first = (self.process.pid,) if self.process else ()
        timeout_s = self.spec.shutdown_timeout_s
        processes.end(self._state_dir.folder, self.spec.name, first=first, timeout_s=timeout_s)
        if self.process:
            self.process.wait()

    def last_lines(self) -> str:
        """The end of the process's log."""
        try:
            lines = self._state_dir.log(self.spec.name).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(lines[-NUM_LAST_LINES:]) or "(nothing was printed)"

    def _log_file(self) -> IO[bytes]:
        return self._state_dir.log(self.spec.name).open("ab")


class Supervisor:
    """Runs the processes of one state folder.

    Args:
        log: called with a line for each event.
        is_stopping: whether the stack is to end.
    """

    def __init__(
        self,
        state_dir: StateDir,
        specs: Sequence[ProcessSpec],
        *,
        log: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._state_dir, self._log, self._is_stopping = state_dir, log, is_stopping
        self._processes = [SupervisedProcess(spec, state_dir) for spec in specs]

    def start(self) -> None:
        """Starts all processes and blocks until they are ready, or the stack is to end.

        Raises:
            BackendError: a process does not come up; the message has its log's last lines.
        """
        for process in self._processes:
            process.start()
        self._write_processes()
        waiting = list(self._processes)
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while waiting and not self._is_stopping():
            self._poll()
            for process in waiting:
                late = time.monotonic() > deadline_s
                if late or process.num_deaths >= MAX_EARLY_DEATHS:
                    raise BackendError(
                        f"{process.spec.name} does not come up: see "
                        f"{self._state_dir.log(process.spec.name)}, "
                        f"which ends with\n{process.last_lines()}"
                    )
            waiting = [process for process in waiting if not process.spec.is_ready()]
            time.sleep(POLL_S)

    def run(self) -> None:
        """Keeps the processes running until the stack is to end."""
        while not self._is_stopping():
            self._poll()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ends all processes; those that use others end first."""
        for process in reversed(self._processes):
            process.stop()
        processes.end(self._state_dir.folder, timeout_s=0.0)
        self._state_dir.address.unlink(missing_ok=True)
        self._state_dir.processes.unlink(missing_ok=True)

    def _poll(self) -> None:
        for process in self._processes:
            if line := process.poll():
                self._log(line)
                self._write_processes()

    def _write_processes(self) -> None:
        running = {p.spec.name: p.process.pid for p in self._processes if p.process}
        self._state_dir.write_processes({**running, "supervisor": os.getpid()})


def prepare(state_dir: StateDir) -> None:
    """Makes what a first start needs: the database's schema, keys, MLflow's store; each in a
    process that is gone afterwards, both at once.

    Raises:
        BackendError: one of them failed.
    """
    modules = ("inn_automl_services.standalone.bootstrap", "inn_automl.reporting.store")
    running: list[subprocess.Popen[str]] = []
    for module in modules:
        command = [sys.executable, "-m", module, str(state_dir.folder)]
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    for module, process in zip(modules, running, strict=True):
        output, _ = process.communicate()
        if process.returncode:
            last = output.strip().splitlines()[-1:] or ["no message"]
            raise BackendError(f"{module} failed on {str(state_dir.folder)!r}: {last[0]}")


def absolute(folder: Path) -> Path:
    """The folder with `~` and links resolved."""
    return folder.expanduser().resolve()
