"""Queries of devices and measurements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session, defer
from sqlalchemy.sql.base import ExecutableOption

from inn_automl.api.jobs import ENDED, JobState
from inn_automl.api.measurements import MeasurementState
from inn_automl_services.coordinator import lease
from inn_automl_services.coordinator.db.tables import ApiKeyRow, DeviceRow, JobRow, MeasurementRow

_OBSOLETE_STATES = [state.value for state in (*ENDED, JobState.CANCELLING)]
_OPEN = [MeasurementState.QUEUED.value, MeasurementState.LEASED.value]


def find_device(
    session: Session, project_id: str, name: str, *, lock: bool = False
) -> DeviceRow | None:
    query = select(DeviceRow).where(DeviceRow.project_id == project_id, DeviceRow.name == name)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def device_unless_locked(session: Session, device_id: str | None) -> DeviceRow | None:
    """A device, locked; None while another transaction holds it. A transaction that has locked a
    measurement must not wait for a device.
    """
    query = select(DeviceRow).where(DeviceRow.id == device_id).with_for_update(skip_locked=True)
    return session.scalars(query).one_or_none()


def devices_of(
    session: Session, project_id: str, *, before: str | None, limit: int
) -> Sequence[DeviceRow]:
    """Newest first; those older than the id `before`."""
    query = select(DeviceRow).where(DeviceRow.project_id == project_id)
    if before is not None:
        query = query.where(DeviceRow.id < before)
    return session.scalars(query.order_by(DeviceRow.id.desc()).limit(limit)).all()


def find_key(session: Session, key_id: str) -> ApiKeyRow | None:
    return session.get(ApiKeyRow, key_id)


def leased_by_device(session: Session, device_ids: Sequence[str], at: datetime) -> dict[str, str]:
    """Id of the measurement that each device holds an unexpired lease of, if its job needs it."""
    query = (
        select(MeasurementRow.device_id, MeasurementRow.id)
        .join(JobRow, JobRow.id == MeasurementRow.job_id)
        .where(
            MeasurementRow.device_id.in_(device_ids),
            _leased_at(at),
            JobRow.state.not_in(_OBSOLETE_STATES),
        )
    )
    return {
        device_id: found for device_id, found in session.execute(query) if device_id is not None
    }


def next_measurement(session: Session, device_id: str, at: datetime) -> MeasurementRow | None:
    """The oldest one that waits for the device, or whose lease ran out; locked."""
    query = _waiting_query(device_id, at).options(_without_results())
    return session.scalars(query.with_for_update(of=MeasurementRow, skip_locked=True)).one_or_none()


def has_waiting(session: Session, device_id: str, at: datetime) -> bool:
    return (
        session.execute(_waiting_query(device_id, at).with_only_columns(MeasurementRow.id)).first()
        is not None
    )


def open_measurements(session: Session, device_id: str) -> Sequence[MeasurementRow]:
    """Measurements that are queued or leased; locked."""
    query = select(MeasurementRow).where(
        MeasurementRow.device_id == device_id, MeasurementRow.state.in_(_OPEN)
    )
    return session.scalars(query.with_for_update()).all()


def find_measurement(
    session: Session, measurement_id: str, *, project_id: str, lock: bool = False
) -> tuple[MeasurementRow, JobRow] | None:
    """A measurement without its results, and its job."""
    query = (
        select(MeasurementRow, JobRow)
        .join(JobRow, JobRow.id == MeasurementRow.job_id)
        .where(MeasurementRow.id == measurement_id, JobRow.project_id == project_id)
        .options(_without_results())
    )
    found = session.execute(
        query.with_for_update(of=MeasurementRow) if lock else query
    ).one_or_none()
    return None if found is None else (found[0], found[1])


def measurement_of_job(
    session: Session, job_id: str, measurement_id: str
) -> tuple[MeasurementRow, DeviceRow | None] | None:
    """A measurement without its results, and its device where that was not removed."""
    query = (
        select(MeasurementRow, DeviceRow)
        .outerjoin(DeviceRow, DeviceRow.id == MeasurementRow.device_id)
        .where(MeasurementRow.id == measurement_id, MeasurementRow.job_id == job_id)
        .options(_without_results())
    )
    found = session.execute(query).one_or_none()
    return None if found is None else (found[0], found[1])


def find_by_request(session: Session, job_id: str, request_hash: str) -> MeasurementRow | None:
    query = select(MeasurementRow).where(
        MeasurementRow.job_id == job_id, MeasurementRow.request_hash == request_hash
    )
    return session.scalars(query.options(_without_results())).one_or_none()


def is_obsolete(job: JobRow) -> bool:
    """Returns whether the job has no use for its measurements any more."""
    return job.state in _OBSOLETE_STATES


def _without_results() -> ExecutableOption:
    # They may be megabytes, and are wanted once.
    return defer(MeasurementRow.results)


def _waiting_query(device_id: str, at: datetime) -> Select[MeasurementRow]:
    expired = and_(
        MeasurementRow.state == MeasurementState.LEASED.value, lease.expired(MeasurementRow, at)
    )
    return (
        select(MeasurementRow)
        .join(JobRow, JobRow.id == MeasurementRow.job_id)
        .where(
            MeasurementRow.device_id == device_id,
            MeasurementRow.state.in_(_OPEN),  # what the index is over
            or_(MeasurementRow.state == MeasurementState.QUEUED.value, expired),
            JobRow.state.not_in(_OBSOLETE_STATES),
        )
        .order_by(MeasurementRow.id)
        .limit(1)
    )


def _leased_at(at: datetime) -> ColumnElement[bool]:
    return and_(
        MeasurementRow.state == MeasurementState.LEASED.value, lease.unexpired(MeasurementRow, at)
    )
