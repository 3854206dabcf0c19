"""A coordinator's and agents' processes, and a worker that has models measured by them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
from inn_automl_services.coordinator.db.session import Database, make_engine
from inn_automl_workers.remote_measure import RemoteMeasure
from sqlalchemy import update

from inn_automl.core.object_store import ObjectStore
from inn_automl.core.spec import DeviceBudget
from inn_automl.http.connection import Connection
from inn_automl.latency.config import BenchmarkConfig
from inn_automl.latency.measurement import LatencyMeasurement

TOKEN = "token-of-a-run"
# Long enough to be killed in its middle, on a busy machine too.
BENCHMARK_CONFIG = BenchmarkConfig(
    min_processes=3, max_processes=3, num_blocks=2, min_s=1.0, max_s=60.0, max_repeated=0
)
SERVE = (
    "import uvicorn; from inn_automl_services.coordinator.app import create_app; "
    "from inn_automl_services.coordinator.settings import Settings; "
    "uvicorn.run(create_app(Settings()), host='127.0.0.1', port={port}, log_level='warning')"
)
AGENT = (
    "import inn_automl.agent.agent as agent; agent.LEASE_WAIT_S = 2.0; "
    "from inn_automl.cli.main import main; main()"
)
"""Asks for work more often than usual, and so finds out sooner that its key was revoked."""


@dataclass
class Stack:
    """A coordinator's database and storage, and the processes over it."""

    folder: Path
    port: int
    agent_key: str = ""
    other_key: str = ""
    user_key: str = ""
    job_id: str = ""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    logs: list[IO[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage(self) -> str:
        return f"file://{self.folder}/storage"

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115
        self.logs.append(log)
        full = {**os.environ, "INN_AUTOML_HOME": str(self.folder), **environment}
        process = subprocess.Popen([sys.executable, *command], env=full, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        process = self.start(
            "coordinator",
            "-c",
            SERVE.format(port=self.port),
            INN_AUTOML_DATABASE_URL=f"sqlite:///{self.folder}/coordinator.db",
            INN_AUTOML_STORAGE_URL=self.storage,
            INN_AUTOML_MEASUREMENT_LEASE_S="4",
        )
        self.wait_for(lambda: self.devices() is not None)
        return process

    def agent(self, name: str = "board", key: str = "", log: str = "") -> subprocess.Popen[bytes]:
        return self.start(
            log or name,
            *(
                "-c",
                AGENT,
                "agent",
                "--server",
                self.url,
                "--name",
                name,
                "--cache",
                f"{self.folder}/cache",
            ),
            INN_AUTOML_KEY=key or self.agent_key,
        )

    def change(self, table: type[Any], **values: Any) -> None:
        """Sets columns of all rows of a table."""
        database = Database(make_engine(f"sqlite:///{self.folder}/coordinator.db"))
        with database.write() as session:
            session.execute(update(table).values(**values))
        database.engine.dispose()

    def devices(self) -> dict[str, str] | None:
        """States by name; None while the coordinator does not answer."""
        try:
            answer = httpx.get(
                f"{self.url}/v1/devices",
                headers={"Authorization": f"Bearer {self.user_key}"},
                trust_env=False,
            )
        except httpx.TransportError:
            return None
        return {device["name"]: device["state"] for device in answer.json()["items"]}

    def wait_for(self, there: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < end, self.told()
            time.sleep(0.1)

    def wait_for_state(self, state: str, name: str = "board") -> None:
        self.wait_for(lambda: (self.devices() or {}).get(name) == state)

    def told(self) -> str:
        return "\n".join(
            f"{path.name}:\n{path.read_text()}" for path in sorted(self.folder.glob("*.log"))
        )

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


class Worker(threading.Thread):
    """What a job's worker does: has models measured."""

    def __init__(
        self,
        stack: Stack,
        model: Path,
        *,
        config: BenchmarkConfig = BENCHMARK_CONFIG,
        agent: str | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._stack, self._model, self._config, self._agent = stack, model, config, agent
        self.shares: list[float] = []
        self.notes: list[str] = []
        self.found: dict[str, LatencyMeasurement] = {}
        self.fault: Exception | None = None

    def run(self) -> None:
        store = ObjectStore(f"{self._stack.storage}/jobs/{self._stack.job_id}")
        with closing(Connection(self._stack.url, TOKEN)) as connection:
            measure = RemoteMeasure(connection, self._stack.job_id, store, note=self.notes.append)
            try:
                self.found = measure(
                    {"first": self._model, "second": self._model},
                    DeviceBudget(name="d", agent=self._agent),
                    config=self._config,
                    on_progress=self.shares.append,
                )
            except Exception as error:
                self.fault = error

    def check(self) -> None:
        """Waits for its end: both models were measured."""
        self.join(120)
        assert self.fault is None, (self.fault, self._stack.told())
        assert not self.is_alive(), self._stack.told()
        assert list(self.found) == ["first", "second"]
        for one in self.found.values():
            assert len(one.samples_ms) == self._config.min_processes
            assert one.summary.p50 > 0
        assert self.shares == sorted(self.shares)
        assert self.shares[-1] == 1.0
