"""The client over connections that break, and over servers that are busy, wrong or gone."""

from __future__ import annotations

import json

import httpx
import pytest

from inn_automl.api.jobs import JobState
from inn_automl.client import (
    Client,
    ConnectionLostError,
    RefusedError,
    ServiceError,
)
from inn_automl.core.errors import InputError, SpecError
from tests.unit.client.client_answers import (
    JOB,
    SPEC,
    client_of,
    in_turn,
    problem,
)


def test_a_job_is_submitted_once_however_often_it_is_sent() -> None:
    broken = httpx.ReadError("reset by peer")
    answer, seen = in_turn(broken, problem(503), httpx.Response(201, json=JOB))
    assert client_of(answer).submit(SPEC, name="first").id == "job_1"
    assert len({request.headers["Idempotency-Key"] for request in seen}) == 1
    assert all(request.headers["Authorization"] == "Bearer inn_key" for request in seen)
    sent = json.loads(seen[-1].content)
    assert (sent["name"], sent["spec"]["dataset"]) == ("first", "digits")


def test_what_may_have_arrived_is_not_sent_again_without_a_key() -> None:
    answer, seen = in_turn(httpx.ReadError("reset by peer"))
    with pytest.raises(ConnectionLostError, match="http://server"):
        client_of(answer).cancel("job_1")
    assert len(seen) == 1
    answer, seen = in_turn(httpx.ConnectError("refused"), httpx.Response(200, json=JOB))
    client_of(answer).cancel("job_1")
    assert len(seen) == 2


def test_a_busy_server_is_given_the_time_that_it_asks_for() -> None:
    pauses: list[float] = []
    answer, _ = in_turn(problem(429, **{"Retry-After": "7"}), httpx.Response(200, json=JOB))
    client_of(answer, pauses.append).job("job_1")
    assert pauses == [7.0]


def test_a_server_that_is_gone_is_told_with_its_address() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(
        ConnectionLostError, match=r"no answer from http://server \(connection refused\)"
    ):
        client_of(gone).job("job_1")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422])
def test_a_refusal_is_bad_input(status: int) -> None:
    with pytest.raises(RefusedError, match=r"^the fault\.$") as caught:
        client_of(lambda request: problem(status)).job("job_1")
    assert isinstance(caught.value, InputError)
    assert (caught.value.code, caught.value.status, caught.value.request_id) == (
        "some_code",
        status,
        "req_1",
    )


def test_a_fault_of_the_server_names_the_request() -> None:
    with pytest.raises(ServiceError, match=r"the fault\. \(request req_1\)") as caught:
        client_of(lambda request: problem(500)).job("job_1")
    assert not isinstance(caught.value, InputError)


def test_a_newer_server_may_say_more() -> None:
    newer = {**JOB, "mood": "fine", "cost": {"wall_s": 1.0, "karma": 2}}
    assert (
        client_of(lambda request: httpx.Response(200, json=newer)).job("job_1").cost.wall_s == 1.0
    )


@pytest.mark.parametrize("body", ["<html>", "{}", '{"items": 1}', "[]"])
def test_something_else_than_a_coordinator_is_told(body: str) -> None:
    with pytest.raises(ServiceError, match="something else than a Job"):
        client_of(lambda request: httpx.Response(200, text=body)).job("job_1")
    with pytest.raises(RefusedError, match="answered 404 Not Found: check that the URL"):
        client_of(lambda request: httpx.Response(404, text=body)).job("job_1")


@pytest.mark.parametrize("url", ["ftp://server", "server", "http://a:b"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(RefusedError, match="no URL"):
        Client(url, "inn_key").job("job_1")


def test_ids_cannot_leave_their_place_in_the_path() -> None:
    answer, seen = in_turn(httpx.Response(200, json=JOB))
    client_of(answer).job("../keys?a=b")
    assert seen[0].url.raw_path == b"/v1/jobs/..%2Fkeys%3Fa%3Db"


def test_lists_are_read_page_by_page() -> None:
    summary = {
        **{
            key: JOB[key]
            for key in ("name", "kind", "parent_id", "state", "created_at", "finished_at")
        },
        **{"dataset": "digits", "devices": [], "stage": None, "fraction": 0.0},
    }
    pages = [
        {"items": [{**summary, "id": "job_3"}, {**summary, "id": "job_2"}], "next_cursor": "job_2"},
        {"items": [{**summary, "id": "job_1"}], "next_cursor": None},
    ]
    answer, seen = in_turn(*(httpx.Response(200, json=page) for page in pages))
    jobs = client_of(answer).jobs(state=JobState.QUEUED)
    assert next(jobs).id == "job_3"
    assert len(seen) == 1
    assert [job.id for job in jobs] == ["job_2", "job_1"]
    assert [dict(request.url.params).get("cursor") for request in seen] == [None, "job_2"]
    assert all(request.url.params["state"] == "queued" for request in seen)


def test_bad_arguments_are_refused_before_anything_is_sent() -> None:
    answer, seen = in_turn()
    client = client_of(answer)
    with pytest.raises(SpecError, match="name = 'a b'"):
        client.submit(SPEC, name="a b")
    with pytest.raises(SpecError, match="either widths or ratio"):
        client.discretize("job_1")
    with pytest.raises(SpecError, match=r"ratio = 1\.5"):
        client.discretize("job_1", ratio=1.5)
    for seconds in (-1.0, 3601.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="fine_tune_seconds"):
            client.discretize("job_1", ratio=0.5, fine_tune_seconds=seconds)
    assert not seen
