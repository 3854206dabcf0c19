"""A coordinator and a device agent as processes of their own, killed and started again."""

from __future__ import annotations

import hashlib
import signal
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import onnx
import pytest
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.migrate import upgrade
from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import ApiKeyRow, DeviceRow, JobRow, ProjectRow
from inn_automl_services.coordinator.keys import create_key, hash_secret
from inn_automl_workers.remote_measure import FOLDER
from onnx import TensorProto, helper, numpy_helper

from inn_automl.api.access import Role
from inn_automl.api.jobs import JobKind, JobState
from inn_automl.core.errors import MeasurementError
from inn_automl.core.object_store import ObjectStore
from tests.acceptance.agent_stack import BENCHMARK_CONFIG, TOKEN, Stack, Worker

BROKEN = """
import logging
import os
from pathlib import Path
from inn_automl.agent.agent import Agent
from inn_automl.agent.agent_client import AgentClient
from inn_automl.agent.model_cache import ModelCache
from inn_automl.latency.measurement import LatencyMeasurement

def measure(models, *_, **__):
    one = LatencyMeasurement.from_dict(
        {{
            "percentile": 95.0,
            "samples_ms": [[[1.0]], [[1.1]]],
            "diagnostic": "",
            "environment": {{}},
        }}
    )
    one.samples_ms[0][0][0] = "fast"
    return dict.fromkeys(models, one)

logging.basicConfig()
client = AgentClient("{url}", os.environ["INN_KEY"])
Agent(client, "board", ModelCache(Path("{cache}"), 10**6), measure=measure).run()
"""
"""An agent whose clock says what is no number."""


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
