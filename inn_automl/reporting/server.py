"""MLflow's UI over the embedded store, in a child process that ends with its context manager."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

import httpx

from inn_automl.core.errors import InputError, StorageError
from inn_automl.reporting.runs import latest_fragment
from inn_automl.reporting.store import ENVIRONMENT, Store, locate, prepare

USUAL_PORT = 5000
START_FRAGMENT = "/#/experiments?workflowType=machine_learning"
START_LIMIT_S = 90.0
"""A cold start takes 5 to 10 s on an idle machine."""
STOP_LIMIT_S = 5.0

SERVER_ENVIRONMENT = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Without job execution the server starts in half the time and needs a quarter of the memory."""


def browse(
    *,
    home: Path | None = None,
    port: int | None = None,
    host: str = "127.0.0.1",
    open_link: Callable[[str], object] = print,
) -> None:
    """Serves MLflow's UI until Ctrl-C or SIGTERM; nothing that it started outlives it.

    Where `MLFLOW_TRACKING_URI` names a server (and `home` is not given), that server is not ours
    to run: its link is handed over, and the call returns.

    Args:
        home: folder of the embedded store; None for `store.locate`'s choice.
        port: None for 5000 or, where that is taken, a free one; 0 for a free one.
        host: where others are to reach the UI, `0.0.0.0`; MLflow then wants their names of this
            machine in `MLFLOW_SERVER_ALLOWED_HOSTS`.
        open_link: called once with the link that opens the fronts of the newest job, as soon as it
            works.

    Raises:
        InputError: the port is taken.
        StorageError: the store cannot be used, or the server does not start or stops by itself.
    """
    store = locate(home)
    if store.is_server:
        open_link(store.uri + (latest_fragment(store) or START_FRAGMENT))
        return
    with suppress(KeyboardInterrupt), _sigterm_interrupts(), ThreadPoolExecutor(1) as beside:
        prepare(store)
        # Takes as long as the server does to start.
        fragment = beside.submit(latest_fragment, store)
        with serve(store, host=host, port=port) as server:
            open_link(server.url + (fragment.result() or START_FRAGMENT))
            server.wait()


class MlflowServer:
    """A running UI."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.url = url
        self._process, self._log = process, log

    def wait(self) -> None:
        """Blocks while the server runs.

        Raises:
            StorageError: it stopped by itself.
        """
        code = self._process.wait()
        raise StorageError(f"MLflow's server stopped with code {code}: {self._last_words()}")

    def wait_until_ready(self, limit_s: float) -> None:
        """Blocks until the server answers.

        Raises:
            StorageError: it stopped, or does not answer within `limit_s` seconds.
        """
        deadline = time.monotonic() + limit_s
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    self.wait()
                with suppress(httpx.HTTPError):
                    if client.get(f"{self.url}/health").status_code == 200:
                        return
                time.sleep(0.1)
        raise StorageError(
            f"MLflow's server did not answer within {limit_s:g} s: {self._last_words()}"
        )

    def stop(self) -> None:
        """Ends the server with all the processes it started."""
        _signal_group(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT_S)
        _signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-5:]) or "it said nothing"


@contextmanager
def serve(
    store: Store, *, host: str = "127.0.0.1", port: int | None = None
) -> Iterator[MlflowServer]:
    """MLflow's UI over a store that is no server itself; stopped at the end, however that comes.

    Raises:
        InputError: the port is taken.
        StorageError: the store cannot be used, or the server does not start.
    """
    prepare(store)
    chosen = _choose_port(host, port)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    command += ["--host", host, "--port", str(chosen), "--workers", "1"]
    if store.artifacts:
        command += ["--artifacts-destination", str(store.artifacts)]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    with tempfile.TemporaryFile(prefix="inn_automl-mlflow-") as log:
        # A session of its own: Ctrl-C in the terminal reaches us alone, and one signal ends server
        # and workers.
        process = subprocess.Popen(
            command,
            env=environment | SERVER_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        server = MlflowServer(
            f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{chosen}",
            process,
            log,
        )
        try:
            server.wait_until_ready(START_LIMIT_S)
            yield server
        finally:
            server.stop()


def _choose_port(host: str, port: int | None) -> int:
    for candidate in (USUAL_PORT, 0) if port is None else (port,):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                reason = error.strerror
                continue
            return int(probe.getsockname()[1])
    raise InputError(
        f"port {port} on {host} cannot be used ({reason}): give another --port, or leave it out "
        f"for a free one."
    )


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Within it, SIGTERM ends the main thread as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
