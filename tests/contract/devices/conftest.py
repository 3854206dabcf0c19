"""A project with a running job, and what a worker and an agent say to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import JobRow, MeasurementRow
from inn_automl_services.coordinator.keys import hash_secret
from sqlalchemy import update

from inn_automl.api.jobs import JobKind, JobState
from inn_automl.latency.config import BenchmarkConfig

TOKEN = "token-of-a-run"
DESCRIPTION = {
    "agent_version": "1",
    "cpu": "a CPU",
    "num_cores": 4,
    "memory_bytes": 2**33,
    "runtimes": {"onnxruntime-cpu": "1.30"},
    "details": {
        "governor": "performance",
        "missing_runtimes": {"onnxruntime-cuda": "there is no GPU."},
    },
}
MODEL = b"an ONNX file"
SHA256 = "3f4f32a8ffed2c06a52bce7ff76b28ae0b4a8cb0bf1e1bcc5f6a0e5f6f3b7b0a"


@dataclass
class World:
    """A project with a running job, and what a worker and an agent say to it."""

    access: Any
    client: TestClient
    database: Database
    job_id: str
    benchmark_config: dict[str, Any] = field(default_factory=lambda: BenchmarkConfig().to_dict())

    def register(self, name: str = "pi4", **description: Any) -> httpx.Response:
        body = {"name": name, "description": DESCRIPTION | description}
        return self.access.agent.post("/v1/devices", json=body)

    def ask(
        self,
        models: tuple[str, ...] = ("m",),
        *,
        token: str = TOKEN,
        job_id: str = "",
        **device: Any,
    ) -> httpx.Response:
        body = {
            "device": {"name": "d", **device},
            "models": {name: {"sha256": SHA256, "size_bytes": len(MODEL)} for name in models},
            "benchmark_config": self.benchmark_config,
        }
        url = f"/v1/runs/{job_id or self.job_id}/measurements"
        return self.client.post(url, json=body, headers={"Authorization": f"Bearer {token}"})

    def look(self, measurement_id: str, **params: Any) -> dict[str, Any]:
        url = f"/v1/runs/{self.job_id}/measurements/{measurement_id}"
        response = self.client.get(url, params=params, headers={"Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 200, response.text
        return response.json()

    def lease(self, name: str = "pi4", **params: Any) -> dict[str, Any] | None:
        response = self.access.agent.post(f"/v1/devices/{name}/lease", params=params)
        assert response.status_code in (200, 204), response.text
        return response.json() if response.status_code == 200 else None

    def say(self, lease: dict[str, Any], what: str, body: Any = None) -> httpx.Response:
        url = f"/v1/measurements/{lease['id']}/{what}"
        return self.access.agent.post(url, json=body, headers={"Lease-Token": lease["token"]})

    def set_job(self, **values: Any) -> None:
        with self.database.write() as session:
            session.execute(update(JobRow).where(JobRow.id == self.job_id).values(**values))

    def expire(self, measurement_id: str) -> None:
        with self.database.write() as session:
            past = now() - timedelta(seconds=1)
            session.execute(
                update(MeasurementRow)
                .where(MeasurementRow.id == measurement_id)
                .values(lease_expires_at=past)
            )


def add_job(
    database: Database, project_id: str, state: JobState = JobState.SEARCHING, token: str = TOKEN
) -> str:
    job_id = new_id("job")
    with database.write() as session:
        session.add(
            JobRow(
                id=job_id,
                project_id=project_id,
                name=None,
                kind=JobKind.SEARCH.value,
                spec={},
                state=state.value,
                priority=0,
                queue_position=job_id,
                available_at=now(),
                attempt=1,
                max_attempts=5,
                lease_token_hash=hash_secret(token),
                lease_expires_at=now() + timedelta(minutes=1),
                cost_before={},
                cost={},
                notes=[],
                created_at=now(),
            )
        )
    return job_id


@pytest.fixture
def world(access: Any, client: TestClient, database: Database) -> World:
    return World(access, client, database, add_job(database, access.project_id))


def results(*names: str, ms: float = 1.0) -> dict[str, Any]:
    one = {
        "percentile": 95.0,
        "samples_ms": [[[ms, ms * 1.01]], [[ms * 1.02, ms]]],
        "diagnostic": "",
        "environment": {},
    }
    return {"results": dict.fromkeys(names, one)}


def changed(**values: Any) -> dict[str, Any]:
    """Results of one model, with other values of some keys."""
    return {"results": {"m": results("m")["results"]["m"] | values}}
