"""Keys, roles and projects."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.session import Database
from inn_automl_services.coordinator.db.tables import ApiKeyRow
from inn_automl_services.coordinator.projects.service import bootstrap, ensure_project_and_keys
from sqlalchemy import select

from inn_automl.api.access import Role


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_no_key_and_unknown_keys_are_refused(
    client: TestClient, check_problem: Callable[..., str]
) -> None:
    answer = client.get("/v1/me")
    check_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    check_problem(client.get("/v1/me", headers=bearer("inn_unknown")), 401, "unauthenticated")
    check_problem(
        client.get("/v1/me", headers={"Authorization": "Basic abc"}), 401, "unauthenticated"
    )


def test_me(access: Any) -> None:
    for role in Role:
        me = getattr(access, role).get("/v1/me").json()
        assert (me["project"], me["role"]) == ("alpha", role)


def test_only_admins_manage(access: Any, check_problem: Callable[..., str]) -> None:
    for client in (access.user, access.agent):
        check_problem(client.get("/v1/projects"), 403, "forbidden")
        check_problem(
            client.post("/v1/keys", json={"name": "a", "role": "admin"}), 403, "forbidden"
        )


def test_a_secret_is_shown_once_and_only_its_hash_is_kept(
    access: Any, client: TestClient, database: Database
) -> None:
    made = access.admin.post("/v1/keys", json={"name": "laptop"}).json()
    assert client.get("/v1/me", headers=bearer(made["secret"])).json()["key_id"] == made["id"]
    listed = next(
        key for key in access.admin.get("/v1/keys").json()["items"] if key["id"] == made["id"]
    )
    assert "secret" not in listed
    assert made["secret"].startswith(listed["prefix"])
    with database.read() as session:
        key = session.get_one(ApiKeyRow, made["id"])
        assert made["secret"] not in {str(value) for value in vars(key).values()}
        assert key.last_used_at is not None


def test_a_revoked_key_ends_at_once(
    access: Any, client: TestClient, check_problem: Callable[..., str]
) -> None:
    made = access.admin.post("/v1/keys", json={"name": "laptop"}).json()
    assert client.get("/v1/me", headers=bearer(made["secret"])).status_code == 200
    for _ in range(2):
        assert access.admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    check_problem(client.get("/v1/me", headers=bearer(made["secret"])), 401, "unauthenticated")
    check_problem(access.admin.delete("/v1/keys/key_00000000000000000000000000"), 404, "not_found")


def test_the_last_admin_key_stays(access: Any, check_problem: Callable[..., str]) -> None:
    me = access.admin.get("/v1/me").json()
    check_problem(access.admin.delete(f"/v1/keys/{me['key_id']}"), 409, "conflict")


def test_projects(access: Any, client: TestClient, check_problem: Callable[..., str]) -> None:
    made = access.admin.post("/v1/projects", json={"name": "vision", "max_running_jobs": 8})
    assert made.status_code == 201
    check_problem(access.admin.post("/v1/projects", json={"name": "vision"}), 409, "conflict")
    changed = access.admin.patch(
        "/v1/projects/vision", json={"name": "vision", "max_gpu_hours": 2.5}
    ).json()
    assert (changed["max_running_jobs"], changed["max_gpu_hours"], changed["gpu_hours"]) == (
        8,
        2.5,
        0.0,
    )
    check_problem(access.admin.patch("/v1/projects/vision", json={"name": "other"}), 422, "invalid")
    check_problem(access.admin.patch("/v1/projects/none", json={"name": "none"}), 404, "not_found")
    check_problem(
        access.admin.post("/v1/projects", json={"name": "a", "owner": "b"}), 422, "invalid_request"
    )
    key = access.admin.post(
        "/v1/keys", json={"name": "agent", "role": "agent", "project": "vision"}
    ).json()
    assert client.get("/v1/me", headers=bearer(key["secret"])).json()["project"] == "vision"
    check_problem(
        access.admin.post("/v1/keys", json={"name": "a", "project": "none"}), 404, "not_found"
    )
    first = access.admin.get("/v1/projects", params={"limit": 1}).json()
    rest = access.admin.get("/v1/projects", params={"cursor": first["next_cursor"]}).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == ["vision", "alpha"]
    keys = access.admin.get("/v1/keys", params={"project": "vision"}).json()["items"]
    assert [item["id"] for item in keys] == [key["id"]]


def test_too_many_requests(
    access: Any, context: Context, check_problem: Callable[..., str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(context.keys, "_limit", 0)
    answer = access.user.get("/v1/me")
    check_problem(answer, 429, "rate_limited")
    assert 0 < int(answer.headers["retry-after"]) <= 60


def test_the_first_admin_key_is_made_once(
    database: Database, client: TestClient, tmp_path: Path
) -> None:
    path = tmp_path / "keys" / "admin"
    assert bootstrap(database, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    me = client.get("/v1/me", headers=bearer(path.read_text().strip())).json()
    assert (me["project"], me["role"]) == ("default", "admin")
    path.unlink()
    assert not bootstrap(database, path)


def test_known_secrets_are_ensured_once(database: Database, client: TestClient) -> None:
    secrets = {Role.USER: "inn_" + "u" * 40, Role.AGENT: "inn_" + "a" * 40}
    for _ in range(2):
        ensure_project_and_keys(database, "local", secrets)
    for role, secret in secrets.items():
        assert client.get("/v1/me", headers=bearer(secret)).json()["role"] == role
    with database.read() as session:
        assert len(session.scalars(select(ApiKeyRow)).all()) == 2
