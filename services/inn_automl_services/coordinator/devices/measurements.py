"""Use cases of measurements: a worker requests one, an agent leases it, times the models, answers.

A measurement belongs to the holder of its lease token. A lease that is not renewed expires, and
the next lease of the device is for the same measurement; reports of the former holder are refused.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy.orm import Session

from inn_automl.api import measurements as wire
from inn_automl.api.jobs import JobError
from inn_automl.api.measurements import MeasurementState
from inn_automl.core.errors import MeasurementError, NotFoundError, SpecError, StaleLeaseError
from inn_automl.core.spec import DeviceBudget
from inn_automl.latency.config import BenchmarkConfig
from inn_automl.latency.measurement import read_measurements
from inn_automl_services.coordinator import lease
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.storable import check_storable
from inn_automl_services.coordinator.db.tables import DeviceRow, JobRow, MeasurementRow
from inn_automl_services.coordinator.devices import repository, service
from inn_automl_services.coordinator.keys import Caller
from inn_automl_services.coordinator.runs.service import leased_job
from inn_automl_services.coordinator.settings import Settings


def model_path(job_id: str, sha256: str) -> str:
    """Path of a model for agents in the coordinator's storage, where a worker puts it."""
    return f"jobs/{job_id}/measuring-models/{sha256}.onnx"


# For workers


