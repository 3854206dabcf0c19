"""Logs of runs are kept, and then Ray forgets the runs."""

from __future__ import annotations

from datetime import timedelta

from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.dispatch.job_log import log_path
from inn_automl_services.coordinator.dispatch.runner import (
    RunState,
    RunStatus,
)

from tests.contract.dispatch.conftest import update


def test_old_runs_are_forgotten_once_their_log_is_kept(dispatcher, runner, context, project, queue):
    job = queue(project("a"))[0]
    dispatcher.claim()
    submission = runner.submissions[0]
    runner.printed[submission.submission_id] = "the end\n"
    runner.known[submission.submission_id] = RunStatus(
        submission.submission_id, job, RunState.ENDED, ended_at=now() - timedelta(days=1)
    )
    dispatcher.reconcile()
    assert not runner.known
    assert (
        context.store.read(log_path(job)).decode()
        == f"=== run {submission.submission_id}\nthe end\n"
    )


def test_too_many_ended_runs_are_forgotten_before_their_logs_are_kept(make_dispatcher, runner):
    # no time for any log
    dispatcher = make_dispatcher(log_time_limit_s=-1.0, max_runs_without_log=3)
    for minute in range(5):
        ended = RunStatus(
            f"run-{minute}",
            new_id("job"),
            RunState.ENDED,
            ended_at=now() - timedelta(minutes=minute),
        )
        runner.known[ended.submission_id] = ended
    dispatcher.reconcile()
    assert set(runner.known) == {"run-0", "run-1", "run-2"}


def test_the_log_tells_of_every_attempt(dispatcher, runner, database, context, project, queue):
    job = queue(project("a"))[0]
    for text in ("first\n", "second\n"):
        dispatcher.claim()
        runner.printed[runner.submissions[-1].submission_id] = text
        dispatcher.reconcile()
        runner.end(runner.submissions[-1])
        dispatcher.reconcile()
        update(database, job, available_at=now())
    lines = context.store.read(log_path(job)).decode().splitlines()
    assert [line for line in lines if not line.startswith("===")] == ["first", "second"]
