"""`inn-automl up` and `inn-automl down`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import click

from inn_automl.core.errors import BackendError, InputError
from inn_automl.core.storage import write_json
from inn_automl_services.standalone import processes
from inn_automl_services.standalone.process_specs import (
    LOOPBACK,
    Ports,
    free_port,
    make_process_specs,
)
from inn_automl_services.standalone.state_dir import StateDir
from inn_automl_services.standalone.supervisor import Supervisor, absolute, prepare

DETACH_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.1

HOME = click.option(
    "--home",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("~/.inn_automl"),
    envvar="INN_AUTOML_HOME",
    help="Folder that holds everything.",
)


@click.command()
@HOME
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Of the API; 0 for a free one.  [default: 8080, or free]",
)
@click.option("--detach", is_flag=True, help="Return when everything is ready; `down` stops it.")
@click.option(
    "--cpus", type=click.IntRange(1), help="Processors that jobs may use.  [default: all]"
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    help="At a time: others would disturb a measurement.",
)
def up(home: Path, port: int | None, detach: bool, cpus: int | None, jobs: int) -> None:
    """Run the whole service on this machine, until Ctrl-C.

    Jobs that ran when it was stopped continue.
    """
    state_dir = StateDir(absolute(home))
    state_dir.make()
    if port and free_port(port) != port:
        raise InputError(
            f"port {port} on {LOOPBACK} is taken: give another --port, or 0 for a free one."
        )
    if detach:
        numbers = {"port": port, "cpus": cpus, "jobs": jobs}
        _detach(
            state_dir, [f"--{name}={value}" for name, value in numbers.items() if value is not None]
        )
        return
    stopping = _Stopping()
    with state_dir.held():
        processes.end(state_dir.folder)  # what a supervisor that was killed left behind
        state_dir.address.unlink(missing_ok=True)
        state_dir.clean()
        prepare(state_dir)
        secrets = state_dir.read_secrets()
        if secrets is None:
            raise BackendError(
                f"{str(state_dir.secrets)!r} is damaged: delete it to have new keys made."
            )
        ports = Ports.choose(port)
        specs = make_process_specs(
            state_dir, secrets, ports, cpus=cpus or os.cpu_count() or 1, max_running_jobs=jobs
        )
        supervisor = Supervisor(state_dir, specs, log=_log, is_stopping=stopping)
        try:
            supervisor.start()
            if not stopping():
                _announce(state_dir, ports)
            supervisor.run()
        finally:
            _log("stopping")
            supervisor.stop()


@click.command()
@HOME
def down(home: Path) -> None:
    """Stop a stack and wait until it has ended. Jobs continue at the next start."""
    state_dir = StateDir(absolute(home))
    supervisor = state_dir.supervisor()
    if supervisor is None:
        left = processes.find(state_dir.folder)
        processes.end(state_dir.folder)
        state_dir.address.unlink(missing_ok=True)
        state_dir.processes.unlink(missing_ok=True)
        click.echo(
            f"ended {len(left)} processes of a stack whose supervisor was gone"
            if left
            else "nothing was running"
        )
        return
    os.kill(supervisor, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while state_dir.supervisor() == supervisor:
        if time.monotonic() > deadline_s:
            raise BackendError(
                f"the stack, process {supervisor}, did not end in {STOP_TIMEOUT_S:g} s: see "
                f"{state_dir.log('supervisor')}."
            )
        time.sleep(POLL_S)
    click.echo("stopped")


class _Stopping:
    """Flag that Ctrl-C and SIGTERM set, and do nothing else, once it is made."""

    def __init__(self) -> None:
        self._requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def __call__(self) -> bool:
        return self._requested

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True


def _detach(state_dir: StateDir, options: list[str]) -> None:
    """Starts the same command without --detach in a session of its own, and waits until it is
    ready.

    Raises:
        InputError: a stack of the folder runs already.
        BackendError: it did not come up; the message is its own.
    """
    if (running := state_dir.supervisor()) is not None:
        with state_dir.held():
            raise BackendError(
                f"process {running} gave up {str(state_dir.folder)!r} just now: try again."
            )
    command = [sys.executable, "-m", "inn_automl", "up", f"--home={state_dir.folder}", *options]
    log_file = state_dir.log("supervisor")
    state_dir.address.unlink(missing_ok=True)
    with log_file.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=state_dir.folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline_s = time.monotonic() + DETACH_TIMEOUT_S
    while not state_dir.address.exists():
        if process.poll() is not None:
            raise BackendError(
                log_file.read_text(errors="replace").partition("\ninn-automl: ")[2].strip()
                or f"the stack ended: see {log_file}."
            )
        if time.monotonic() > deadline_s:
            process.terminate()
            process.wait()
            raise BackendError(
                f"the stack was not ready within {DETACH_TIMEOUT_S:g} s: see {log_file.parent}."
            )
        time.sleep(POLL_S)
    click.echo(log_file.read_text(errors="replace").rstrip())


def _announce(state_dir: StateDir, ports: Ports) -> None:
    _log(f"API     {ports.coordinator_url}/docs")
    _log(f"MLflow  {ports.mlflow_url}")
    _log(f"key     in {state_dir.secrets}; commands find it by --home {state_dir.folder}")
    _log("ready")
    addresses = {
        "url": ports.coordinator_url,
        "mlflow_url": ports.mlflow_url,
        "ray_url": ports.ray_url,
    }
    write_json(state_dir.address, addresses)


def _log(line: str) -> None:
    click.echo(line)
