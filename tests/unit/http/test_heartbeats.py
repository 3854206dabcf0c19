"""Heartbeats go on beside the work, and end it when they are refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from inn_automl.core.errors import ConnectionLostError, RefusedError, StaleLeaseError
from inn_automl.http.heartbeats import Heartbeats

LIMIT_S = 10.0


class Beats:
    """Counts heartbeats; raises what it is given, once each."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.count, self.heard = list(errors), 0, threading.Event()

    def __call__(self) -> None:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        self.heard.set()


def test_they_are_sent_until_the_block_ends() -> None:
    beats = Beats()
    with Heartbeats(beats, 0.001) as heartbeats:
        assert beats.heard.wait(LIMIT_S)
        heartbeats.check()
    heartbeats.close(LIMIT_S)
    assert not any(thread.name == "heartbeats" for thread in threading.enumerate())


def test_one_is_sent_at_once_on_request() -> None:
    beats = Beats()
    with Heartbeats(beats, 3600.0) as heartbeats:
        heartbeats.wake()
        assert beats.heard.wait(LIMIT_S)


def test_one_that_is_not_heard_is_logged_and_followed_by_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    beats = Beats(ConnectionLostError("no answer."))
    with Heartbeats(beats, 0.001, ends_on=(RefusedError,)) as heartbeats:
        assert beats.heard.wait(LIMIT_S)
        heartbeats.check()
    assert "heartbeat not heard: no answer." in caplog.text


@pytest.mark.parametrize("ask", [Heartbeats.check, lambda beats: beats.pause(LIMIT_S)])
def test_a_refusal_ends_them_and_is_raised_in_the_working_thread(
    ask: Callable[[Heartbeats], None],
) -> None:
    beats = Beats(StaleLeaseError("the lease has ended."))
    with Heartbeats(beats, 0.001, ends_on=(RefusedError,)) as heartbeats:
        with pytest.raises(StaleLeaseError, match="has ended"):
            heartbeats.pause(LIMIT_S)
        with pytest.raises(StaleLeaseError, match="has ended"):
            ask(heartbeats)
    assert beats.count == 1
