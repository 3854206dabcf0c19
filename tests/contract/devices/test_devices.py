"""Devices that agents register."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import ApiKeyRow, DeviceRow
from inn_automl_services.coordinator.keys import hash_secret
from sqlalchemy import update

from tests.contract.devices.conftest import (
    DESCRIPTION,
    SHA256,
    World,
    results,
)


def test_registering_again_renews(world: World) -> None:
    first = world.register()
    assert first.status_code == 201
    second = world.register(cpu="another CPU")
    assert second.status_code == 200
    assert second.json()["id"] == first.json()["id"]
    shown = world.access.user.get("/v1/devices/pi4").json()
    assert shown["description"]["cpu"] == "another CPU"
    assert shown["state"] == "idle"
    assert shown["measurement_id"] is None


def test_a_name_belongs_to_the_key_that_registered_it(
    world: World, check_problem: Callable[..., str], database: Database
) -> None:
    world.register()
    body = {"name": "pi4", "description": DESCRIPTION}
    detail = check_problem(world.access.admin.post("/v1/devices", json=body), 403, "forbidden")
    assert "'pi4' belongs to the key" in detail
    for path in ("/v1/devices/pi4/lease", "/v1/devices/pi4/heartbeat"):
        check_problem(world.access.admin.post(path), 403, "forbidden")
    with database.write() as session:
        session.execute(
            update(ApiKeyRow)
            .where(ApiKeyRow.hash == hash_secret(world.access.agent_key))
            .values(revoked_at=now())
        )
    assert world.access.admin.post("/v1/devices", json=body).status_code == 200
    assert world.access.admin.post("/v1/devices/pi4/heartbeat").status_code == 204


def test_a_project_sees_only_its_own(
    world: World, other_access: Any, check_problem: Callable[..., str]
) -> None:
    world.register()
    asked = world.ask().json()
    lease = world.lease()
    assert lease is not None
    assert other_access.user.get("/v1/devices").json() == {"items": [], "next_cursor": None}
    check_problem(other_access.user.get("/v1/devices/pi4"), 404, "not_found")
    check_problem(other_access.user.delete("/v1/devices/pi4"), 404, "not_found")
    check_problem(other_access.agent.post("/v1/devices/pi4/lease"), 404, "not_found")
    headers = {"Lease-Token": lease["token"]}
    url = f"/v1/measurements/{asked['id']}"
    check_problem(
        other_access.agent.post(f"{url}/heartbeat", json={}, headers=headers), 404, "not_found"
    )
    check_problem(
        other_access.agent.get(f"{url}/models/{SHA256}", headers=headers), 404, "not_found"
    )


def test_lists_pages(world: World) -> None:
    for index in range(5):
        world.register(f"d{index}")
    names, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        found = world.access.user.get("/v1/devices", params=params).json()
        names += [device["name"] for device in found["items"]]
        if (cursor := found["next_cursor"]) is None:
            break
    assert names == ["d4", "d3", "d2", "d1", "d0"]
    assert world.access.user.get("/v1/devices", params={"limit": 5}).json()["next_cursor"] is None


def test_states(world: World, database: Database) -> None:
    world.register()
    asked = world.ask().json()
    world.lease()
    shown = world.access.user.get("/v1/devices/pi4").json()
    assert (shown["state"], shown["measurement_id"]) == ("measuring", asked["id"])
    with database.write() as session:
        session.execute(update(DeviceRow).values(last_seen_at=now() - timedelta(minutes=5)))
    assert world.access.user.get("/v1/devices/pi4").json()["state"] == "away"
    assert world.look(asked["id"])["agent_is_away"] is True
    assert world.access.agent.post("/v1/devices/pi4/heartbeat").status_code == 204
    assert world.access.user.get("/v1/devices/pi4").json()["state"] == "measuring"
    assert world.look(asked["id"])["agent_is_away"] is False


def test_removing_fails_what_was_to_be_measured(
    world: World, check_problem: Callable[..., str]
) -> None:
    world.register()
    leased, queued = world.ask().json(), world.ask(("other",)).json()
    lease = world.lease()
    assert lease is not None
    assert world.access.agent.delete("/v1/devices/pi4").status_code == 403
    assert world.access.user.delete("/v1/devices/pi4").status_code == 204
    for measurement in (leased, queued):
        seen = world.look(measurement["id"])
        assert seen["state"] == "failed"
        assert "'pi4' was removed" in seen["error"]["detail"]
        assert seen["agent"] == "pi4"
    check_problem(world.say(lease, "results", results("m")), 409, "stale_lease")
    check_problem(world.access.agent.post("/v1/devices/pi4/lease"), 404, "not_found")
    world.register()
    assert world.ask().json()["state"] == "queued"


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "a\0b"},
        {"name": ""},
        {"description": DESCRIPTION | {"cpu": "a\0b"}},
        {"description": DESCRIPTION | {"details": {"a": ["\ud800"]}}},
        {"description": DESCRIPTION | {"details": {"a": {"\0": 1}}}},
        {"description": DESCRIPTION | {"num_cores": 10**30}},
        {"unknown": 1},
    ],
)
def test_descriptions_that_nothing_can_keep(world: World, changed: dict[str, Any]) -> None:
    content = json.dumps({"name": "pi4", "description": DESCRIPTION} | changed)
    headers = {"Content-Type": "application/json"}
    response = world.access.agent.post("/v1/devices", content=content, headers=headers)
    assert response.status_code == 422, response.text
    assert world.access.user.get("/v1/devices").json()["items"] == []


def test_numbers_that_json_cannot_say(world: World) -> None:
    text = (
        '{"name": "pi4", "description": {"agent_version": "1", "cpu": "c", "num_cores": 1, '
        '"runtimes": {}, %s}}'
    )
    for details in (
        '"details": {"a": NaN}',
        '"details": {"a": 1e999}',
        '"details": {"a": ' + "[" * 40 + "]" * 40 + "}",
    ):
        response = world.access.agent.post(
            "/v1/devices", content=text % details, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 422, response.text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/devices?cursor=x",
        "/v1/devices?limit=0",
        "/v1/devices?limit=201",
        "/v1/devices/a%00b",
        "/v1/devices/-",
    ],
)
def test_bad_questions(world: World, path: str) -> None:
    assert world.access.user.get(path).status_code == 422
