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

DETACH_LIMIT_S = 180.0
STOP_LIMIT_S = 60.0
STEP_S = 0.1

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

    What was running when it was stopped goes on.
    """
    place = StateDir(absolute(home))
    place.make()
    if port and free_port(port) != port:
        raise InputError(
            f"port {port} on {LOOPBACK} is taken: give another --port, or 0 for a free one."
        )
    if detach:
        numbers = {"port": port, "cpus": cpus, "jobs": jobs}
        _detach(
            place, [f"--{name}={value}" for name, value in numbers.items() if value is not None]
        )
        return
    stopping = _Stopping()
    with place.held():
        processes.end(place.folder)  # what a supervisor that was killed left behind
        place.address.unlink(missing_ok=True)
        place.clean()
        prepare(place)
        secrets = place.read_secrets()
        if secrets is None:
            raise BackendError(
                f"{str(place.secrets)!r} is damaged: delete it to have new keys made."
            )
        ports = Ports.choose(port)
        parts = make_process_specs(
            place, secrets, ports, cpus=cpus or os.cpu_count() or 1, max_running_jobs=jobs
        )
        supervisor = Supervisor(place, parts, say=_say, is_stopping=stopping)
        try:
            supervisor.start()
            if not stopping():
                _announce(place, ports)
            supervisor.run()
        finally:
            _say("stopping")
            supervisor.stop()


@click.command()
@HOME
def down(home: Path) -> None:
    """Stop a stack and wait until it has ended. Jobs go on at the next start."""
    place = StateDir(absolute(home))
    supervisor = place.supervisor()
    if supervisor is None:
        left = processes.find(place.folder)
        processes.end(place.folder)
        place.address.unlink(missing_ok=True)
        place.processes.unlink(missing_ok=True)
        click.echo(
            f"ended {len(left)} processes of a stack whose supervisor was gone"
            if left
            else "nothing was running"
        )
        return
    os.kill(supervisor, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_LIMIT_S
    while place.supervisor() == supervisor:
        if time.monotonic() > deadline_s:
            raise BackendError(
                f"the stack, process {supervisor}, did not end in {STOP_LIMIT_S:g} s: see "
                f"{place.log('supervisor')}."
            )
        time.sleep(STEP_S)
    click.echo("stopped")


class _Stopping:
    """Whether a signal asked to end; from its making on, Ctrl-C and SIGTERM do nothing else."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def _detach(home: StateDir, options: list[str]) -> None:
    """Starts the same command without --detach in a session of its own, and waits until it is
    ready.

    Raises:
        InputError: a stack of the home runs already.
        BackendError: it did not come up; the message is its own.
    """
    if (running := home.supervisor()) is not None:
        with home.held():
            raise BackendError(
                f"process {running} gave up {str(home.folder)!r} just now: try again."
            )
    command = [sys.executable, "-m", "inn_automl", "up", f"--home={home.folder}", *options]
    log = home.log("supervisor")
    home.address.unlink(missing_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=home.folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline_s = time.monotonic() + DETACH_LIMIT_S
    while not home.address.exists():
        if process.poll() is not None:
            raise BackendError(
                log.read_text(errors="replace").partition("\ninn-automl: ")[2].strip()
                or f"the stack ended: see {log}."
            )
        if time.monotonic() > deadline_s:
            process.terminate()
            process.wait()
            raise BackendError(
                f"the stack was not ready within {DETACH_LIMIT_S:g} s: see {log.parent}."
            )
        time.sleep(STEP_S)
    click.echo(log.read_text(errors="replace").rstrip())


def _announce(home: StateDir, ports: Ports) -> None:
    _say(f"API     {ports.coordinator_url}/docs")
    _say(f"MLflow  {ports.mlflow_url}")
    _say(f"key     in {home.secrets}; commands find it by --home {home.folder}")
    _say("ready")
    addresses = {
        "url": ports.coordinator_url,
        "mlflow_url": ports.mlflow_url,
        "ray_url": ports.ray_url,
    }
    write_json(home.address, addresses)


def _say(line: str) -> None:
    click.echo(line)
