"""A job through a real coordinator process and a real Ray, from the queue to the result; and a
cancel on the way.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.migrate import upgrade
from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import (
    ArtifactRow,
    JobDeviceRow,
    JobEventRow,
    JobRow,
    ProjectRow,
)
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.jobs.lifecycle import CancelRequested
from inn_automl_services.coordinator.keys import create_key
from sqlalchemy import select

from inn_automl.agent.agent import Agent
from inn_automl.agent.agent_client import AgentClient
from inn_automl.agent.model_cache import ModelCache
from inn_automl.api.access import Role
from inn_automl.core.object_store import ObjectStore
from inn_automl.latency.benchmark import measure
from inn_automl.latency.config import BenchmarkConfig

RAY_TOKEN = "a-token-of-this-test-alone-0123456789"
READY_S, JOB_S = 60.0, 240.0
SERVE = (
    "import sys, uvicorn; from inn_automl_services.coordinator.app import create_app; "
    "from inn_automl_services.coordinator.settings import Settings; "
    "uvicorn.run(create_app(Settings()), host='127.0.0.1', port=int(sys.argv[1]))"
)
SPEC = {
    "dataset": "digits",
    "model": "mlp",
    "budget": {
        "devices": [{"name": "here", "threads": 1, "granularity": 16}],
        "training": {"max_minutes": 5, "max_epochs": 1, "trials": 1},
        "search": {"max_evaluations": 6, "batch_size": 6},
    },
}
COST = {"wall_s": 0.0, "cpu_s": 0.0, "gpu_s": 0.0}


@dataclass(frozen=True)
class Stack:
    database: Database
    store: ObjectStore
    project_id: str
    ray_url: str

    def submit(self, spec: dict[str, object], **values: object) -> str:
        job_id = new_id("job")
        fresh = {
            "kind": "search",
            "spec": spec,
            "state": "queued",
            "priority": 0,
            "queue_position": job_id,
            "notes": [],
            "available_at": now(),
            "max_attempts": 2,
            "cost_before": COST,
            "cost": COST,
            "created_at": now(),
            **values,
        }
        with self.database.write() as session:
            session.add(JobRow(id=job_id, project_id=self.project_id, **fresh))
        return job_id

    def job(self, job_id: str) -> JobRow:
        with self.database.read() as session:
            return session.get_one(JobRow, job_id)

    def wait(self, job_id: str, is_there: Callable[[JobRow], bool]) -> JobRow:
        end_s = time.monotonic() + JOB_S
        while time.monotonic() < end_s:
            job = self.job(job_id)
            if is_there(job):
                return job
            time.sleep(0.3)
        log = f"jobs/{job_id}/log.txt"
        printed = self.store.read(log).decode() if self.store.exists(log) else "no log"
        pytest.fail(
            f"the job is {job.state}: {job.progress}, {job.notes}, {job.error}\n{printed[-4000:]}"
        )


def measure_quickly(models, device, *, config, on_progress=None):  # type: ignore[no-untyped-def]
    """Few samples: nothing here depends on their quality."""
    few = BenchmarkConfig(
        min_processes=2,
        max_processes=2,
        num_blocks=4,
        min_s=0.1,
        max_s=4.0,
        max_repeated=0,
        num_memory_runs=0,
    )
    return measure(models, device, config=few, on_progress=on_progress)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(url: str, headers: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            if httpx.get(url, headers=headers, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"nothing answers at {url}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ray_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    gcs, dashboard, agent, client = free_ports(4)
    home = tmp_path_factory.mktemp("ray")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": RAY_TOKEN,
        "INN_AUTOML_HOME": str(home),
        "INN_AUTOML_CACHE": str(home / "cache"),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    options = [
        f"--port={gcs}",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}",
        "--dashboard-host=127.0.0.1",
        "--num-cpus=2",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--object-store-memory={128 * 2**20}",
    ]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *options]
    with open(home / "ray.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        wait_for(f"{url}/api/jobs/", {"Authorization": f"Bearer {RAY_TOKEN}"}, process)
        yield url
    finally:
        stop(process)


@pytest.fixture(scope="module")
def stack(ray_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("coordinator")
    database_url, storage_url = f"sqlite:///{home}/coordinator.db", f"file://{home}/storage"
    upgrade(database_url)
    database = Database(make_engine(database_url))
    with database.write() as session:
        project = ProjectRow(
            id=new_id("prj"),
            name="test",
            max_running_jobs=4,
            max_gpu_hours=None,
            gpu_s=0.0,
            created_at=now(),
        )
        session.add(project)
        session.flush()
        _, key = create_key(session, project_id=project.id, name="agent", role=Role.AGENT)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "INN_AUTOML_DATABASE_URL": database_url,
        "INN_AUTOML_STORAGE_URL": storage_url,
        "INN_AUTOML_PUBLIC_URL": url,
        "INN_AUTOML_RAY_URL": ray_url,
        "INN_AUTOML_RAY_TOKEN": RAY_TOKEN,
        "INN_AUTOML_HEARTBEAT_S": "1",
    }
    with open(home / "coordinator.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port)], env=environment, stdout=log, stderr=log
        )
    try:
        wait_for(f"{url}/openapi.json", {}, process)
        agent = Agent(
            AgentClient(url, key),
            "local",
            ModelCache(home / "models", 2**30),
            measure=measure_quickly,
        )
        threading.Thread(target=agent.run, daemon=True).start()
        yield Stack(database, ObjectStore(storage_url), project.id, ray_url)
    finally:
        stop(process)
        database.engine.dispose()


def test_a_job_runs_to_its_end(stack: Stack) -> None:
    job_id = stack.submit(SPEC)
    job = stack.wait(job_id, lambda job: job.state in ("succeeded", "failed"))
    assert (job.state, job.error, job.attempt) == ("succeeded", None, 1)
    assert job.cost["wall_s"] == 0.0 and job.cost_before["wall_s"] > 1.0
    with stack.database.read() as session:
        devices = (
            session.execute(select(JobDeviceRow).where(JobDeviceRow.job_id == job_id))
            .scalars()
            .all()
        )
        artifacts = (
            session.execute(select(ArtifactRow).where(ArtifactRow.job_id == job_id)).scalars().all()
        )
        events = session.execute(
            select(JobEventRow).where(JobEventRow.job_id == job_id).order_by(JobEventRow.id)
        ).scalars()
        states = [event.data["state"] for event in events if event.kind == "state"]
    assert [device.name for device in devices] == ["here"]
    paths = {artifact.path: artifact for artifact in artifacts}
    assert {
        "result.json",
        "inn.zip",
        "elastic.zip",
        "figures/fronts.html",
        "figures/fronts.png",
    } <= paths.keys()
    assert {point["bundle"] for point in devices[0].result["front"]} <= paths.keys()
    for path, artifact in paths.items():
        assert stack.store.size_bytes(f"jobs/{job_id}/{path}") == artifact.size_bytes
    assert states == sorted(
        states, key=["training", "searching", "measuring", "publishing", "succeeded"].index
    )
    stack.wait(job_id, lambda _: stack.store.exists(f"jobs/{job_id}/log.txt"))


def test_a_cancelled_job_stops_on_ray(stack: Stack) -> None:
    budget = {**SPEC["budget"], "training": {"max_minutes": 5, "trials": 1}}
    job_id = stack.submit({**SPEC, "budget": budget})
    job = stack.wait(job_id, lambda job: (job.progress or {}).get("stage") == "training")
    with stack.database.write() as session:
        transitions.apply(session, session.get_one(JobRow, job_id), CancelRequested())
    stack.wait(job_id, lambda job: job.state == "cancelled")
    answer = httpx.get(
        f"{stack.ray_url}/api/jobs/{job.submission_id}",
        headers={"Authorization": f"Bearer {RAY_TOKEN}"},
        trust_env=False,
    )
    assert answer.json()["status"] in ("STOPPED", "FAILED")


def test_bad_input_fails_at_once(stack: Stack) -> None:
    budget = {**SPEC["budget"], "devices": [{"name": "here", "max_params": 1}]}
    job_id = stack.submit({**SPEC, "budget": budget})
    job = stack.wait(job_id, lambda job: job.state in ("succeeded", "failed"))
    assert (job.state, job.attempt, job.error["code"]) == ("failed", 1, "impossible_budget")
