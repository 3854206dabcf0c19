from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from inn_automl.core.errors import InputError, StorageError
from inn_automl.reporting import server
from inn_automl.reporting.store import Store, locate

REPOSITORY = Path(__file__).parents[3]


def test_a_taken_port_is_named_with_the_remedy(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(
                InputError, match=rf"port {port} on 127\.0\.0\.1 .*in use.*another --port"
            ),
            server.serve(store, port=port),
        ):
            pass


def test_without_a_port_a_free_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(server, "USUAL_PORT", taken.getsockname()[1])
        assert server._choose_port("127.0.0.1", None) not in (0, server.USUAL_PORT)


def test_a_tracking_server_is_only_linked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    monkeypatch.setattr(server, "latest_fragment", lambda store: f"/#/fronts-at-{store.uri}")
    links: list[str] = []
    server.browse(open_link=links.append)
    assert links == ["http://tracking:5000/#/fronts-at-http://tracking:5000"]


def test_a_server_that_does_not_start_says_why(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho starting; echo 'no room for a server' >&2; exit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with (
        pytest.raises(StorageError, match=r"stopped with code 3: .*no room for a server"),
        server.serve(store, port=0),
    ):
        pass


def test_a_server_that_hangs_is_ended_with_all_it_started(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python, pid_file = tmp_path / "python", tmp_path / "pid"
    python.write_text(
        f"#!/bin/sh\ntrap '' TERM\nsleep 600 & echo $! > {pid_file}\nwait; wait; sleep 600\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    monkeypatch.setattr(server, "START_LIMIT_S", 0.5)
    monkeypatch.setattr(server, "STOP_LIMIT_S", 0.2)
    with (
        pytest.raises(StorageError, match=r"did not answer within 0\.5 s"),
        server.serve(store, port=0),
    ):
        pass
    assert _is_gone(int(pid_file.read_text()), within_s=10.0)


def _is_gone(pid: int, *, within_s: float) -> bool:
    """Whether a process that was killed is not there any more; a busy machine takes its time to
    bury it.
    """
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


def test_ctrl_c_ends_browsing_as_it_should(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        url = "http://localhost:1"

        def wait(self) -> None:
            signal.raise_signal(signal.SIGINT)

    stopped: list[bool] = []

    @contextmanager
    def serve(*_: object, **__: object) -> Iterator[Interrupted]:
        try:
            yield Interrupted()
        finally:
            stopped.append(True)

    monkeypatch.setattr(server, "serve", serve)
    links: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    server.browse(home=store.home, open_link=links.append)
    assert links == ["http://localhost:1/#/experiments?workflowType=machine_learning"]
    assert stopped == [True]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_browse_serves_until_sigterm_and_leaves_nothing_behind(store: Store) -> None:
    code = "import sys, pathlib; from inn_automl.reporting.server import browse; "
    code += "open_link = lambda link: print(link, flush=True); "
    code += "browse(home=pathlib.Path(sys.argv[1]), port=0, open_link=open_link); print('ended')"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, str(store.home)],
        cwd=REPOSITORY,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert link.endswith("/#/experiments?workflowType=machine_learning"), process.communicate(
            timeout=5
        )
        assert "<title>MLflow</title>" in httpx.get(link, trust_env=False).text
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        process.terminate()
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors) == (0, "ended\n", "")
        assert psutil.wait_procs(started, timeout=5)[1] == []
    finally:
        process.kill()
        process.wait()


def test_home_given_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert not locate(tmp_path).is_server
