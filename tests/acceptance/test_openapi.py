"""Requests made up from the OpenAPI document: nothing is a 5xx, nothing undocumented, no nonsense
is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from inn_automl_services.coordinator.app import create_app
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.migrate import upgrade
from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import ProjectRow
from inn_automl_services.coordinator.keys import create_key
from inn_automl_services.coordinator.settings import Settings
from schemathesis import checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from inn_automl.api.access import Role

CHECKS = [
    checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 30
"""Of each operation, half of them wrong on purpose."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("coordinator")
    url = f"sqlite:///{folder}/coordinator.db"
    upgrade(url)
    return create_app(
        Settings(
            database_url=url,
            storage_url=f"file://{folder}/storage",
            requests_per_minute=10**6,
            scratch=folder,
        )
    )


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    """Requests with the key of an admin."""
    database = Database(make_engine(app.state.context.settings.database_url))
    with database.write() as session:
        project = ProjectRow(
            id=new_id("prj"),
            name="alpha",
            max_running_jobs=4,
            max_gpu_hours=None,
            gpu_s=0.0,
            created_at=now(),
        )
        session.add(project)
        session.flush()
        _, secret = create_key(session, project_id=project.id, name="admin", role=Role.ADMIN)
    database.engine.dispose()
    with TestClient(
        app, headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture(scope="module")
def operations(app: FastAPI) -> dict[str, APIOperation]:
    config = SchemathesisConfig(
        projects=ProjectsConfig(
            default=ProjectConfig(
                generation=GenerationConfig(deterministic=True, with_security_parameters=False)
            )
        )
    )
    schema = schemathesis.openapi.from_dict(app.openapi(), config=config)
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def test_no_request_breaks_the_contract(
    operations: dict[str, APIOperation], client: TestClient
) -> None:
    assert len(operations) > 20
    broken = [fault for operation in operations.values() for fault in _faults(operation, client)]
    assert not broken, "\n\n".join(broken)


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b'{"name": ' + b"1" * 5000 + b"}", b"[" * 100_000, b'{"name": "\\ud800"}']
)
def test_a_body_that_is_no_json_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def _faults(operation: APIOperation, client: TestClient) -> list[str]:
    cases = st.one_of(
        operation.as_strategy(generation_mode=mode)
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    )

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def hold(case: schemathesis.Case) -> None:
        arguments = case.as_transport_kwargs(base_url="http://testserver")
        arguments.pop("cookies", None)
        if isinstance(arguments.get("data"), bytes | str):
            arguments["content"] = arguments.pop("data")
        response = client.request(**arguments)
        case.validate_response(response, checks=CHECKS)

    try:
        hold()
    except FailureGroup as fault:
        return [f"{operation.label}: {fault}"]
    return []
