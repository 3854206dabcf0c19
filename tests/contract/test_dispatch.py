"""Dispatch, over both databases and with a runner that only pretends: nobody is started twice, and
none is lost.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import JobRow, ProjectRow
from inn_automl_services.coordinator.dispatch import repository
from inn_automl_services.coordinator.dispatch.dispatcher import Dispatcher, dispatch_errors
from inn_automl_services.coordinator.dispatch.job_log import log_path
from inn_automl_services.coordinator.dispatch.repository import LeasedJob
from inn_automl_services.coordinator.dispatch.runner import (
    Runner,
    RunnerUnavailableError,
    RunState,
    RunStatus,
    Submission,
)
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.jobs.lifecycle import CancelRequested, RunFailed, RunSucceeded
from inn_automl_services.coordinator.keys import KeyRing
from inn_automl_services.coordinator.settings import Settings
from sqlalchemy import select

from inn_automl.api.jobs import JobState
from inn_automl.core.errors import BackendError
from inn_automl.core.object_store import ObjectStore

SPEC = {"dataset": "digits", "budget": {"devices": [{"name": "here"}]}}
COST = {"wall_s": 0.0, "cpu_s": 0.0, "gpu_s": 0.0}


class FakeRunner(Runner):
    """Remembers what it was asked; runs are what a test makes of them."""

    def __init__(self) -> None:
        self.known: dict[str, RunStatus] = {}
        self.submissions: list[Submission] = []
        self.stopped: list[str] = []
        self.printed: dict[str, str] = {}
        self.error: BackendError | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        if isinstance(self.error, RunnerUnavailableError) and not self.submissions:
            raise self.error

    def submit(self, submission: Submission) -> None:
        if self.error:
            raise self.error
        with self._lock:
            self.submissions.append(submission)
            self.known[submission.submission_id] = RunStatus(
                submission.submission_id, submission.job_id, RunState.RUNNING
            )

    def runs(self) -> dict[str, RunStatus]:
        if isinstance(self.error, RunnerUnavailableError):
            raise self.error
        return dict(self.known)

    def stop(self, submission_id: str) -> None:
        self.stopped.append(submission_id)

    def log(self, submission_id: str) -> str:
        return self.printed.get(submission_id, "")

    def forget(self, submission_id: str) -> None:
        self.known.pop(submission_id, None)

    def end(self, submission: Submission, message: str = "", *, began: bool = True) -> None:
        """The run's process is gone."""
        self.known[submission.submission_id] = RunStatus(
            submission.submission_id,
            submission.job_id,
            RunState.ENDED,
            message,
            began,
            ended_at=now(),
        )


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url, storage_url=f"file://{tmp_path}/storage", max_attempts=2
    )


@pytest.fixture
def context(settings: Settings, database: Database) -> Context:
    return Context(settings, database, ObjectStore(settings.storage_url), KeyRing(1000))


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def make_dispatcher(context: Context, runner: FakeRunner) -> Callable[..., Dispatcher]:
    """Makes dispatchers that compare at every call and give nobody time."""

    def make(clock: Callable[[], float] = time.monotonic, **changed: object) -> Dispatcher:
        update = {"reconcile_interval_s": 0.0, "missing_run_s": 0.0, **changed}
        settings = context.settings.model_copy(update=update)
        return Dispatcher(replace(context, settings=settings), runner, grace_s=0.0, clock=clock)

    return make


@pytest.fixture
def dispatcher(make_dispatcher: Callable[..., Dispatcher]) -> Dispatcher:
    return make_dispatcher()


@pytest.fixture
def project(database: Database) -> Callable[..., str]:
    def make(name: str, **limits: object) -> str:
        values = {"max_running_jobs": 1000, "max_gpu_hours": None, "gpu_s": 0.0, **limits}
        with database.write() as session:
            made = ProjectRow(id=new_id("prj"), name=name, created_at=now(), **values)
            session.add(made)
        return made.id

    return make


@pytest.fixture
def queue(database: Database) -> Callable[..., list[str]]:
    """Queues jobs of a project; returns their ids, oldest first."""

    def add(project_id: str, count: int = 1, **changed: object) -> list[str]:
        jobs = []
        with database.write() as session:
            for _ in range(count):
                job_id = new_id("job")
                values = {
                    "kind": "search",
                    "spec": SPEC,
                    "state": "queued",
                    "priority": 0,
                    "queue_position": job_id,
                    "available_at": now(),
                    "max_attempts": 2,
                    "cost_before": COST,
                    "cost": COST,
                    "notes": [],
                    "created_at": now(),
                    **changed,
                }
                jobs.append(JobRow(id=job_id, project_id=project_id, **values))
            session.add_all(jobs)
        return [job.id for job in jobs]

    return add


def find(database: Database, job_id: str) -> JobRow:
    with database.read() as session:
        return session.execute(select(JobRow).where(JobRow.id == job_id)).scalar_one()


def update(database: Database, job_id: str, **values: object) -> None:
    with database.write() as session:
        job = session.get_one(JobRow, job_id)
        for key, value in values.items():
            setattr(job, key, value)


def cancel(database: Database, job_id: str) -> None:
    with database.write() as session:
        transitions.apply(session, session.get_one(JobRow, job_id), CancelRequested())


def claim(database: Database, max_running: int = 1000) -> str | None:
    with database.write() as session:
        submissions = repository.claim_next(session, max_running=max_running, lease_s=60.0)
    return submissions[0].job_id if submissions else None


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


def test_more_jobs_than_a_query_takes_parameters(database, project, queue):
    (job,) = queue(project("a"))
    with database.read() as session:
        found = repository.holders(session, [job, *(new_id("job") for _ in range(70_000))])
    assert found == {job: None}


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
