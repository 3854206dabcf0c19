"""Fronts, figures, comparisons and downloads of finished jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import ArtifactRow, JobDeviceRow, JobRow
from inn_automl_services.coordinator.models.downloads import parse_range

from inn_automl.api.jobs import Comparison, Fronts, JobState
from inn_automl.core.errors import RangeError
from inn_automl.core.result import DeviceResult

CheckProblem = Callable[[httpx.Response, int, str], str]
CONTENT = bytes(range(256)) * 8
SIZE = len(CONTENT)


def device_result(
    name: str, points: list[tuple[float, float]], *, recommended: int | None = 0
) -> dict[str, Any]:
    front = [
        {
            "id": f"p{i}",
            "widths": {"stem": i + 1, "head": 2},
            "metric_value": accuracy,
            "test_metric_value": accuracy,
            "test_metric_value_ci": [0.1, 0.9],
            "params": 10,
            "macs": 20,
            "size_bytes": 30,
            "bundle": f"bundles/p{i}.zip",
            "latency_ms": {
                "p50": ms,
                "p95": ms,
                "p99": ms,
                "ci": [ms, ms],
                "percentile": 95.0,
                "at_percentile": ms,
                "num_samples": 100,
            },
        }
        for i, (ms, accuracy) in enumerate(points)
    ]
    result = {
        "name": name,
        "recommended": None if recommended is None else f"p{recommended}",
        "recommendation": "no point meets 0.1 ms: the fastest takes 1 ms.",
        "hypervolume": [0.5],
        "reference_point": [4.0, 0.1],
        "search_stopped": "budget",
        "environment": {},
        "budget": {},
        "front": front,
        "cost_model_errors": {
            "median_relative": 0.1,
            "p90_relative": 0.2,
            "spearman": 0.9,
            "num_fitted": 5,
            "num_held_out": 5,
        },
    }
    DeviceResult.model_validate(result)
    return result


class Made:
    """Jobs as their runs leave them."""

    def __init__(self, access: Any, database: Database, context: Context) -> None:
        self._project_id, self._database, self.store = access.project_id, database, context.store

    def job(
        self, *devices: dict[str, Any], kind: str = "search", state: JobState = JobState.SUCCEEDED
    ) -> str:
        job_id = new_id("job")
        with self._database.write() as session:
            session.add(
                JobRow(
                    id=job_id,
                    project_id=self._project_id,
                    kind=kind,
                    state=state.value,
                    priority=0,
                    spec={"dataset": "digits", "budget": {"devices": [{"name": "board"}]}},
                    queue_position=job_id,
                    available_at=now(),
                    max_attempts=5,
                    cost_before={},
                    cost={},
                    notes=[],
                    created_at=now(),
                )
            )
            session.flush()
            for position, device in enumerate(devices):
                session.add(
                    JobDeviceRow(
                        job_id=job_id, position=position, name=device["name"], result=device
                    )
                )
        return job_id

    def file(self, job_id: str, path: str, content: bytes = CONTENT) -> str:
        """Stores a file and lists it; its hash."""
        stored = self.store.write(f"jobs/{job_id}/{path}", content)
        with self._database.write() as session:
            session.add(
                ArtifactRow(
                    job_id=job_id, path=path, sha256=stored.sha256, size_bytes=stored.size_bytes
                )
            )
        return stored.sha256


@pytest.fixture
def made(access: Any, database: Database, context: Context) -> Made:
    return Made(access, database, context)


BOARD = device_result("board", [(1.0, 0.8), (2.0, 0.9)], recommended=1)
PHONE = device_result("phone", [(1.0, 0.8)], recommended=None)


def test_fronts_are_as_they_were_stored(
    access: Any, made: Made, check_problem: CheckProblem
) -> None:
    job_id = made.job(BOARD, PHONE)
    fronts = access.user.get(f"/v1/jobs/{job_id}/fronts")
    assert Fronts.model_validate_json(fronts.content).job_id == job_id
    assert fronts.json()["devices"] == [BOARD, PHONE]
    assert access.user.get(f"/v1/jobs/{job_id}/fronts/phone").json() == PHONE
    detail = check_problem(access.user.get(f"/v1/jobs/{job_id}/fronts/watch"), 404, "not_found")
    assert "board, phone" in detail


@pytest.mark.parametrize(
    "path", ["fronts", "fronts/board", "figure", "result", "models/p0", "inn", "elastic"]
)
def test_what_is_not_there_yet_is_a_conflict(
    access: Any, other_access: Any, made: Made, check_problem: CheckProblem, path: str
) -> None:
    running, discretized = made.job(state=JobState.SEARCHING), made.job(kind="discretize")
    assert "searching" in check_problem(
        access.user.get(f"/v1/jobs/{running}/{path}"), 409, "conflict"
    )
    assert "made one model" in check_problem(
        access.user.get(f"/v1/jobs/{discretized}/{path}"), 409, "conflict"
    )
    check_problem(access.user.get(f"/v1/jobs/{new_id('job')}/{path}"), 404, "not_found")
    check_problem(other_access.user.get(f"/v1/jobs/{made.job(BOARD)}/{path}"), 404, "not_found")


def test_the_recommended_point_is_the_devices_own(
    access: Any, made: Made, check_problem: CheckProblem
) -> None:
    job_id = made.job(BOARD, PHONE)
    made.file(job_id, "bundles/p0.zip", b"first")
    made.file(job_id, "bundles/p1.zip", b"second")
    address = f"/v1/jobs/{job_id}/models"
    answer = access.user.get(f"{address}/recommended?device=board")
    assert answer.content == b"second"
    assert answer.headers["content-disposition"] == 'attachment; filename="p1.zip"'
    assert access.user.get(f"{address}/p0").content == b"first"
    assert access.user.get(f"{address}/p0?device=phone").content == b"first"
    assert "board, phone" in check_problem(
        access.user.get(f"{address}/recommended"), 422, "invalid"
    )
    assert "meets 0.1 ms" in check_problem(
        access.user.get(f"{address}/recommended?device=phone"), 404, "not_found"
    )
    check_problem(access.user.get(f"{address}/p1?device=phone"), 404, "not_found")
    check_problem(access.user.get(f"{address}/p9"), 404, "not_found")
    check_problem(access.user.get(f"{address}/p0?device=watch"), 404, "not_found")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=2000-", 2000, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        ("bytes=-99999", 0, SIZE),
        (f"bytes=5-{SIZE + 7}", 5, SIZE),
        ("bytes=0-" + "9" * 5000, 0, SIZE),
    ],
)
def test_a_range_is_sent(access: Any, made: Made, asked: str, start: int, end: int) -> None:
    job_id = made.job(BOARD)
    sha256 = made.file(job_id, "inn.zip")
    answer = access.user.get(f"/v1/jobs/{job_id}/inn", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["etag"] == f'"{sha256}"'


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "items=0-1", "bytes=9-2", "bytes=-", "bytes=a-b", "bytes=²-"]
)
def test_what_is_no_single_range_gets_all(access: Any, made: Made, asked: str) -> None:
    job_id = made.job(BOARD)
    made.file(job_id, "inn.zip")
    answer = access.user.get(f"/v1/jobs/{job_id}/inn", headers={"Range": asked.encode("utf-8")})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    "asked", [f"bytes={SIZE}-", "bytes=-0", "bytes=99999-100000", "bytes=" + "9" * 5000 + "-"]
)
def test_a_range_behind_the_end_is_refused(
    access: Any, made: Made, check_problem: CheckProblem, asked: str
) -> None:
    job_id = made.job(BOARD)
    made.file(job_id, "inn.zip")
    answer = access.user.get(f"/v1/jobs/{job_id}/inn", headers={"Range": asked})
    check_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


def test_the_elastic_model_is_served(access: Any, made: Made, check_problem: CheckProblem) -> None:
    job_id = made.job(BOARD)
    address = f"/v1/jobs/{job_id}/elastic"
    assert "has no elastic.zip" in check_problem(access.user.get(address), 404, "not_found")
    made.file(job_id, "elastic.zip", b"all points")
    answer = access.user.get(address)
    assert answer.content == b"all points"
    assert answer.headers["content-disposition"] == 'attachment; filename="elastic.zip"'


def test_an_empty_file_has_no_ranges() -> None:
    assert parse_range(None, 0) is None
    for asked in ("bytes=0-", "bytes=-1"):
        with pytest.raises(RangeError):
            parse_range(asked, 0)


def test_conditions_are_kept(access: Any, made: Made) -> None:
    job_id = made.job(BOARD)
    etag, address = f'"{made.file(job_id, "inn.zip")}"', f"/v1/jobs/{job_id}/inn"

    def ask(**headers: str) -> httpx.Response:
        answer: httpx.Response = access.user.get(
            address, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        return answer

    assert ask(If_None_Match=f'"x", W/{etag}').status_code == 304
    assert ask(If_None_Match="*").content == b""
    assert ask(If_None_Match='"x"').status_code == 200
    assert ask(Range="bytes=0-1", If_Range=etag).status_code == 206
    assert ask(Range="bytes=0-1", If_Range='"x"').content == CONTENT


def test_a_file_that_changed_is_not_sent(
    access: Any, made: Made, check_problem: CheckProblem
) -> None:
    job_id = made.job(BOARD)
    made.file(job_id, "inn.zip")
    made.store.write(f"jobs/{job_id}/inn.zip", CONTENT[:-1] + b"x")
    check_problem(access.user.get(f"/v1/jobs/{job_id}/inn"), 503, "corrupt_file")
    made.store.delete(f"jobs/{job_id}/inn.zip")
    check_problem(access.user.get(f"/v1/jobs/{job_id}/inn"), 503, "storage_failed")


def test_figure_and_result(access: Any, made: Made, check_problem: CheckProblem) -> None:
    job_id = made.job(BOARD)
    made.file(job_id, "figures/fronts.html", b"<html>")
    made.file(job_id, "result.json", b'{"job": {}, "devices": []}')
    html = access.user.get(f"/v1/jobs/{job_id}/figure")
    assert (html.content, html.headers["content-type"]) == (b"<html>", "text/html; charset=utf-8")
    assert html.headers["content-security-policy"] == "sandbox allow-scripts"
    check_problem(access.user.get(f"/v1/jobs/{job_id}/figure?format=png"), 404, "not_found")
    check_problem(access.user.get(f"/v1/jobs/{job_id}/figure?format=svg"), 422, "invalid_request")
    assert access.user.get(f"/v1/jobs/{job_id}/result").json() == {"job": {}, "devices": []}


def test_a_discretization_has_one_bundle(
    access: Any, made: Made, check_problem: CheckProblem
) -> None:
    job_id, searched = made.job(kind="discretize"), made.job(BOARD)
    check_problem(access.user.get(f"/v1/jobs/{job_id}/bundle"), 404, "not_found")
    made.file(job_id, "bundles/w-1-2.zip", b"zip")
    assert access.user.get(f"/v1/jobs/{job_id}/bundle").content == b"zip"
    check_problem(access.user.get(f"/v1/jobs/{searched}/bundle"), 409, "conflict")
    running = made.job(kind="discretize", state=JobState.PUBLISHING)
    check_problem(access.user.get(f"/v1/jobs/{running}/bundle"), 409, "conflict")


def test_two_jobs_are_compared_at_one_reference(
    access: Any, made: Made, check_problem: CheckProblem
) -> None:
    first = made.job(BOARD, PHONE)
    second = made.job(
        device_result("board", [(1.0, 0.8), (6.0, 0.95)]), device_result("watch", [(1.0, 0.5)])
    )
    answer = access.user.get("/v1/compare", params=[("jobs", first), ("jobs", second)])
    found = Comparison.model_validate_json(answer.content)
    (board,) = found.devices
    assert (board.device, board.reference) == ("board", (6.0, 0.1))
    # 0.7 accuracy over 5 ms and 0.1 more over 4 ms; the other's second point is the reference's
    # own latency.
    assert board.hypervolume == pytest.approx({first: 0.7 * 5 + 0.1 * 4, second: 0.7 * 5})
    assert board.better == first
    assert found.only_in == {first: ["phone"], second: ["watch"]}
    same = access.user.get(
        "/v1/compare", params=[("jobs", first), ("jobs", made.job(BOARD))]
    ).json()
    assert same["devices"][0]["better"] is None
    images = made.job({**device_result("board", [(1.0, 31.0)]), "metric": "psnr_db"})
    detail = check_problem(
        access.user.get("/v1/compare", params=[("jobs", first), ("jobs", images)]), 409, "conflict"
    )
    assert "accuracy" in detail and "PSNR" in detail
    check_problem(
        access.user.get("/v1/compare", params=[("jobs", first), ("jobs", first)]), 422, "invalid"
    )
    check_problem(access.user.get("/v1/compare", params={"jobs": first}), 422, "invalid_request")
    check_problem(
        access.user.get("/v1/compare", params=[("jobs", first), ("jobs", "job_x")]),
        404,
        "not_found",
    )
