"""Measurements: requested by workers, leased and answered by agents."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id

from inn_automl.api.jobs import JobState
from inn_automl.core.object_store import ObjectStore
from inn_automl.latency.config import BenchmarkConfig
from tests.contract.devices.conftest import (
    MODEL,
    SHA256,
    TOKEN,
    World,
    changed,
    results,
)


def test_from_question_to_results(world: World, context: Context) -> None:
    world.register()
    asked = world.ask(("a", "b"), threads=2, percentile=90)
    assert asked.status_code == 200, asked.text
    measurement = asked.json()
    assert (measurement["state"], measurement["agent"], measurement["results"]) == (
        "queued",
        "pi4",
        None,
    )
    lease = world.lease()
    assert lease is not None
    assert lease["id"] == measurement["id"]
    assert lease["device"]["agent"] == "pi4"
    assert lease["device"]["threads"] == 2
    assert set(lease["models"]) == {"a", "b"}
    assert BenchmarkConfig.from_dict(lease["benchmark_config"]) == BenchmarkConfig()
    assert world.lease() is None
    assert world.say(lease, "heartbeat", {"fraction": 0.25}).status_code == 204
    assert world.say(lease, "heartbeat", {"fraction": 0.125}).status_code == 204
    assert world.look(measurement["id"])["fraction"] == 0.25
    told = results("a", "b")
    told["results"]["a"] = told["results"]["a"] | {
        "memory": {"idle_bytes": 5, "peak_bytes": 9, "added_bytes": 1}
    }
    for _ in range(2):  # an agent that did not hear the answer posts again
        assert world.say(lease, "results", told).status_code == 204
    done = world.look(measurement["id"])
    assert (done["state"], done["fraction"]) == ("done", 1.0)
    assert done["results"]["a"]["samples_ms"] == [[[1.0, 1.01]], [[1.02, 1.0]]]
    assert done["results"]["a"]["percentile"] == 90
    assert done["results"]["a"]["memory"] == {"idle_bytes": 5, "peak_bytes": 9}
    assert done["results"]["b"]["memory"] is None
    again = world.ask(("a", "b"), threads=2, percentile=90).json()
    assert again == done


def test_models_are_downloaded_by_hash(
    world: World, context: Context, check_problem: Callable[..., str]
) -> None:
    world.register()
    world.ask()
    lease = world.lease()
    assert lease is not None
    url, headers = f"/v1/measurements/{lease['id']}/models", {"Lease-Token": lease["token"]}
    check_problem(world.access.agent.get(f"{url}/{SHA256}", headers=headers), 404, "not_found")
    store: ObjectStore = context.store
    store.write(f"jobs/{world.job_id}/measuring-models/{SHA256}.onnx", MODEL)
    found = world.access.agent.get(f"{url}/{SHA256}", headers=headers)
    assert (found.status_code, found.content) == (200, MODEL)
    check_problem(world.access.agent.get(f"{url}/{'0' * 64}", headers=headers), 404, "not_found")
    check_problem(
        world.access.agent.get(f"{url}/{SHA256}", headers={"Lease-Token": "x"}), 409, "stale_lease"
    )


def test_asking_again_finds_the_same(world: World) -> None:
    world.register()
    first = world.ask().json()
    assert world.ask().json()["id"] == first["id"]
    assert world.ask(agent="pi4").json()["id"] == first["id"]
    others = [world.ask(("n",)), world.ask(threads=2)]
    world.benchmark_config = BenchmarkConfig(seed=1).to_dict()
    others.append(world.ask())
    assert len({first["id"], *(other.json()["id"] for other in others)}) == 4


def test_the_oldest_comes_first(world: World) -> None:
    world.register()
    asked = [world.ask((name,)).json()["id"] for name in "cab"]
    leased = []
    while (lease := world.lease()) is not None:
        leased.append(lease["id"])
        world.say(lease, "results", results(*lease["models"]))
    assert leased == asked


def test_failure_reaches_the_worker_and_asking_again_queues_anew(world: World) -> None:
    world.register()
    asked = world.ask().json()
    lease = world.lease()
    assert lease is not None
    assert (
        world.say(lease, "failure", {"detail": "model 'm' cannot be measured: no."}).status_code
        == 204
    )
    failed = world.look(asked["id"])
    assert failed["state"] == "failed"
    assert failed["error"]["detail"] == "model 'm' cannot be measured: no."
    assert world.say(lease, "results", results("m")).status_code == 409
    again = world.ask().json()
    assert (again["id"], again["state"], again["error"]) == (asked["id"], "queued", None)
    assert world.lease() is not None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (results("n"), "missing 'm'; unknown 'n'"),
        (results("m", "n"), "unknown 'n'"),
        (results("m", ms=-1.0), "no latency"),
        (changed(samples_ms=[[["1.0"]], [[1.0]]]), "no latency"),
        (changed(samples_ms=[[[None]], [[1.0]]]), "no latency"),
        (changed(memory={"idle_bytes": -5, "peak_bytes": 10}), "no number of bytes"),
        (changed(memory={"idle_bytes": 5, "peak_bytes": "10"}), "no number of bytes"),
        (changed(memory={"idle_bytes": 5}), "no number of bytes"),
        (changed(memory={"idle_bytes": 20, "peak_bytes": 10}), "is not above"),
        (changed(memory=10), "mapping"),
        ({"results": {"m": {"samples_ms": [[[1.0]]]}}}, "at least two processes"),
        ({"results": {"m": {}}}, "samples_ms"),
        (
            {"results": {"m": {"samples_ms": [[["1.0"]], [[1.0]]]}}},
            "'1.0' is no latency in milliseconds",
        ),
        (
            {"results": {"m": {"samples_ms": [[[None]], [[1.0]]]}}},
            "None is no latency in milliseconds",
        ),
        (
            {"results": {"m": {"samples_ms": [[[True]], [[1.0]]]}}},
            "True is no latency in milliseconds",
        ),
        ({"results": {"m": {"samples_ms": [[1.0], [1.0]]}}}, "[process][block][run]"),
        ({"results": {"m": results("m")["results"]["m"] | {"diagnostic": "a\0b"}}}, "NUL"),
        ({"results": {"m": results("m")["results"]["m"] | {"environment": 3}}}, "mapping"),
    ],
)
def test_results_that_are_refused_leave_it_leased(
    world: World, body: dict[str, Any], message: str
) -> None:
    world.register()
    asked = world.ask().json()
    lease = world.lease()
    assert lease is not None
    response = world.say(lease, "results", body)
    assert response.status_code == 422, response.text
    assert message in response.json()["detail"]
    assert world.look(asked["id"])["state"] == "leased"
    assert world.say(lease, "results", results("m")).status_code == 204


def test_a_lease_that_ends_goes_to_the_next(
    world: World, check_problem: Callable[..., str]
) -> None:
    world.register()
    asked = world.ask().json()
    first = world.lease()
    assert first is not None
    assert world.lease() is None
    world.expire(asked["id"])
    second = world.lease()
    assert second is not None
    assert second["id"] == first["id"]
    for what, body in (
        ("heartbeat", {}),
        ("results", results("m")),
        ("failure", {"detail": "no"}),
        ("release", None),
    ):
        check_problem(world.say(first, what, body), 409, "stale_lease")
    assert world.say(second, "results", results("m")).status_code == 204


def test_a_lease_lost_three_times_is_a_failure(world: World) -> None:
    world.register()
    asked = world.ask().json()
    for _ in range(3):
        assert world.lease() is not None
        world.expire(asked["id"])
    assert world.lease() is None
    failed = world.look(asked["id"])
    assert failed["state"] == "failed"
    assert "'pi4' stopped 3 times" in failed["error"]["detail"]


def test_a_restarted_agent_gets_its_measurement_at_once(world: World) -> None:
    world.register()
    asked = world.ask().json()
    for _ in range(2):
        assert world.lease() is not None
        world.register()
        assert world.look(asked["id"])["state"] == "queued"
    world.lease()
    world.register()
    assert world.look(asked["id"])["state"] == "failed"


def test_giving_back_costs_no_attempt(world: World) -> None:
    world.register()
    asked = world.ask().json()
    for _ in range(5):
        lease = world.lease()
        assert lease is not None
        assert world.say(lease, "release").status_code == 204
        assert world.look(asked["id"])["state"] == "queued"


@pytest.mark.parametrize(
    "state", [JobState.CANCELLING, JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED]
)
def test_nobody_measures_for_a_job_that_ends(
    world: World, state: JobState, check_problem: Callable[..., str]
) -> None:
    world.register()
    world.ask()
    world.ask(("other",))
    lease = world.lease()
    assert lease is not None
    world.set_job(state=state.value)
    check_problem(world.say(lease, "heartbeat", {}), 409, "stale_lease")
    check_problem(world.say(lease, "results", results("m")), 409, "stale_lease")
    assert world.lease() is None
    assert world.access.user.get("/v1/devices/pi4").json()["state"] == "idle"


def test_a_job_that_waits_for_its_next_attempt_is_measured_for(world: World) -> None:
    world.register()
    world.ask()
    world.set_job(state=JobState.QUEUED.value, lease_token_hash=None)
    lease = world.lease()
    assert lease is not None
    assert world.say(lease, "results", results("m")).status_code == 204


def test_only_who_holds_the_job_may_ask(world: World, check_problem: Callable[..., str]) -> None:
    world.register()
    check_problem(world.ask(token="another"), 409, "stale_lease")
    check_problem(world.ask(job_id=new_id("job")), 409, "stale_lease")
    url = f"/v1/runs/{world.job_id}/measurements"
    check_problem(world.client.post(url, json={}), 401, "unauthenticated")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    check_problem(world.client.get(f"{url}/{new_id('msr')}", headers=headers), 404, "not_found")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"agent": "none"}, "'none', which is not registered"),
        ({"agent": "pi4", "threads": 5}, "more than the 4 cores"),
        (
            {"agent": "bare"},
            "no runtime 'onnxruntime-cpu', only none; `pip install onnxruntime` adds it",
        ),
        (
            {"agent": "pi4", "runtime": "openvino"},
            "only onnxruntime-cpu; `pip install openvino` adds it",
        ),
        ({"agent": "pi4", "runtime": "onnxruntime-cuda"}, "it says: there is no GPU."),
        ({}, "several (bare, pi4)"),
    ],
)
def test_devices_that_cannot_be_had(world: World, device: dict[str, Any], message: str) -> None:
    world.register()
    world.register("bare", runtimes={})
    response = world.ask(**device)
    assert response.status_code == 422, response.text
    assert message in response.json()["detail"]


def test_no_device_at_all(world: World, check_problem: Callable[..., str]) -> None:
    assert "no agent is registered" in check_problem(world.ask(), 422, "invalid_spec")


def test_an_invalid_benchmark_config(world: World, check_problem: Callable[..., str]) -> None:
    world.register()
    world.benchmark_config = {"min_processes": 1}
    check_problem(world.ask(), 422, "measurement_failed")


def test_waiting_for_work_and_for_results(world: World) -> None:
    """Both long polls answer when the other side has acted."""
    world.register()
    found: list[Any] = []
    agent = threading.Thread(target=lambda: found.append(world.lease(wait_s=20)))
    agent.start()
    time.sleep(0.2)
    asked = world.ask().json()
    agent.join(10)
    (lease,) = found
    assert lease["id"] == asked["id"]
    worker = threading.Thread(target=lambda: found.append(world.look(asked["id"], wait_s=20)))
    worker.start()
    time.sleep(0.2)
    world.say(lease, "results", results("m"))
    worker.join(10)
    assert found[-1]["state"] == "done"


def test_many_who_ask_at_once_get_one_lease(world: World) -> None:
    world.register()
    world.ask()
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(world.lease())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease is not None for lease in found) == 1