def request_measurement(
    session: Session, settings: Settings, job_id: str, token: str, request: wire.NewMeasurement
) -> wire.Measurement:
    """Queues a measurement, or finds the one of the same request; one that failed is queued again.

    Raises:
        StaleLeaseError: the worker does not hold the job any more.
        SpecError: no device, or not a single one, or one that cannot do it.
        MeasurementError: the config cannot be followed.
    """
    job = leased_job(session, job_id, token, lock=True)
    check_storable(list(request.models), "models")
    config = BenchmarkConfig.from_dict(request.benchmark_config)
    device = _device_for(session, job, request.device)
    budget = request.device.model_copy(update={"agent": device.name})
    content: dict[str, Any] = {
        "device": budget.model_dump(mode="json"),
        "models": {name: model.model_dump(mode="json") for name, model in request.models.items()},
        "benchmark_config": config.to_dict(),
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    request_hash = hashlib.sha256(canonical.encode()).hexdigest()
    measurement = repository.find_by_request(session, job.id, request_hash)
    if measurement is None:
        measurement = MeasurementRow(
            id=new_id("msr"),
            job_id=job.id,
            request_hash=request_hash,
            device_budget=content["device"],
            models=content["models"],
            benchmark_config=content["benchmark_config"],
            created_at=now(),
        )
        session.add(measurement)
        _queue(measurement, device)
    elif measurement.state in (MeasurementState.FAILED.value, MeasurementState.CANCELLED.value):
        _queue(measurement, device)
    session.flush()
    return _to_wire(measurement, device, settings)


def progress(
    session: Session, settings: Settings, job_id: str, token: str, measurement_id: str
) -> wire.Measurement:
    """A measurement's progress, with its results once it is done.

    Raises:
        StaleLeaseError: the worker does not hold the job any more.
        NotFoundError: the job has no such measurement.
    """
    leased_job(session, job_id, token)
    found = repository.measurement_of_job(session, job_id, measurement_id)
    if found is None:
        raise NotFoundError(
            f"the job {job_id} has no measurement {measurement_id}: POST it to get its id."
        )
    return _to_wire(*found, settings)


def _device_for(session: Session, job: JobRow, budget: DeviceBudget) -> DeviceRow:
    if budget.agent is not None:
        device = repository.find_device(session, job.project_id, budget.agent)
        if device is None:
            raise SpecError(
                f"device {budget.name!r} is to be measured by the agent {budget.agent!r}, which is "
                f"not registered: "
                f"start it with `inn-automl agent --name {budget.agent}`."
            )
    else:
        devices = repository.devices_of(session, job.project_id, before=None, limit=20)
        if len(devices) != 1:
            names = ", ".join(device.name for device in devices)
            raise SpecError(
                f"device {budget.name!r} names no agent, and there are several ({names}): set "
                f"`agent` to one of them."
                if devices
                else f"device {budget.name!r} cannot be measured, for no agent is registered: "
                f"start `inn-automl agent`."
            )
        device = devices[0]
    service.check_budget(device, budget)
    return device


def _queue(measurement: MeasurementRow, device: DeviceRow) -> None:
    measurement.device_id = device.id
    measurement.state = MeasurementState.QUEUED.value
    measurement.attempt, measurement.fraction = 0, 0.0
    lease.release(measurement)
    measurement.results = measurement.error = None


def _to_wire(
    measurement: MeasurementRow, device: DeviceRow | None, settings: Settings
) -> wire.Measurement:
    state = MeasurementState(measurement.state)
    return wire.Measurement(
        id=measurement.id,
        state=state,
        fraction=measurement.fraction,
        agent=measurement.device_budget["agent"],
        agent_is_away=device is None or service.is_away(device, settings),
        results=measurement.results if state is MeasurementState.DONE else None,
        error=JobError(code=MeasurementError.code, detail=measurement.error)
        if measurement.error
        else None,
    )


# For agents


def lease_next(context: Context, caller: Caller, name: str) -> wire.MeasurementLease | None:
    """Leases the next measurement of a device; None while there is none.

    Takes its own transactions, since most calls find nothing and only read.

    Raises:
        NotFoundError: there is no such device.
        ForbiddenError: another key registered it.
    """
    with context.database.read() as session:
        device = service.find_own(session, caller, name)
        has_work = repository.has_waiting(session, device.id, now())
        if not has_work and not service.is_stale(device):
            return None
    with context.database.write() as session:
        device = service.find_own(session, caller, name, lock=True)
        service.touch(device)
        if repository.leased_by_device(session, [device.id], now()):
            return None
        while (measurement := repository.next_measurement(session, device.id, now())) is not None:
            if measurement.state == MeasurementState.LEASED.value:
                service.mark_lost(measurement, context.settings.max_measurement_attempts)
                session.flush()
            if measurement.state == MeasurementState.QUEUED.value:
                return _issue_lease(measurement, context.settings)
    return None


def model(
    session: Session, caller: Caller, measurement_id: str, token: str, sha256: str
) -> tuple[str, int]:
    """Path and size in bytes of a model's file.

    Raises:
        NotFoundError: there is no such measurement, or it has no such model.
        StaleLeaseError: the agent does not hold the measurement any more.
    """
    measurement = _leased_measurement(session, caller, measurement_id, token)
    for one in measurement.models.values():
        if one["sha256"] == sha256:
            return model_path(measurement.job_id, sha256), one["size_bytes"]
    raise NotFoundError(
        f"the measurement {measurement_id} has no model {sha256}: its lease lists those it has."
    )


def heartbeat(
    session: Session,
    settings: Settings,
    caller: Caller,
    measurement_id: str,
    token: str,
    fraction: float,
) -> None:
    """Renews the lease.

    Raises:
        NotFoundError: there is no such measurement.
        StaleLeaseError: the agent does not hold it any more, or nobody wants it any more.
    """
    measurement = _leased_measurement(session, caller, measurement_id, token, lock=True)
    measurement.fraction = max(measurement.fraction, fraction)
    lease.renew(measurement, lease_s=settings.measurement_lease_s)
    _touch(session, measurement)


def finish(
    context: Context, caller: Caller, measurement_id: str, token: str, results: dict[str, Any]
) -> None:
    """Keeps the results. They may be megabytes, and are checked outside of the transaction.

    Raises:
        NotFoundError: there is no such measurement.
        StaleLeaseError: the agent does not hold it any more.
        MeasurementError: they are not measurements of exactly the requested models.
    """
    with context.database.read() as session:
        if _is_done(session, caller, measurement_id, token):
            return
        measurement = _leased_measurement(session, caller, measurement_id, token)
        names, percentile = set(measurement.models), measurement.device_budget["percentile"]
    checked = _checked(results, names, percentile)
    with context.database.write() as session:
        measurement = _leased_measurement(session, caller, measurement_id, token, lock=True)
        measurement.results = checked
        measurement.state = MeasurementState.DONE.value
        measurement.fraction = 1.0
        lease.complete(measurement)
        _touch(session, measurement)


def report_failure(
    session: Session, caller: Caller, measurement_id: str, token: str, detail: str
) -> None:
    """Fails a measurement that the agent cannot do.

    Raises:
        NotFoundError: there is no such measurement.
        StaleLeaseError: the agent does not hold it any more.
    """
    check_storable(detail, "detail")
    measurement = _leased_measurement(session, caller, measurement_id, token, lock=True)
    service.fail(measurement, detail)
    _touch(session, measurement)


def release(session: Session, caller: Caller, measurement_id: str, token: str) -> None:
    """Releases the lease of an agent that stops; the measurement is queued again and no attempt is
    counted.

    Raises:
        NotFoundError: there is no such measurement.
        StaleLeaseError: the agent does not hold it any more.
    """
    measurement = _leased_measurement(session, caller, measurement_id, token, lock=True)
    lease.take_back(measurement)
    measurement.state = MeasurementState.QUEUED.value
    measurement.fraction = 0.0


def _issue_lease(measurement: MeasurementRow, settings: Settings) -> wire.MeasurementLease:
    token = lease.issue(measurement, lease_s=settings.measurement_lease_s)
    measurement.state = MeasurementState.LEASED.value
    measurement.fraction = 0.0
    return wire.MeasurementLease(
        id=measurement.id,
        token=token,
        lease_s=settings.measurement_lease_s,
        device=DeviceBudget.model_validate(measurement.device_budget),
        models={
            name: wire.ModelFile.model_validate(one) for name, one in measurement.models.items()
        },
        benchmark_config=measurement.benchmark_config,
    )


def _find(
    session: Session, caller: Caller, measurement_id: str, token: str, *, lock: bool = False
) -> tuple[MeasurementRow, JobRow, bool]:
    found = repository.find_measurement(
        session, measurement_id, project_id=caller.project_id, lock=lock
    )
    if found is None:
        raise NotFoundError(
            f"the project {caller.project!r} has no measurement {measurement_id}: lease one."
        )
    measurement, job = found
    return measurement, job, lease.is_holder(measurement, token)


def _leased_measurement(
    session: Session, caller: Caller, measurement_id: str, token: str, *, lock: bool = False
) -> MeasurementRow:
    measurement, job, is_holder = _find(session, caller, measurement_id, token, lock=lock)
    if repository.is_obsolete(job):
        raise StaleLeaseError(
            f"nobody wants the measurement {measurement_id} any more: its job is {job.state}."
        )
    if not is_holder or measurement.state != MeasurementState.LEASED.value:
        raise StaleLeaseError(
            f"the lease of the measurement {measurement_id} has ended: lease another one."
        )
    return measurement


def _is_done(session: Session, caller: Caller, measurement_id: str, token: str) -> bool:
    # An agent that did not hear our answer sends its results again.
    measurement, _, is_holder = _find(session, caller, measurement_id, token)
    return is_holder and measurement.state == MeasurementState.DONE.value


def _checked(results: dict[str, Any], names: set[str], percentile: float) -> dict[str, Any]:
    if set(results) != names:
        missing, unknown = sorted(names - set(results)), sorted(set(results) - names)
        failures = [
            f"{what} {', '.join(map(repr, some))}"
            for what, some in (("missing", missing), ("unknown", unknown))
            if some
        ]
        raise MeasurementError(
            f"the results are not those of the models that were leased: {'; '.join(failures)}."
        )
    found = read_measurements(results, percentile)
    for name, one in found.items():
        check_storable([one.diagnostic, one.environment], f"results.{name}")
    return {name: one.to_dict() for name, one in found.items()}


def _touch(session: Session, measurement: MeasurementRow) -> None:
    device = repository.device_unless_locked(session, measurement.device_id)
    if device is not None:
        service.touch(device)
