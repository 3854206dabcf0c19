"""All tables. A row is changed only by the repository of its domain."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """Instants, always aware and in UTC; SQLite knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: give an instant in UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


BIG_ID = BigInteger().with_variant(Integer, "sqlite")
"""Key of large tables. SQLite increments an INTEGER only, which has 64 bits there."""
Json = JSON().with_variant(JSONB(), "postgresql")


class Table(DeclarativeBase):
    """Named constraints, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy
        datetime: UtcDateTime(),
        dict[str, Any]: Json,
        list[Any]: Json,
        str: String(),
    }


class LeaseMixin:
    """Columns of rows that are worked on in attempts under leases; see `coordinator.lease`."""

    attempt: Mapped[int] = mapped_column(default=0)
    """Number of leases that were issued."""
    lease_token_hash: Mapped[str | None]
    """Hash of the token of the attempt that holds the row; null while none does."""
    lease_expires_at: Mapped[datetime | None]


class ProjectRow(Table):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    max_running_jobs: Mapped[int]
    max_gpu_hours: Mapped[float | None]
    gpu_s: Mapped[float] = mapped_column(default=0.0)
    """GPU seconds used by all jobs so far."""
    served_at: Mapped[datetime | None]
    """Time at which a job of it was last started. Of two projects with as many running jobs, the
    other one is next.
    """
    created_at: Mapped[datetime]


class ApiKeyRow(Table):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    role: Mapped[str]
    prefix: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    """SHA-256 of the secret, which is 256 random bits: nothing slower is needed."""
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class DatasetRow(Table):
    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        UniqueConstraint("project_id", "sha256"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    filename: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str]
    """Relative to the storage."""
    source_url: Mapped[str | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[datetime]


class JobRow(LeaseMixin, Table):
    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key"),
        CheckConstraint("attempt >= 0", name="attempt_not_negative"),
        # The head of a project's queue, at the same price for ten jobs and a hundred thousand.
        Index(
            "ix_jobs_queue",
            "project_id",
            "priority",
            "queue_position",
            postgresql_where=text("state = 'queued'"),
            sqlite_where=text("state = 'queued'"),
        ),
        Index("ix_jobs_project_id_id", "project_id", "id"),
        # What runs now: few rows of many.
        Index(
            "ix_jobs_leased",
            "lease_expires_at",
            postgresql_where=text("lease_token_hash IS NOT NULL"),
            sqlite_where=text("lease_token_hash IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str | None]
    kind: Mapped[str]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    """Dataset of the job; null for a built-in one."""
    spec: Mapped[dict[str, Any]]
    widths: Mapped[dict[str, Any] | None]
    """Requested widths of a discretization."""
    idempotency_key: Mapped[str | None]
    request_hash: Mapped[str | None]
    """Hash of the request that made the job. The same key with another request is refused."""

    state: Mapped[str]
    priority: Mapped[int]
    queue_position: Mapped[str]
    """Sort key of a queue: the job's id. A job that is queued again keeps it and so comes
    early.
    """
    available_at: Mapped[datetime]
    """Instant before which the job is not claimed: a retry waits longer each time."""
    max_attempts: Mapped[int]
    submission_id: Mapped[str | None]
    """Id of Ray's job for this attempt; stored until Ray is known to have stopped it."""
    progress: Mapped[dict[str, Any] | None]
    cost_before: Mapped[dict[str, Any]]
    """Cost of the attempts before this one."""
    cost: Mapped[dict[str, Any]]
    """Cost of this attempt."""
    notes: Mapped[list[Any]]
    error: Mapped[dict[str, Any] | None]
    mlflow_page: Mapped[str | None]
    """Page of the result in MLflow's UI, without the server's address."""
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEventRow(Table):
    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BIG_ID, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    data: Mapped[dict[str, Any]]
    at: Mapped[datetime]


class JobDeviceRow(Table):
    """One device's front of a succeeded job, as in its result.json."""

    __tablename__ = "job_devices"
    __table_args__ = (UniqueConstraint("job_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    position: Mapped[int]
    name: Mapped[str]
    result: Mapped[dict[str, Any]]


class ArtifactRow(Table):
    """A file of a job that users may download."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("job_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    path: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class DeviceRow(Table):
    __tablename__ = "devices"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    """The key that registered it: no other agent can speak in its name."""
    description: Mapped[dict[str, Any]]
    registered_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]


class MeasurementRow(LeaseMixin, Table):
    __tablename__ = "measurements"
    __table_args__ = (
        UniqueConstraint("job_id", "request_hash"),
        Index(
            "ix_measurements_queue",
            "device_id",
            "id",
            postgresql_where=text("state in ('queued', 'leased')"),
            sqlite_where=text("state in ('queued', 'leased')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    device_id: Mapped[str | None] = mapped_column(ForeignKey("devices.id", ondelete="SET NULL"))
    """Null after the device was removed; its name stays in `device_budget`."""
    request_hash: Mapped[str]
    """Hash of the request: the same request finds this row again."""
    device_budget: Mapped[dict[str, Any]]
    models: Mapped[dict[str, Any]]
    benchmark_config: Mapped[dict[str, Any]]
    state: Mapped[str]
    fraction: Mapped[float] = mapped_column(default=0.0)
    results: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
