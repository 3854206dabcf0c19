"""Queries of dispatch: whose turn it is, and what runs.

A claim looks at one row of each project's queue and at what runs now, never at a queue: conditions
on the state are literals, since only then do the partial indexes serve a prepared statement.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from inn_automl_services.coordinator import lease
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.tables import JobRow, ProjectRow
from inn_automl_services.coordinator.dispatch.runner import Submission
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.keys import hash_secret

NEAR_LIMIT = 64
"""Closer than this to the limit of all projects, coordinators claim one after the other: those
that claim side by side at one database do not start as many together."""
_CLAIM_LOCK = 0x1_4E4E
"""Key of PostgreSQL's advisory lock for that."""

_MAX_IDS = 10_000
"""Ids in one query. PostgreSQL takes 65,535 parameters at most, SQLite 32,766."""
_RIVAL = aliased(JobRow)
"""Another job of the same queue. One for all queries, since making it costs more than a query."""
_COLUMNS = (JobRow.id, JobRow.state, JobRow.attempt, JobRow.submission_id, JobRow.lease_token_hash)
# Between two instants that bound nothing: without statistics, PostgreSQL takes most jobs to be
# leased and reads them all; a range it takes to be narrow, and goes to the index of what is
# leased.
_LEASED = and_(
    JobRow.lease_token_hash.is_not(None),
    JobRow.lease_expires_at.between(
        datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
    ),
)


@dataclass(frozen=True)
class LeasedJob:
    """A job that a run holds, as it was when it was looked at."""

    id: str
    state: str
    attempt: int
    submission_id: str
    token_hash: str

    @classmethod
    def from_submission(cls, submission: Submission) -> LeasedJob:
        """The job of a submission, as it was claimed."""
        token_hash = hash_secret(submission.token)
        return cls(submission.job_id, "", submission.attempt, submission.submission_id, token_hash)

    @property
    def log_fields(self) -> dict[str, str | int]:
        return {
            "job_id": self.id,
            "submission_id": self.submission_id,
            "attempt": self.attempt,
        }


def claim_next(
    session: Session, *, max_running: int, lease_s: float, limit: int = 1
) -> list[Submission]:
    """Begins an attempt at each of the jobs whose turn it is, at most `limit`; empty if none may
    start now.

    The project with the fewest running jobs comes first, of several the one that was served
    longest ago; inside of a project, the higher priority, then the older job.
    """
    room = max_running - _num_leased(session)
    if room <= NEAR_LIMIT:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(select(func.pg_advisory_xact_lock(_CLAIM_LOCK)))
        room = max_running - _num_leased(session)
    limit = min(limit, room)
    turns = [_Turn(*row) for row in _projects_in_turn(session)]
    locked: dict[str, ProjectRow] = {}
    submissions: list[Submission] = []
    while turns and len(submissions) < limit:
        turn = heapq.heappop(turns)
        if turn.project_id not in locked:
            # So that its limits hold however many coordinators claim; one that another holds is
            # passed over.
            query = (
                select(ProjectRow)
                .where(ProjectRow.id == turn.project_id)
                .with_for_update(skip_locked=True)
            )
            project = session.execute(
                query.execution_options(populate_existing=True)
            ).scalar_one_or_none()
            if project is None:
                continue
            locked[turn.project_id] = project
            # Counted again, since others claim too.
            num_running = _num_running(session, turn.project_id)
            if num_running != turn.num_running:
                heapq.heappush(turns, replace(turn, num_running=num_running))
                continue
        project = locked[turn.project_id]
        if turn.num_running >= project.max_running_jobs or not _has_gpu_hours(project):
            continue
        job = session.execute(_next_of(turn.project_id)).scalar_one_or_none()
        if job is None:
            continue
        token = transitions.claim(session, job, lease_s=lease_s)
        submissions.append(Submission(job.id, job.attempt, str(job.submission_id), token))
        project.served_at = now()
        heapq.heappush(
            turns, _Turn(turn.num_running + 1, project.served_at.timestamp(), turn.project_id)
        )
    return submissions


@dataclass(frozen=True, order=True)
class _Turn:
    """A project in the order of turns."""

    num_running: int
    served_at: float
    project_id: str


def leased(session: Session) -> list[LeasedJob]:
    """Every job that a run holds, those that are being cancelled among them."""
    return [_leased_job(job) for job in session.execute(select(*_COLUMNS).where(_LEASED))]


