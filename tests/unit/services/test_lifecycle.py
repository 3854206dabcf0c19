"""All states times all events: a move is one of MOVES or none, or it is refused."""

from __future__ import annotations

import itertools

import pytest
from inn_automl_services.coordinator.jobs.lifecycle import (
    STATE_OF_STAGE,
    TRANSITIONS,
    Action,
    CancelRequested,
    Claimed,
    Event,
    RetryRequested,
    RunFailed,
    RunLost,
    RunStopped,
    RunSucceeded,
    StageReached,
    Transition,
    transition,
)

from inn_automl.api.jobs import ENDED, RUNNING, JobKind, JobState
from inn_automl.core.errors import ConflictError

EVENTS: list[Event] = [
    *(Claimed(kind) for kind in JobKind),
    *(StageReached(stage) for stage in STATE_OF_STAGE),
    RunSucceeded(),
    RunFailed(retryable=True),
    RunFailed(retryable=False),
    RunLost(),
    CancelRequested(),
    RunStopped(),
    RetryRequested(),
]
ALL = list(itertools.product(JobState, EVENTS, [False, True]))


def moves() -> list[tuple[JobState, Event, bool, Transition]]:
    done = []
    for state, event, attempts_left in ALL:
        try:
            done.append(
                (state, event, attempts_left, transition(state, event, attempts_left=attempts_left))
            )
        except ConflictError as error:
            assert str(state) in str(error)
    return done


def test_every_move_is_a_legal_one_and_every_legal_one_is_reached() -> None:
    found = {(before, after.state) for before, _, _, after in moves() if after.state is not before}
    # legal, asked for by nothing
    unasked = {(JobState.QUEUED, JobState.FAILED), (JobState.QUEUED, JobState.MEASURING)}
    assert found | unasked == TRANSITIONS


def test_what_a_move_asks_for_follows_from_its_states() -> None:
    for before, event, _, after in moves():
        holds_lease = before in RUNNING or before is JobState.CANCELLING
        expected = Action.NOTHING
        if after.state in ENDED and after.state is not before:
            expected = Action.FINISH
        elif after.state is JobState.QUEUED:
            expected = Action.RELEASE if holds_lease else Action.RESET
        elif before is JobState.QUEUED:
            expected = Action.LEASE
        assert after.action is expected, (before, event)


@pytest.mark.parametrize("state", ENDED)
def test_only_a_retry_leaves_an_end_and_a_success_stays(state: JobState) -> None:
    left = {
        type(event)
        for before, event, _, after in moves()
        if before is state and after.state is not state
    }
    assert left == (set() if state is JobState.SUCCEEDED else {RetryRequested})


@pytest.mark.parametrize("state", RUNNING)
def test_a_lost_run_is_queued_again_while_attempts_are_left(state: JobState) -> None:
    assert transition(state, RunLost(), attempts_left=True) == Transition(
        JobState.QUEUED, Action.RELEASE
    )
    assert transition(state, RunLost(), attempts_left=False) == Transition(
        JobState.FAILED, Action.FINISH
    )
    assert transition(state, RunFailed(retryable=True), attempts_left=True) == Transition(
        JobState.QUEUED, Action.RELEASE
    )
    assert transition(state, RunFailed(retryable=False), attempts_left=True) == Transition(
        JobState.FAILED, Action.FINISH
    )


def test_a_job_never_goes_back_a_stage() -> None:
    for before, event, _, after in moves():
        if isinstance(event, StageReached) and before in RUNNING:
            assert RUNNING.index(after.state) >= RUNNING.index(before)


def test_a_job_to_be_cancelled_ends_cancelled_whatever_its_run_says() -> None:
    said = [RunSucceeded(), RunFailed(retryable=True), RunLost(), RunStopped()]
    for event in said:
        assert transition(JobState.CANCELLING, event, attempts_left=True) == Transition(
            JobState.CANCELLED, Action.FINISH
        )
