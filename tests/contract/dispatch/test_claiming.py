"""Nobody is started twice, limits hold, and a runner that is away costs no attempt."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.dispatch import repository
from inn_automl_services.coordinator.dispatch.dispatcher import Dispatcher
from inn_automl_services.coordinator.dispatch.repository import LeasedJob
from inn_automl_services.coordinator.dispatch.runner import (
    RunnerUnavailableError,
    Submission,
)
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.jobs.lifecycle import RunFailed, RunSucceeded

from inn_automl.core.errors import BackendError
from tests.contract.dispatch.conftest import FakeRunner, claim, find, update


def test_two_dispatchers_start_each_of_200_jobs_once(context, database, project, queue):
    jobs = [job for name in ("a", "b", "c", "d") for job in queue(project(name), 50)]
    runner = FakeRunner()
    threads = [threading.Thread(target=Dispatcher(context, runner).claim) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Dispatcher(context, runner).claim()  # what one passed over because the other held its project
    assert Counter(submission.job_id for submission in runner.submissions) == Counter(jobs)
    assert len({submission.token for submission in runner.submissions}) == len(jobs)
    for submission in runner.submissions:
        job = find(database, submission.job_id)
        assert (job.state, job.attempt, job.submission_id) == (
            "training",
            1,
            submission.submission_id,
        )


def test_dispatchers_racing_for_failing_jobs_never_run_one_twice_at_a_time(
    context, database, project, queue
):
    """Jobs end and come back while two dispatchers claim: the runner checks that no job runs
    twice.
    """
    jobs = queue(project("a"), 30)

    class Checking(FakeRunner):
        def submit(self, submission: Submission) -> None:
            with self._lock:
                assert submission.job_id not in running, "started while it ran"
                running.add(submission.job_id)
            super().submit(submission)
            with database.write() as session:
                job = repository.lock(session, LeasedJob.from_submission(submission))
                with self._lock:
                    running.discard(submission.job_id)
                transitions.apply(
                    session, job, RunFailed(True) if submission.attempt == 1 else RunSucceeded()
                )
                job.available_at = now()

    running: set[str] = set()
    runner = Checking()
    threads = [threading.Thread(target=Dispatcher(context, runner).claim) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while claims := len(runner.submissions):
        Dispatcher(context, runner).claim()
        if len(runner.submissions) == claims:
            break
    assert Counter(submission.job_id for submission in runner.submissions) == dict.fromkeys(jobs, 2)
    assert {find(database, job).state for job in jobs} == {"succeeded"}


def test_projects_take_turns(database, project, queue):
    first, second = queue(project("many"), 6), queue(project("few"), 2)
    claimed = [claim(database) for _ in range(8)]
    assert claimed == [first[0], second[0], first[1], second[1], *first[2:]]
    assert claim(database) is None


def test_priorities_count_inside_of_a_project_then_age(database, project, queue):
    owner = project("a")
    old, urgent, low, other = (queue(owner, priority=priority)[0] for priority in (0, 9, -5, 0))
    assert [claim(database) for _ in range(4)] == [urgent, old, other, low]


def test_a_job_that_must_wait_holds_up_nobody(database, project, queue):
    owner = project("a")
    queue(owner, priority=9, available_at=now() + timedelta(hours=1))
    ready = queue(owner)
    assert [claim(database), claim(database)] == [ready[0], None]


def test_limits_of_projects_and_of_all(database, project, queue):
    queue(project("two at a time", max_running_jobs=2), 5)
    queue(project("nothing left", max_gpu_hours=1.0, gpu_s=3600.0), 5)
    queue(project("paused", max_running_jobs=0), 5)
    assert [claim(database) is not None for _ in range(3)] == [True, True, False]
    queue(project("more"), 5)
    assert [claim(database, max_running=4) is not None for _ in range(3)] == [True, True, False]


def test_limits_hold_while_coordinators_race(context, database, project, queue):
    queue(project("a", max_running_jobs=3), 40)
    queue(project("b"), 40)
    limited = Context(
        context.settings.model_copy(update={"max_running_jobs": 20}),
        database,
        context.store,
        context.keys,
    )
    runner = FakeRunner()
    threads = [threading.Thread(target=Dispatcher(limited, runner).claim) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Dispatcher(limited, runner).claim()
    owners = Counter(
        find(database, submission.job_id).project_id for submission in runner.submissions
    )
    assert sorted(owners.values()) == [3, 17]


def test_nothing_is_claimed_while_ray_is_away(make_dispatcher, runner, database, project, queue):
    passed_s = [0.0]
    dispatcher = make_dispatcher(clock=lambda: passed_s[0])
    job = queue(project("a"))[0]
    runner.error = RunnerUnavailableError("gone")
    with pytest.raises(RunnerUnavailableError):
        dispatcher.claim()
    assert (find(database, job).state, find(database, job).attempt) == ("queued", 0)
    runner.error = None
    dispatcher.claim()
    assert not runner.submissions, "it waits a moment before it asks again"
    passed_s[0] += 1.0
    dispatcher.claim()
    assert find(database, job).state == "training"


def test_ray_that_goes_away_while_submitting_costs_no_attempt(
    dispatcher, runner, database, project, queue
):
    job = queue(project("a"))[0]
    runner.check = lambda: None
    runner.error = RunnerUnavailableError("gone")
    with pytest.raises(RunnerUnavailableError):
        dispatcher.claim()
    found = find(database, job)
    assert (found.state, found.attempt, found.lease_token_hash) == ("queued", 0, None)
    assert found.available_at > now()


def test_a_job_that_ray_refuses_fails_after_its_attempts(
    dispatcher, runner, database, project, queue
):
    job = queue(project("a"))[0]
    runner.error = BackendError("no such thing.")
    dispatcher.claim()
    assert find(database, job).state == "queued" and "no such thing" in find(database, job).notes[0]
    update(database, job, available_at=now())
    dispatcher.claim()
    assert find(database, job).state == "failed"
    assert find(database, job).error["code"] == "not_started"
