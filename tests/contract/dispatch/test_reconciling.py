"""Runs that are silent, lost, stray or cancelled: no job is lost with them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.dispatch import repository
from inn_automl_services.coordinator.dispatch.dispatcher import Dispatcher, dispatch_errors
from inn_automl_services.coordinator.dispatch.runner import (
    RunnerUnavailableError,
    RunState,
    RunStatus,
)

from inn_automl.api.jobs import JobState
from tests.contract.dispatch.conftest import cancel, find, update


def test_a_silent_run_is_given_up_and_its_job_started_again(
    dispatcher, runner, database, project, queue
):
    job = queue(project("a"))[0]
    dispatcher.claim()
    dispatcher.reap()
    assert find(database, job).state == "training"
    update(database, job, lease_expires_at=now() - timedelta(seconds=1))
    dispatcher.reap()
    found = find(database, job)
    assert (found.state, found.attempt, found.lease_token_hash) == ("queued", 1, None)
    assert runner.stopped == [runner.submissions[0].submission_id]
    update(database, job, available_at=now())
    dispatcher.claim()
    assert find(database, job).attempt == 2
    update(database, job, lease_expires_at=now() - timedelta(seconds=1))
    dispatcher.reap()
    assert find(database, job).state == "failed"
    assert find(database, job).error["code"] == "run_silent"


def test_nobody_is_given_up_right_after_the_start(context, runner, database, project, queue):
    job = queue(project("a"))[0]
    Dispatcher(context, runner).claim()
    update(database, job, lease_expires_at=now() - timedelta(seconds=1))
    Dispatcher(context, runner).reap()
    assert find(database, job).state == "training"


def test_a_run_that_ended_without_a_word_is_lost_at_once(
    dispatcher, runner, database, project, queue
):
    job = queue(project("a"))[0]
    dispatcher.claim()
    runner.printed[runner.submissions[0].submission_id] = "one\nMemoryError: too large\n"
    runner.end(runner.submissions[0])
    dispatcher.reconcile()
    found = find(database, job)
    assert found.state == "queued" and "MemoryError: too large" in found.notes[0]


def test_runs_that_ray_forgot_are_lost(dispatcher, runner, database, project, queue):
    job = queue(project("a"))[0]
    dispatcher.claim()
    runner.known.clear()
    dispatcher.reconcile()
    assert find(database, job).state == "queued"


def test_a_run_that_ray_does_not_list_yet_is_not_lost(
    make_dispatcher, runner, database, project, queue
):
    dispatcher = make_dispatcher(missing_run_s=60.0)
    job = queue(project("a"))[0]
    dispatcher.claim()
    runner.known.clear()
    dispatcher.reconcile()
    assert find(database, job).state == "training"


def test_a_run_that_found_no_room_costs_no_attempt(dispatcher, runner, database, project, queue):
    job = queue(project("a"))[0]
    dispatcher.claim()
    runner.end(runner.submissions[0], began=False)
    dispatcher.reconcile()
    assert (find(database, job).state, find(database, job).attempt) == ("queued", 0)


def test_a_run_that_waits_for_room_keeps_its_lease(dispatcher, runner, database, project, queue):
    job = queue(project("a"))[0]
    dispatcher.claim()
    submission = runner.submissions[0]
    runner.known[submission.submission_id] = RunStatus(
        submission.submission_id, job, RunState.PENDING
    )
    update(database, job, lease_expires_at=now() + timedelta(seconds=1))
    dispatcher.reconcile()
    assert find(database, job).lease_expires_at > now() + timedelta(seconds=100)


def test_cancelling_stops_the_run_and_waits_for_its_end(
    dispatcher, runner, database, project, queue
):
    job = queue(project("a"))[0]
    dispatcher.claim()
    submission = runner.submissions[0]
    cancel(database, job)
    dispatcher.reconcile()
    assert find(database, job).state == "cancelling" and runner.stopped == [
        submission.submission_id
    ]
    runner.end(submission)
    dispatcher.reconcile()
    found = find(database, job)
    assert (found.state, found.lease_token_hash) == ("cancelled", None)


def test_cancelling_a_run_that_ray_does_not_know(dispatcher, runner, database, project, queue):
    job = queue(project("a"))[0]
    dispatcher.claim()
    runner.known.clear()
    cancel(database, job)
    dispatcher.reconcile()
    assert find(database, job).state == "cancelled"


def test_cancelling_while_ray_is_away_ends_with_the_lease(
    dispatcher, runner, database, project, queue
):
    job = queue(project("a"))[0]
    dispatcher.claim()
    cancel(database, job)
    runner.error = RunnerUnavailableError("gone")
    update(database, job, lease_expires_at=now() - timedelta(seconds=1))
    dispatcher.tick()
    assert find(database, job).state == "cancelled"


def test_a_cancelled_queued_job_is_never_started(dispatcher, runner, database, project, queue):
    job = queue(project("a"))[0]
    cancel(database, job)
    dispatcher.claim()
    assert not runner.submissions and find(database, job).state == JobState.CANCELLED


def test_runs_that_hold_no_job_are_stopped(dispatcher, runner, database, project, queue):
    job = queue(project("a"))[0]
    dispatcher.claim()
    mine = runner.submissions[0].submission_id
    runner.known["stray"] = RunStatus("stray", job, RunState.RUNNING)
    runner.known["deleted"] = RunStatus("deleted", new_id("job"), RunState.RUNNING)
    dispatcher.reconcile()
    assert set(runner.stopped) == {"stray", "deleted"} and mine not in runner.stopped


def test_more_jobs_than_a_query_takes_parameters(database, project, queue):
    (job,) = queue(project("a"))
    with database.read() as session:
        found = repository.holders(session, [job, *(new_id("job") for _ in range(70_000))])
    assert found == {job: None}


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ZeroDivisionError(), "unforeseen"), (RunnerUnavailableError("gone"), "runner")],
)
def test_no_error_ends_the_loop(dispatcher, runner, database, project, queue, error, kind):
    job = queue(project("a"))[0]
    counter = dispatch_errors.labels("reconcile", kind)
    before = counter._value.get()

    def runs() -> dict[str, RunStatus]:
        raise error

    runner.runs = runs
    dispatcher.tick()
    assert find(database, job).state == "training"
    assert counter._value.get() == before + 1
