"""A coordinator and a device agent as processes of their own, killed and started again."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import onnx
import pytest
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.migrate import upgrade
from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import ApiKeyRow, DeviceRow, JobRow, ProjectRow
from inn_automl_services.coordinator.keys import create_key, hash_secret
from inn_automl_workers.remote_measure import FOLDER, RemoteMeasure
from onnx import TensorProto, helper, numpy_helper
from sqlalchemy import update

from inn_automl.api.access import Role
from inn_automl.api.jobs import JobKind, JobState
from inn_automl.core.errors import MeasurementError
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
BROKEN = """
import os
from pathlib import Path
from inn_automl.agent.agent import Agent
from inn_automl.agent.agent_client import AgentClient
from inn_automl.latency.measurement import LatencyMeasurement
from inn_automl.agent.model_cache import ModelCache
import logging

def measure(models, *_, **__):
    one = LatencyMeasurement.from_dict(
        {{"percentile": 95.0, "samples_ms": [[[1.0]], [[1.1]]], "diagnostic": "", "environment": {{}}}}
    )
    one.samples_ms[0][0][0] = "fast"
    return dict.fromkeys(models, one)

logging.basicConfig()
Agent(AgentClient("{url}", os.environ["INN_KEY"]), "board", ModelCache(Path("{cache}"), 10**6), measure=measure).run()
"""
"""An agent whose clock says what is no number."""
SERVE = (
    "import uvicorn; from inn_automl_services.coordinator.app import create_app; "
    "from inn_automl_services.coordinator.settings import Settings; "
    "uvicorn.run(create_app(Settings()), host='127.0.0.1', port={port}, log_level='warning')"
)


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
                "-m",
                "inn_automl",
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


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stack = Stack(tmp_path, port)
    database_url = f"sqlite:///{tmp_path}/coordinator.db"
    upgrade(database_url)
    database = Database(make_engine(database_url))
    with database.write() as session:
        project = ProjectRow(
            id=new_id("prj"),
            name="p",
            max_running_jobs=1,
            max_gpu_hours=None,
            gpu_s=0.0,
            created_at=now(),
        )
        session.add(project)
        session.flush()
        _, stack.agent_key = create_key(
            session, project_id=project.id, name="agent", role=Role.AGENT
        )
        _, stack.other_key = create_key(
            session, project_id=project.id, name="another", role=Role.AGENT
        )
        _, stack.user_key = create_key(session, project_id=project.id, name="user", role=Role.USER)
        stack.job_id = new_id("job")
        session.add(
            JobRow(
                id=stack.job_id,
                project_id=project.id,
                kind=JobKind.SEARCH.value,
                spec={},
                state=JobState.MEASURING.value,
                priority=0,
                queue_position=stack.job_id,
                available_at=now(),
                attempt=1,
                max_attempts=5,
                lease_token_hash=hash_secret(TOKEN),
                lease_expires_at=now() + timedelta(hours=1),
                cost_before={},
                cost={},
                notes=[],
                created_at=now(),
            )
        )
    database.engine.dispose()
    yield stack
    for process in stack.running:
        if process.poll() is None:
            process.kill()
        process.wait()
    for log in stack.logs:
        log.close()


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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weight = numpy_helper.from_array(np.ones((16, 4), np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["logits"])],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    path = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        str(path),
    )
    return path


@pytest.mark.slow
def test_measures_for_a_worker_and_ends_on_signals(stack: Stack, model: Path) -> None:
    stack.serve()
    agent = stack.agent()
    stack.wait_for_state("idle")
    worker = Worker(stack, model)
    worker.start()
    worker.check()
    environment = worker.found["first"].environment
    assert environment["benchmark_config"] == BENCHMARK_CONFIG.to_dict()
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(30) == 0, stack.told()
    again = Worker(stack, model)
    again.start()
    again.check()  # kept by the coordinator
    interrupted = stack.agent()
    stack.wait_for(lambda: stack.log_of("board").count("registered") == 2)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(30) == 130, stack.told()
    assert "Traceback" not in stack.told()


@pytest.mark.slow
def test_agent_killed_in_the_middle(stack: Stack, model: Path) -> None:
    stack.serve()
    agent = stack.agent()
    stack.wait_for_state("idle")
    worker = Worker(stack, model)
    worker.start()
    stack.wait_for_state("measuring")
    time.sleep(0.5)
    agent.kill()
    agent.wait()
    stack.agent()
    worker.check()
    assert stack.log_of("board").count("leased") == 2


@pytest.mark.slow
def test_agent_stopped_in_the_middle_gives_back(stack: Stack, model: Path) -> None:
    stack.serve()
    agent = stack.agent()
    stack.wait_for_state("idle")
    worker = Worker(stack, model)
    worker.start()
    stack.wait_for_state("measuring")
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(30) == 0, stack.told()
    assert "released measurement=" in stack.log_of("board")
    assert stack.devices() == {"board": "idle"}
    stack.agent()
    worker.check()


@pytest.mark.slow
def test_coordinator_killed_in_the_middle(stack: Stack, model: Path) -> None:
    coordinator = stack.serve()
    stack.agent()
    stack.wait_for_state("idle")
    worker = Worker(stack, model)
    worker.start()
    stack.wait_for_state("measuring")
    coordinator.kill()
    coordinator.wait()
    time.sleep(1.0)
    stack.serve()
    worker.check()
    assert stack.log_of("board").count("leased") == 1


@pytest.mark.slow
def test_two_agents_of_one_machine_take_turns(stack: Stack, model: Path) -> None:
    stack.serve()
    for name in ("board", "other"):
        stack.agent(name)
        stack.wait_for_state("idle", name)
    workers = [Worker(stack, model, agent=name) for name in ("board", "other")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.check()
    logs = stack.log_of("board") + stack.log_of("other")
    assert "another agent measures on this machine" in logs


@pytest.mark.slow
def test_what_cannot_be_measured_is_told(stack: Stack, tmp_path: Path) -> None:
    stack.serve()
    stack.agent()
    stack.wait_for_state("idle")
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no protobuf")
    worker = Worker(stack, path)
    worker.start()
    worker.join(60)
    assert isinstance(worker.fault, MeasurementError), stack.told()
    told = "cannot be measured: ONNX Runtime cannot load"
    assert told in str(worker.fault) and told in stack.log_of("board")


@pytest.mark.slow
def test_a_damaged_download_is_told(stack: Stack, model: Path) -> None:
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    ObjectStore(f"{stack.storage}/jobs/{stack.job_id}").write(
        f"{FOLDER}/{sha256}.onnx", model.read_bytes()[::-1]
    )
    stack.serve()
    stack.agent()
    stack.wait_for_state("idle")
    worker = Worker(stack, model)
    worker.start()
    worker.join(60)
    assert isinstance(worker.fault, MeasurementError), stack.told()
    assert "came damaged: its hash differs" in str(worker.fault)
    assert "came damaged: its hash differs" in stack.log_of("board")


@pytest.mark.slow
def test_samples_that_are_no_numbers_are_told(stack: Stack, model: Path) -> None:
    stack.serve()
    stack.start(
        "board",
        "-c",
        BROKEN.format(url=stack.url, cache=stack.folder / "cache"),
        INN_KEY=stack.agent_key,
    )
    stack.wait_for_state("idle")
    worker = Worker(stack, model)
    worker.start()
    worker.join(60)
    assert isinstance(worker.fault, MeasurementError), stack.told()
    assert "'fast' is no latency in milliseconds" in str(worker.fault)
    assert "'fast' is no latency in milliseconds" in stack.log_of("board")


@pytest.mark.slow
def test_anothers_name_is_refused_and_the_job_is_measured_by_its_owner(
    stack: Stack, model: Path
) -> None:
    stack.serve()
    stack.agent()
    stack.wait_for_state("idle")
    liar = stack.agent(key=stack.other_key, log="liar")
    worker = Worker(stack, model)
    worker.start()
    assert liar.wait(60) == 1, stack.told()
    last = stack.log_of("liar").splitlines()[-1]
    assert last.startswith("inn-automl: the device 'board' belongs to the key inn_"), stack.told()
    worker.check()
    assert worker.notes == [] and "leased" not in stack.log_of("liar")


@pytest.mark.slow
def test_a_revoked_key_ends_the_agent_and_the_job_waits_for_the_next(
    stack: Stack, model: Path
) -> None:
    stack.serve()
    agent = stack.agent()
    stack.wait_for_state("idle")
    stack.change(ApiKeyRow, revoked_at=now())
    assert agent.wait(60) == 1, stack.told()
    last = stack.log_of("board").splitlines()[-1]
    assert last.startswith("inn-automl: the key inn_") and "was revoked" in last
    stack.change(DeviceRow, last_seen_at=now() - timedelta(minutes=5))
    worker = Worker(stack, model)
    worker.start()
    stack.wait_for(lambda: bool(worker.notes))
    assert "agent 'board' is away" in worker.notes[0] and "its key was revoked" in worker.notes[0]
    stack.change(ApiKeyRow, revoked_at=None)
    stack.agent(log="again")
    worker.check()


@pytest.mark.slow
def test_a_lease_that_is_lost_is_let_go_and_the_job_is_measured_by_who_has_it(
    stack: Stack, model: Path
) -> None:
    stack.serve()
    stack.agent()
    stack.wait_for_state("idle")
    worker = Worker(stack, model)
    worker.start()
    stack.wait_for(lambda: "leased" in stack.log_of("board"))
    # of the same name, as after a crash that left the first one running
    stack.agent(log="successor")
    stack.wait_for(lambda: "abandoned measurement=" in stack.log_of("board"))
    assert "lease" in next(
        line for line in stack.log_of("board").splitlines() if "abandoned" in line
    )
    worker.check()


@pytest.mark.slow
def test_a_key_that_is_not_known_ends_the_agent(stack: Stack) -> None:
    stack.serve()
    agent = stack.agent(key="inn_unknown")
    assert agent.wait(60) == 1
    last = stack.log_of("board").splitlines()[-1]
    assert last.startswith("inn-automl: the key is not known here"), stack.told()
