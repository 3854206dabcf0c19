"""A run's words to the coordinator: through its restarts, and no further than its lease."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NoReturn

import httpx
import pytest
from inn_automl_workers.reporter import MAX_CHARS, RETRY, Reporter, printable
from inn_automl_workers.run_progress import RunProgress

from inn_automl.api.jobs import JobProgress
from inn_automl.core.errors import InputError


class LeftError(Exception):
    """In place of the end of the process."""


def leave(reason: str) -> NoReturn:
    raise LeftError(reason)


class Coordinator:
    """Answers as it is told; the last answer stands."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.asked = list(answers), []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(
            (request.url.path, json.loads(request.content) if request.content else None)
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def reporter(coordinator: Coordinator) -> Reporter:
    return Reporter(
        "http://here",
        "job_1",
        "token",
        leave=leave,
        retry=replace(RETRY, first_delay_s=0.0),
        transport=httpx.MockTransport(coordinator),
    )


def problem(status: int, code: str, detail: str) -> dict[str, object]:
    return {"type": "t", "title": "T", "status": status, "code": code, "detail": detail}


GOES_ON = httpx.Response(200, json={"cancel": False})


def test_it_outlasts_a_restart():
    coordinator = Coordinator(
        httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(429), GOES_ON
    )
    reporter(coordinator).beat()
    assert [path for path, _ in coordinator.asked] == ["/v1/runs/job_1/heartbeat"] * 4


def test_notes_are_sent_once_and_progress_each_time():
    coordinator = Coordinator(GOES_ON)
    mine = reporter(coordinator)
    mine.report(JobProgress(stage="training", fraction=0.5))
    mine.note("bad \0 text \ud800")
    mine.beat()
    mine.beat()
    first, second = (body for _, body in coordinator.asked)
    assert first["notes"] == ["bad  text ?"] and second["notes"] == []
    assert second["progress"]["fraction"] == 0.5


def test_a_cancel_ends_the_process():
    with pytest.raises(LeftError, match="cancelled"):
        reporter(Coordinator(httpx.Response(200, json={"cancel": True}))).beat()


def test_a_lost_lease_ends_the_process():
    body = problem(409, "stale_lease", "another attempt does")
    with pytest.raises(LeftError, match="another attempt"):
        reporter(Coordinator(httpx.Response(409, json=body))).beat()


def test_other_refusals_are_errors():
    body = problem(422, "invalid_request", "body.result is null")
    with pytest.raises(InputError, match="is null"):
        reporter(Coordinator(httpx.Response(422, json=body))).beat()


def test_cost_is_time_by_what_is_held():
    mine = reporter(Coordinator(GOES_ON))
    mine.hold(cpus=4, gpus=2)
    cost = mine.cost()
    assert cost.cpu_s == 4 * cost.wall_s and cost.gpu_s == 2 * cost.wall_s


def test_progress_goes_to_coordinator_and_log(capsys: pytest.CaptureFixture[str]):
    coordinator, pushed = Coordinator(GOES_ON), []
    mine = reporter(coordinator)
    progress = RunProgress(mine, lambda: pushed.append(1))
    progress.stage("training")
    progress.update(1.7, best="91 %")
    progress.note("few samples")
    mine.beat()
    _, body = coordinator.asked[-1]
    assert (body["progress"]["stage"], body["progress"]["fraction"]) == ("training", 1.0)
    assert body["progress"]["best"] == "91 %" and body["notes"] == ["few samples"]
    assert pushed == [1] and "training" in capsys.readouterr().out


def test_long_texts_are_cut():
    assert len(printable("x" * 10_000)) == MAX_CHARS
