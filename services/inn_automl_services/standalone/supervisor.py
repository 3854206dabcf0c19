"""Starts the parts of a stack, starts those anew that died, and ends all of them."""

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

STEP_S = 0.25
READY_LIMIT_S = 120.0
FIRST_DELAY_S, MAX_DELAY_S = 1.0, 30.0
STEADY_S = 60.0
"""A part that ran for this long is started again after the first delay, however often it died
before.
"""
EARLY_DEATHS = 3
"""A part that died this often before it was ever ready does not come up by itself."""
LAST_LINES = 8
FORGOTTEN = ("INN_AUTOML_URL", "INN_AUTOML_KEY", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
"""Variables that would lead a part to another stack."""

Log = Callable[[str], None]


class Supervised:
    """One part and its process."""

    def __init__(self, part: ProcessSpec, home: StateDir) -> None:
        self.spec, self._home = part, home
        self.process: subprocess.Popen[bytes] | None = None
        self.num_deaths = 0
        self._started_s = 0.0
        self._start_at_s = 0.0
        self._delay_s = FIRST_DELAY_S

    def start(self) -> None:
        """Starts the process, in a session of its own: Ctrl-C in a terminal reaches the supervisor
        alone.
        """
        inherited = {name: value for name, value in os.environ.items() if name not in FORGOTTEN}
        own = {"INN_AUTOML_HOME": str(self._home.folder), "PYTHONUNBUFFERED": "1"}
        marks = processes.marks(self._home.folder, self.spec.name)
        with self._log() as log:
            self.process = subprocess.Popen(
                self.spec.command,
                cwd=self._home.folder,
                env=inherited | own | dict(self.spec.environment) | marks,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started_s = time.monotonic()

    def look(self) -> str | None:
        """Starts the part again where it is due; says what happened, if anything did."""
        now_s = time.monotonic()
        if self.process is None:
            if now_s >= self._start_at_s:
                self.start()
                return f"{self.spec.name}: started again"
            return None
        code = self.process.poll()
        if code is None:
            return None
        self.process = None
        self.num_deaths += 1
        # what it left behind holds its ports
        processes.end(self._home.folder, self.spec.name, grace_s=0.0)
        if now_s - self._started_s > STEADY_S:
            self._delay_s = FIRST_DELAY_S
        self._start_at_s = now_s + self._delay_s
        said = f"{self.spec.name}: ended with code {code}, starts again in {self._delay_s:g} s"
        self._delay_s = min(MAX_DELAY_S, 2 * self._delay_s)
        return said

    def stop(self) -> None:
        first = (self.process.pid,) if self.process else ()
        processes.end(self._home.folder, self.spec.name, first=first, grace_s=self.spec.grace_s)
        if self.process:
            self.process.wait()

    def last_words(self) -> str:
        try:
            lines = self._home.log(self.spec.name).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(lines[-LAST_LINES:]) or "(it said nothing)"

    def _log(self) -> IO[bytes]:
        return self._home.log(self.spec.name).open("ab")


class Supervisor:
    """The parts of one home.

    Args:
        say: is told, in a line, of each thing that happens.
        is_stopping: whether the stack is to end.
    """

    def __init__(
        self,
        home: StateDir,
        parts: Sequence[ProcessSpec],
        *,
        say: Log,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._home, self._log_line, self._is_stopping = home, say, is_stopping
        self._supervised = [Supervised(part, home) for part in parts]

    def start(self) -> None:
        """Starts all parts and blocks until they are ready, or the stack is to end.

        Raises:
            BackendError: a part does not come up; the message has its log's last lines.
        """
        for supervised in self._supervised:
            supervised.start()
        self._write_processes()
        waiting = list(self._supervised)
        deadline_s = time.monotonic() + READY_LIMIT_S
        while waiting and not self._is_stopping():
            self._look()
            for supervised in waiting:
                late = time.monotonic() > deadline_s
                if late or supervised.num_deaths >= EARLY_DEATHS:
                    raise BackendError(
                        f"{supervised.spec.name} does not come up: see "
                        f"{self._home.log(supervised.spec.name)}, "
                        f"which ends with\n{supervised.last_words()}"
                    )
            waiting = [supervised for supervised in waiting if not supervised.spec.is_ready()]
            time.sleep(STEP_S)

    def run(self) -> None:
        """Keeps the parts running until the stack is to end."""
        while not self._is_stopping():
            self._look()
            time.sleep(STEP_S)

    def stop(self) -> None:
        """Ends all parts, those first that use the others."""
        for supervised in reversed(self._supervised):
            supervised.stop()
        processes.end(self._home.folder, grace_s=0.0)
        self._home.address.unlink(missing_ok=True)
        self._home.processes.unlink(missing_ok=True)

    def _look(self) -> None:
        for supervised in self._supervised:
            if said := supervised.look():
                self._log_line(said)
                self._write_processes()

    def _write_processes(self) -> None:
        running = {s.spec.name: s.process.pid for s in self._supervised if s.process}
        self._home.write_processes({**running, "supervisor": os.getpid()})


def prepare(home: StateDir) -> None:
    """Makes what a first start needs: the database's schema, keys, MLflow's store; each in a
    process that is gone afterwards, both at once.

    Raises:
        BackendError: one of them failed.
    """
    modules = ("inn_automl_services.standalone.bootstrap", "inn_automl.reporting.store")
    running: list[subprocess.Popen[str]] = []
    for module in modules:
        command = [sys.executable, "-m", module, str(home.folder)]
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    for module, process in zip(modules, running, strict=True):
        said, _ = process.communicate()
        if process.returncode:
            last = said.strip().splitlines()[-1:] or ["no message"]
            raise BackendError(f"{module} failed on {str(home.folder)!r}: {last[0]}")


def absolute(folder: Path) -> Path:
    return folder.expanduser().resolve()
