"""What is retried, how often, and after how long."""

from __future__ import annotations

import math

import httpx
import pytest

from inn_automl.api.problems import MEDIA_TYPE
from inn_automl.core.errors import NotFoundError, UnavailableError
from inn_automl.http.retries import RETRIED_STATUSES, RetryPolicy, restart

PROBLEM = {"type": "t", "title": "T", "detail": "the fault.", "code": "some_code"}


def answer(status: int, *, is_coordinators: bool = True, **headers: str) -> httpx.Response:
    if not is_coordinators:
        return httpx.Response(status, text="<html>", headers=headers)
    headers["Content-Type"] = MEDIA_TYPE
    return httpx.Response(status, json={**PROBLEM, "status": status}, headers=headers)


class Service:
    """Answers in turn; the last answer stands. Keeps the pauses between requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.num_requests, self.pauses = list(answers), 0, list[float]()

    def send(self) -> httpx.Response:
        self.num_requests += 1
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(given, Exception):
            raise given
        return given

    def policy(self, **settings: float | bool) -> RetryPolicy:
        return RetryPolicy(sleep=self.pauses.append, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "status", [400, 401, 404, 408, 409, 422, 425, 429, 500, 501, 502, 503, 504]
)
@pytest.mark.parametrize("is_coordinators", [True, False])
def test_one_table_says_which_statuses_are_retried(status: int, is_coordinators: bool) -> None:
    given = answer(status, is_coordinators=is_coordinators)
    assert RetryPolicy().retries_answer(given) == (status in RETRIED_STATUSES)
    assert RetryPolicy(is_unattended=True).retries_answer(given) == (
        status in RETRIED_STATUSES or status >= 500 or not is_coordinators
    )


def test_delays_double_up_to_the_longest() -> None:
    service = Service(answer(503))
    service.policy(deadline_s=60.0, first_delay_s=1.0, max_delay_s=8.0).retrying()(service.send)
    expected = [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    assert len(service.pauses) >= len(expected)
    for pause, delay in zip(service.pauses, expected, strict=False):
        assert 0.75 * delay <= pause <= 1.25 * delay


@pytest.mark.parametrize("given", [answer(503), httpx.ConnectError("refused")])
def test_the_last_outcome_stands_when_the_deadline_is_over(
    given: httpx.Response | Exception,
) -> None:
    service = Service(given)
    retrying = service.policy(deadline_s=20.0).retrying()
    if isinstance(given, Exception):
        with pytest.raises(httpx.ConnectError):
            retrying(service.send)
    else:
        assert retrying(service.send) is given
    assert 10.0 < sum(service.pauses) <= 20.0
    assert service.num_requests == len(service.pauses) + 1


def test_a_deadline_of_zero_is_a_single_attempt() -> None:
    service = Service(answer(503))
    service.policy(deadline_s=0.0).retrying()(service.send)
    assert service.num_requests == 1


def test_no_deadline_ends_with_an_answer() -> None:
    service = Service(*[answer(503)] * 50, httpx.Response(200))
    assert service.policy(deadline_s=math.inf).retrying()(service.send).status_code == 200


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7.0, 7.0), ("nonsense", 0.1, 0.4), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.1, 0.4)],
)
def test_an_answer_may_ask_for_a_longer_delay(header: str, low: float, high: float) -> None:
    service = Service(answer(429, **{"Retry-After": header}), httpx.Response(200))
    service.policy().retrying()(service.send)
    assert low <= service.pauses[0] <= high


@pytest.mark.parametrize(
    ("error", "always", "if_repeatable"),
    [
        (httpx.ConnectError("refused"), True, True),
        (httpx.ConnectTimeout("late"), True, True),
        (httpx.ReadError("reset"), False, True),
        (httpx.ReadTimeout("late"), False, True),
        (httpx.UnsupportedProtocol("ftp"), False, False),
        (ValueError("x"), False, False),
        (NotFoundError("x"), False, False),
        (UnavailableError("raised here"), False, False),
    ],
)
def test_what_may_have_arrived_is_repeated_only_if_that_does_no_harm(
    error: Exception, always: bool, if_repeatable: bool
) -> None:
    assert RetryPolicy().retries_error(error, is_repeatable=False) == always
    assert RetryPolicy().retries_error(error) == if_repeatable


def test_progress_restarts_delays_and_deadline() -> None:
    service = Service(answer(503))
    policy = service.policy(deadline_s=3.0, first_delay_s=1.0)
    attempts = 0

    def work() -> None:
        nonlocal attempts
        for attempt in policy.retrying():
            with attempt:
                attempts += 1
                if attempts <= 20:
                    restart(attempt)
                raise httpx.ReadError("cut")

    with pytest.raises(httpx.ReadError):
        work()
    assert attempts > 20
    assert all(pause <= 1.25 for pause in service.pauses[:20])


def test_each_retry_is_told_with_its_reason() -> None:
    reasons: list[str] = []
    service = Service(
        answer(503), answer(502, is_coordinators=False), httpx.ReadError(""), httpx.Response(200)
    )
    service.policy().retrying(on_retry=reasons.append)(service.send)
    assert reasons == ["the fault.", "status 502", "ReadError"]
