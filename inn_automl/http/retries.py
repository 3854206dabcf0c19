"""Retries of requests: one policy, one table of statuses."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import AttemptManager, RetryCallState, Retrying

from inn_automl.core.errors import InnAutomlError
from inn_automl.http.problems import is_coordinators, problem_of

RETRIED_STATUSES = frozenset({408, 425, 429, 502, 503, 504})
"""Too slow, too early, too many requests, or the service behind a proxy is away or restarts."""
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class RetryPolicy:
    """Retries a request with delays that double, with jitter, until a deadline.

    Args:
        deadline_s: seconds after the first attempt, or the last progress, beyond which no other
            attempt is made; 0 for a single attempt.
        first_delay_s: seconds before the second attempt.
        max_delay_s: the longest delay; an answer's Retry-After may ask for a longer one.
        is_unattended: whether nobody reads an error. Then every status of 500 or above is retried,
            and every answer that no coordinator wrote: a proxy whose coordinator restarts may say
            anything.
        sleep: what waits; raising ends the retries.
    """

    deadline_s: float = 30.0
    first_delay_s: float = 0.25
    max_delay_s: float = 10.0
    is_unattended: bool = False
    sleep: Callable[[float], Any] = time.sleep

    def retries_answer(self, response: httpx.Response) -> bool:
        """Return whether a later request may get another answer. The body must have been read."""
        if response.is_success or response.status_code in RETRIED_STATUSES:
            return not response.is_success
        return self.is_unattended and (
            response.status_code >= 500 or (response.is_error and problem_of(response) is None)
        )

    def retries_error(self, error: BaseException, *, is_repeatable: bool = True) -> bool:
        """Return whether a request that raised may be made again.

        Args:
            is_repeatable: whether it does no harm if the request arrives twice.
        """
        if isinstance(error, httpx.UnsupportedProtocol):
            return False
        if isinstance(error, httpx.TransportError):
            return is_repeatable or isinstance(error, NEVER_SENT)
        if isinstance(error, InnAutomlError) and error.status is not None:
            if error.status in RETRIED_STATUSES:
                return True
            return self.is_unattended and (error.status >= 500 or not is_coordinators(error))
        return False

    def retrying(
        self,
        *,
        is_repeatable: bool = True,
        on_retry: Callable[[str], None] = lambda reason: None,
    ) -> Retrying:
        """The policy as a `tenacity.Retrying`: to call a function with, or to loop over attempts.

        The function may return an `httpx.Response`; after the last attempt, its outcome stands.

        Args:
            is_repeatable: whether it does no harm if the request arrives twice.
            on_retry: called with the reason before each delay.
        """

        def is_retried(state: RetryCallState) -> bool:
            assert state.outcome is not None
            if error := state.outcome.exception():
                return self.retries_error(error, is_repeatable=is_repeatable)
            answer = state.outcome.result()
            return isinstance(answer, httpx.Response) and self.retries_answer(answer)

        return Retrying(
            retry=is_retried,
            wait=self._delay_s,
            stop=self._is_over,
            sleep=self.sleep,
            before_sleep=lambda state: on_retry(_reason(state)),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )

    def _delay_s(self, state: RetryCallState) -> float:
        doublings = min(state.attempt_number - 1, 30)
        delay_s = min(self.max_delay_s, self.first_delay_s * 2.0**doublings)
        return max(_retry_after_s(state), delay_s * random.uniform(0.75, 1.25))

    def _is_over(self, state: RetryCallState) -> bool:
        elapsed_s = max(state.idle_for, state.seconds_since_start or 0.0)
        return elapsed_s + state.upcoming_sleep > self.deadline_s


def restart(attempt: AttemptManager) -> None:
    """Counts delays and deadline of the attempts from now on: this one made progress."""
    state = attempt.retry_state
    state.start_time, state.attempt_number, state.idle_for = time.monotonic(), 1, 0.0


def reason_of(error: BaseException) -> str:
    """The message of an error; its name if it has none."""
    return str(error) or type(error).__name__


def _reason(state: RetryCallState) -> str:
    assert state.outcome is not None
    if error := state.outcome.exception():
        return reason_of(error)
    response: httpx.Response = state.outcome.result()
    problem = problem_of(response)
    return problem.detail if problem else f"status {response.status_code}"


def _retry_after_s(state: RetryCallState) -> float:
    """Seconds that an answer asks to wait (its Retry-After); 0 if it does not say."""
    if state.outcome is None or state.outcome.failed:
        return 0.0
    value = state.outcome.result().headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
