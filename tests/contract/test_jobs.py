"""Jobs as users see them: submitted once, checked first, cancelled, retried, deleted, extended,
discretized.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import DatasetRow, JobDeviceRow, JobEventRow, JobRow
from sqlalchemy import func, select

from inn_automl.api.jobs import JobState

CheckProblem = Callable[[httpx.Response, int, str], str]

DEVICE = {
    "name": "pi4",
    "description": {
        "agent_version": "1",
        "cpu": "A72",
        "num_cores": 4,
        "runtimes": {"onnxruntime-cpu": "1.24"},
    },
}
WIDTHS = {"stem": 8, "head": 16}


def spec(**more: Any) -> dict[str, Any]:
    return {
        "dataset": "digits",
        "budget": {"devices": [{"name": "board", "max_latency_ms": 2.0}]},
        **more,
    }


def with_device(**more: Any) -> dict[str, Any]:
    return spec(budget={"devices": [{"name": "board", **more}]})


@pytest.fixture
def user(access: Any) -> Any:
    """A client of a project with one device."""
    assert access.agent.post("/v1/devices", json=DEVICE).status_code == 201
    return access.user


def submit(client: Any, asked: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    response: httpx.Response = client.post(
        "/v1/jobs", json={"spec": asked or spec()}, headers=headers
    )
    return response


def make(client: Any) -> dict[str, Any]:
    response = submit(client)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def put(database: Database, job_id: str, state: JobState, **more: Any) -> None:
    """Leaves a job as a run would."""
    with database.write() as session:
        job = session.get_one(JobRow, job_id)
        job.state = state.value
        for name, value in more.items():
            setattr(job, name, value)


def add_dataset(
    database: Database, project_id: str, name: str, kind: str = "signal", **metadata: str
) -> str:
    dataset_id = new_id("ds")
    with database.write() as session:
        session.add(
            DatasetRow(
                id=dataset_id,
                project_id=project_id,
                name=name,
                filename=f"{name}.npz",
                sha256="0" * 64,
                size_bytes=1,
                path="datasets/x",
                source_url=None,
                metadata_={"kind": kind, "task": "classification", **metadata},
                created_at=now(),
            )
        )
    return dataset_id


def test_a_job_is_queued_with_all_that_it_needs(user: Any, database: Database) -> None:
    job = make(user)
    assert (job["state"], job["kind"], job["attempt"]) == ("queued", "search", 0)
    assert job["spec"]["budget"]["devices"][0]["agent"] == "pi4"
    assert job["cost"] == {"wall_s": 0.0, "cpu_s": 0.0, "gpu_s": 0.0}
    assert user.get(f"/v1/jobs/{job['id']}").json() == job
    with database.read() as session:
        (event,) = session.scalars(select(JobEventRow))
    assert (event.kind, event.data["state"]) == ("state", "queued")


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (spec(dataset="/etc/passwd"), "invalid_spec", "reads no files by path"),
        (spec(dataset="../digits"), "invalid_spec", "reads no files by path"),
        (spec(dataset="digit"), "unknown_name", "did you mean 'digits'?"),
        (spec(model="convnett"), "unknown_name", "did you mean 'convnet'?"),
        (spec(model="signal"), "invalid_spec", "use convnet or mlp"),
        (with_device(agent="pi5"), "unknown_name", "did you mean 'pi4'?"),
        (with_device(threads=5), "invalid_spec", "4 cores"),
        (with_device(thread=5), "invalid_request", "did you mean 'threads'?"),
        (with_device(runtime="onnxruntime"), "invalid_request", "did you mean 'onnxruntime-cpu'?"),
        (
            spec(budget={"devices": [{"name": "a"}, {"name": "a"}]}),
            "invalid_request",
            "two devices are named 'a'",
        ),
        (spec(datset="digits"), "invalid_request", "did you mean 'dataset'?"),
    ],
)
def test_what_cannot_run_is_not_queued(
    user: Any, check_problem: CheckProblem, asked: dict[str, Any], code: str, words: str
) -> None:
    assert words in check_problem(submit(user, asked), 422, code)
    assert user.get("/v1/jobs").json()["items"] == []


def test_an_agent_is_named_unless_there_is_just_one(
    access: Any, check_problem: CheckProblem
) -> None:
    assert "no device registered" in check_problem(submit(access.user), 422, "invalid_spec")
    for name in ("pi4", "jetson"):
        access.agent.post("/v1/devices", json={**DEVICE, "name": name})
    assert "set `agent` to one of jetson, pi4" in check_problem(
        submit(access.user), 422, "invalid_spec"
    )
    assert submit(access.user, with_device(agent="jetson")).status_code == 201


def test_devices_and_datasets_of_others_are_unknown(
    user: Any, access: Any, other_access: Any, database: Database, check_problem: CheckProblem
) -> None:
    add_dataset(database, other_access.project_id, "theirs")
    check_problem(submit(user, spec(dataset="theirs")), 422, "unknown_name")
    check_problem(submit(other_access.user), 422, "invalid_spec")
    job_id = make(user)["id"]
    for method, path in (
        ("GET", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
        ("GET", "/logs"),
    ):
        check_problem(
            other_access.user.request(method, f"/v1/jobs/{job_id}{path}"), 404, "not_found"
        )
    assert other_access.user.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_dataset_of_the_project_is_found(
    user: Any, access: Any, database: Database, by: str
) -> None:
    dataset_id = add_dataset(database, access.project_id, "sounds")
    made = submit(
        user, spec(dataset="sounds" if by == "name" else dataset_id, model="signal")
    ).json()
    assert made["spec"]["dataset"] == "sounds"
    with database.read() as session:
        assert session.get_one(JobRow, made["id"]).dataset_id == dataset_id


def test_a_family_must_serve_the_task(
    user: Any, access: Any, database: Database, check_problem: CheckProblem
) -> None:
    add_dataset(database, access.project_id, "photographs", kind="image", task="super-resolution")
    detail = check_problem(
        submit(user, spec(dataset="photographs", model="convnet")), 422, "invalid_spec"
    )
    assert "does not serve super-resolution, as 'photographs' requires: use edsr." in detail
    assert submit(user, spec(dataset="photographs", model="edsr")).status_code == 201
    assert "use convnet or mlp" in check_problem(
        submit(user, spec(model="edsr")), 422, "invalid_spec"
    )


def test_the_same_key_makes_one_job(user: Any, access: Any, check_problem: CheckProblem) -> None:
    first = submit(user, **{"Idempotency-Key": "k1"})
    again = submit(user, **{"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    detail = check_problem(
        submit(user, spec(seed=1), **{"Idempotency-Key": "k1"}), 409, "idempotency_mismatch"
    )
    assert first.json()["id"] in detail
    access.user.delete("/v1/devices/pi4")
    assert submit(user, **{"Idempotency-Key": "k1"}).status_code == 200


def test_a_race_with_one_key_makes_one_job(user: Any, database: Database) -> None:
    barrier, found = threading.Barrier(6), []

    def race() -> None:
        barrier.wait()
        found.append(submit(user, **{"Idempotency-Key": "race"}))

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in found) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in found}) == 1
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(JobRow)) == 1
        assert session.scalar(select(func.count()).select_from(JobEventRow)) == 1


def test_lists_are_filtered_and_paged(user: Any, database: Database) -> None:
    ids = [make(user)["id"] for _ in range(5)]
    put(database, ids[2], JobState.FAILED)
    first = user.get("/v1/jobs?limit=3").json()
    rest = user.get(f"/v1/jobs?limit=3&cursor={first['next_cursor']}").json()
    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None
    assert [item["id"] for item in user.get("/v1/jobs?state=failed").json()["items"]] == [ids[2]]
    assert user.get("/v1/jobs?kind=extend").json()["items"] == []
    assert first["items"][0]["devices"] == ["board"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "state=lost", "cursor=%00", "cursor=", "limit=x"]
)
def test_bad_queries_are_refused(user: Any, check_problem: CheckProblem, query: str) -> None:
    check_problem(user.get(f"/v1/jobs?{query}"), 422, "invalid_request")


def test_a_cancel_may_be_repeated(
    user: Any, database: Database, check_problem: CheckProblem
) -> None:
    queued, running, ended = (make(user)["id"] for _ in range(3))
    put(database, running, JobState.SEARCHING)
    put(database, ended, JobState.SUCCEEDED)
    for _ in range(2):
        assert user.post(f"/v1/jobs/{queued}/cancel").json()["state"] == "cancelled"
        assert user.post(f"/v1/jobs/{running}/cancel").json()["state"] == "cancelling"
    check_problem(user.post(f"/v1/jobs/{ended}/cancel"), 409, "conflict")


def test_a_failed_job_is_retried(
    user: Any, database: Database, check_problem: CheckProblem
) -> None:
    job_id = make(user)["id"]
    check_problem(user.post(f"/v1/jobs/{job_id}/retry"), 409, "conflict")
    put(database, job_id, JobState.FAILED, attempt=5, error={"code": "run_lost", "detail": "gone."})
    assert user.get(f"/v1/jobs/{job_id}").json()["error"]["code"] == "run_lost"
    again = user.post(f"/v1/jobs/{job_id}/retry").json()
    assert (again["state"], again["attempt"], again["error"]) == ("queued", 0, None)


def test_a_job_whose_dataset_is_gone_is_not_retried(
    user: Any, access: Any, database: Database, check_problem: CheckProblem
) -> None:
    add_dataset(database, access.project_id, "sounds")
    job_id = submit(user, spec(dataset="sounds")).json()["id"]
    put(database, job_id, JobState.FAILED, dataset_id=None)
    with database.write() as session:
        session.delete(session.scalars(select(DatasetRow)).one())
    assert "'sounds'" in check_problem(user.post(f"/v1/jobs/{job_id}/retry"), 409, "conflict")
    assert user.get(f"/v1/jobs/{job_id}").json()["state"] == "failed"
    found = add_dataset(database, access.project_id, "sounds")
    assert user.post(f"/v1/jobs/{job_id}/retry").json()["state"] == "queued"
    with database.read() as session:
        assert session.get_one(JobRow, job_id).dataset_id == found


def test_costs_of_all_attempts_are_added(user: Any, database: Database) -> None:
    job_id = make(user)["id"]
    put(
        database,
        job_id,
        JobState.TRAINING,
        cost_before={"wall_s": 10.0, "gpu_s": 4.0},
        cost={"wall_s": 2.0, "cpu_s": 3},
    )
    assert user.get(f"/v1/jobs/{job_id}").json()["cost"] == {
        "wall_s": 12.0,
        "cpu_s": 3.0,
        "gpu_s": 4.0,
    }


def test_deleting_takes_rows_and_files(
    user: Any, database: Database, context: Context, check_problem: CheckProblem
) -> None:
    job_id = make(user)["id"]
    check_problem(user.delete(f"/v1/jobs/{job_id}"), 409, "conflict")
    put(database, job_id, JobState.SUCCEEDED)
    context.store.write(f"jobs/{job_id}/log.txt", b"hello")
    child = user.post(f"/v1/jobs/{job_id}/discretize", json={"ratio": 0.5}).json()["id"]
    put(database, child, JobState.FAILED)
    assert child in check_problem(user.delete(f"/v1/jobs/{job_id}"), 409, "conflict")
    for gone in (child, job_id):
        assert user.delete(f"/v1/jobs/{gone}").status_code == 204
        check_problem(user.get(f"/v1/jobs/{gone}"), 404, "not_found")
    assert context.store.files("jobs") == {}
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(JobEventRow)) == 0


def test_extending_changes_devices_and_search_only(
    user: Any, database: Database, check_problem: CheckProblem
) -> None:
    parent = submit(user, spec(seed=7, model="mlp")).json()
    asked = {
        "devices": [{"name": "fast", "threads": 2}],
        "search": {"max_evaluations": 50},
        "priority": 3,
    }
    address = f"/v1/jobs/{parent['id']}/extend"
    assert "is queued" in check_problem(user.post(address, json=asked), 409, "conflict")
    put(database, parent["id"], JobState.SUCCEEDED)
    made = user.post(address, json=asked)
    assert made.status_code == 201, made.text
    job = made.json()
    assert (job["kind"], job["parent_id"], job["priority"]) == ("extend", parent["id"], 3)
    assert (job["spec"]["seed"], job["spec"]["model"]) == (7, "mlp")
    assert job["spec"]["budget"]["training"] == parent["spec"]["budget"]["training"]
    assert job["spec"]["budget"]["devices"][0]["agent"] == "pi4"
    assert job["spec"]["budget"]["search"]["max_evaluations"] == 50
    check_problem(
        user.post(address, json={"devices": [{"name": "a"}, {"name": "a"}]}), 422, "invalid_spec"
    )
    check_problem(user.post(address, json={"devices": []}), 422, "invalid_request")
    put(database, job["id"], JobState.SUCCEEDED)
    assert user.post(f"/v1/jobs/{job['id']}/extend", json=asked).status_code == 201


def test_discretizing_checks_the_groups(
    user: Any, database: Database, check_problem: CheckProblem
) -> None:
    parent = make(user)["id"]
    put(database, parent, JobState.SUCCEEDED)
    with database.write() as session:
        session.add(
            JobDeviceRow(
                job_id=parent, position=0, name="board", result={"front": [{"widths": WIDTHS}]}
            )
        )
    address = f"/v1/jobs/{parent}/discretize"
    assert "'hed'" in check_problem(
        user.post(address, json={"widths": {"stem": 4, "hed": 4}}), 422, "invalid_widths"
    )
    assert "lack" in check_problem(
        user.post(address, json={"widths": {"stem": 4}}), 422, "invalid_widths"
    )
    check_problem(user.post(address, json={"widths": WIDTHS, "ratio": 0.5}), 422, "invalid_request")
    check_problem(
        user.post(address, json={"widths": {"stem": 0, "head": 1}}), 422, "invalid_request"
    )
    assert "int8" in check_problem(
        user.post(address, json={"ratio": 0.5, "precision": "int88"}), 422, "invalid_request"
    )
    quantized = user.post(address, json={"ratio": 0.5, "precision": "int8"}).json()
    assert quantized["widths"]["precision"] == "int8"
    for seconds in (-1, 4000, "30"):
        check_problem(
            user.post(address, json={"ratio": 0.5, "fine_tune_seconds": seconds}),
            422,
            "invalid_request",
        )
    tuned = user.post(address, json={"ratio": 0.5, "fine_tune_seconds": 30}).json()
    assert tuned["widths"]["fine_tune_seconds"] == 30
    made = user.post(address, json={"widths": WIDTHS}, headers={"Idempotency-Key": "d"})
    assert (made.status_code, made.json()["kind"], made.json()["widths"]["widths"]) == (
        201,
        "discretize",
        WIDTHS,
    )
    assert (
        user.post(address, json={"widths": WIDTHS}, headers={"Idempotency-Key": "d"}).status_code
        == 200
    )
    put(database, made.json()["id"], JobState.SUCCEEDED)
    again = user.post(f"/v1/jobs/{made.json()['id']}/discretize", json={"ratio": 0.5})
    assert parent in check_problem(again, 409, "conflict")


def test_an_agent_may_not_submit(access: Any, check_problem: CheckProblem) -> None:
    check_problem(submit(access.agent), 403, "forbidden")