def expired(session: Session, limit: int = 200) -> list[LeasedJob]:
    """Jobs whose lease has expired."""
    query = (
        select(*_COLUMNS)
        .where(_LEASED, lease.expired(JobRow, now()))
        .order_by(JobRow.lease_expires_at)
        .limit(limit)
    )
    return [_leased_job(job) for job in session.execute(query)]


def _leased_job(row: Row[*tuple[Any, ...]]) -> LeasedJob:
    return LeasedJob(row.id, row.state, row.attempt, row.submission_id, row.lease_token_hash)


def lock(session: Session, leased: LeasedJob) -> JobRow | None:
    """Locks the job and returns it, if the same run still holds it."""
    query = (
        select(JobRow)
        .where(JobRow.id == leased.id, JobRow.lease_token_hash == leased.token_hash)
        .with_for_update()
    )
    return session.execute(query).scalar_one_or_none()


def holders(session: Session, job_ids: Collection[str]) -> dict[str, str | None]:
    """Jobs that were not deleted, each with the submission id of the run that holds it, if one
    does.
    """
    query = select(JobRow.id, case((_LEASED, JobRow.submission_id)))
    ids, found = list(job_ids), dict[str, str | None]()
    for start in range(0, len(ids), _MAX_IDS):
        rows = session.execute(query.where(JobRow.id.in_(ids[start : start + _MAX_IDS])))
        found.update((row[0], row[1]) for row in rows)
    return found


def _num_leased(session: Session) -> int:
    return session.execute(select(func.count()).select_from(JobRow).where(_LEASED)).scalar_one()


def _projects_in_turn(session: Session) -> list[tuple[int, float, str]]:
    """Projects that have a job to start and room for it: running jobs, when it was served last,
    id; in turn.
    """
    running = (
        select(JobRow.project_id, func.count().label("num_running"))
        .where(_LEASED)
        .group_by(JobRow.project_id)
        .subquery()
    )
    num_running = func.coalesce(running.c.num_running, 0)
    waits = select(_RIVAL.id).where(_waits(_RIVAL), _RIVAL.project_id == ProjectRow.id).exists()
    query = (
        select(num_running, ProjectRow.served_at, ProjectRow.id)
        .outerjoin(running, running.c.project_id == ProjectRow.id)
        .where(num_running < ProjectRow.max_running_jobs, _HAS_GPU_HOURS, waits)
    )
    return sorted(
        (count, served_at.timestamp() if served_at else 0.0, project_id)
        for count, served_at, project_id in session.execute(query)
    )


def _next_of(project_id: str) -> Select[JobRow]:
    """The first job of a project's queue, locked; one that is being cancelled right now is passed
    over.
    """
    query = (
        select(JobRow)
        .where(_at_the_head(JobRow, literal(project_id)))
        .order_by(JobRow.queue_position)
        .limit(1)
    )
    return query.with_for_update(skip_locked=True)


def _at_the_head(
    job: type[JobRow], project_id: ColumnElement[str] | InstrumentedAttribute[str]
) -> ColumnElement[bool]:
    """Jobs that may start now and have the highest priority of those. In two steps, as the index
    goes one way only.
    """
    highest = select(_RIVAL.priority).where(_waits(_RIVAL), _RIVAL.project_id == project_id)
    highest = highest.order_by(_RIVAL.priority.desc()).limit(1)
    subquery = highest.correlate_except(_RIVAL).scalar_subquery()
    return and_(_waits(job), job.project_id == project_id, job.priority == subquery)


def _waits(job: type[JobRow]) -> ColumnElement[bool]:
    return and_(job.state == literal_column("'queued'"), job.available_at <= now())


_HAS_GPU_HOURS = or_(
    ProjectRow.max_gpu_hours.is_(None), ProjectRow.gpu_s < ProjectRow.max_gpu_hours * 3600.0
)


def _has_gpu_hours(project: ProjectRow) -> bool:
    return project.max_gpu_hours is None or project.gpu_s < project.max_gpu_hours * 3600.0


def _num_running(session: Session, project_id: str) -> int:
    return session.execute(
        select(func.count()).select_from(JobRow).where(_LEASED, JobRow.project_id == project_id)
    ).scalar_one()
