"""Use cases of devices: register, list, remove, and the checks of their budgets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from inn_automl.api import devices as wire
from inn_automl.api.base import Page
from inn_automl.api.measurements import MeasurementState
from inn_automl.core.errors import ForbiddenError, NotFoundError, SpecError
from inn_automl.core.runtimes import RUNTIMES
from inn_automl.core.spec import DeviceBudget
from inn_automl_services.coordinator import lease
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.storable import check_storable
from inn_automl_services.coordinator.db.tables import DeviceRow, MeasurementRow
from inn_automl_services.coordinator.devices import repository
from inn_automl_services.coordinator.keys import Caller
from inn_automl_services.coordinator.settings import Settings

LAST_SEEN_RESOLUTION = timedelta(seconds=5)
"""`last_seen_at` is this coarse, so that waiting for work does not become writing."""


def register(
    session: Session, settings: Settings, caller: Caller, request: wire.RegisterDevice
) -> tuple[wire.Device, bool]:
    """Registers a device, or renews its description. Returns it, and whether it is new.

    An agent registers when it starts: measurements that were leased under its name are queued
    again.

    Raises:
        ForbiddenError: the name belongs to another key.
        InputError: the description cannot be stored.
    """
    check_storable(request.description.model_dump(), "description")
    device = repository.find_device(session, caller.project_id, request.name, lock=True)
    is_new = device is None
    if device is None:
        device = DeviceRow(
            id=new_id("dev"), project_id=caller.project_id, name=request.name, registered_at=now()
        )
        session.add(device)
    elif device.key_id != caller.key_id:
        _check_abandoned(session, device)
    device.key_id = caller.key_id
    device.description = request.description.model_dump(mode="json")
    device.last_seen_at = now()
    session.flush()
    for measurement in repository.open_measurements(session, device.id):
        if measurement.state == MeasurementState.LEASED.value:
            mark_lost(measurement, settings.max_measurement_attempts)
    return to_wire(session, settings, [device])[0], is_new


def page(
    session: Session, settings: Settings, caller: Caller, *, cursor: str | None, limit: int
) -> Page[wire.Device]:
    """Devices of the caller's project, newest first."""
    found = repository.devices_of(session, caller.project_id, before=cursor, limit=limit + 1)
    more = found[limit - 1].id if len(found) > limit else None
    return Page(items=to_wire(session, settings, found[:limit]), next_cursor=more)


def find(session: Session, caller: Caller, name: str, *, lock: bool = False) -> DeviceRow:
    """A device of the caller's project.

    Raises:
        NotFoundError: there is none of that name.
    """
    device = repository.find_device(session, caller.project_id, name, lock=lock)
    if device is None:
        raise NotFoundError(
            f"the project {caller.project!r} has no device {name!r}: GET /v1/devices lists them."
        )
    return device


def find_own(session: Session, caller: Caller, name: str, *, lock: bool = False) -> DeviceRow:
    """A device that the caller may speak for.

    Raises:
        NotFoundError: there is none of that name.
        ForbiddenError: another key registered it.
    """
    device = find(session, caller, name, lock=lock)
    if device.key_id != caller.key_id:
        raise ForbiddenError(
            f"the device {name!r} was registered with another key: use that one, or register under "
            f"another name."
        )
    return device


def remove(session: Session, caller: Caller, name: str) -> None:
    """Removes a device; its open measurements fail.

    Raises:
        NotFoundError: there is none of that name.
    """
    device = find(session, caller, name, lock=True)
    for measurement in repository.open_measurements(session, device.id):
        fail(
            measurement,
            f"device {name!r} was removed: start its agent again, or name another device.",
        )
    session.flush()
    session.delete(device)


def touch(device: DeviceRow) -> None:
    """Renews `last_seen_at` where that is due."""
    if is_stale(device):
        device.last_seen_at = now()


def is_stale(device: DeviceRow) -> bool:
    """Returns whether `last_seen_at` is due to be renewed."""
    return now() - device.last_seen_at > LAST_SEEN_RESOLUTION


def is_away(device: DeviceRow, settings: Settings) -> bool:
    return now() - device.last_seen_at > timedelta(seconds=settings.device_away_s)


def description_of(device: DeviceRow) -> wire.DeviceDescription:
    return wire.DeviceDescription.model_validate(device.description)


def check_budget(device: DeviceRow, budget: DeviceBudget) -> None:
    """
    Raises:
        SpecError: the device has not the runtime or not the cores that a budget asks for; says
            what adds the runtime.
    """
    described = description_of(device)
    if budget.runtime not in described.runtimes:
        reasons = described.details.get("missing_runtimes")
        reason = reasons.get(budget.runtime) if isinstance(reasons, dict) else None
        hint = f"it says: {reason}" if reason else f"`{RUNTIMES[budget.runtime].install}` adds it."
        raise SpecError(
            f"device {budget.name!r}: the agent {device.name!r} has no runtime {budget.runtime!r}, "
            f"only "
            f"{', '.join(described.runtimes) or 'none'}; {hint} Start the agent again afterwards."
        )
    if budget.threads > described.num_cores:
        raise SpecError(
            f"device {budget.name!r}: threads = {budget.threads} is more than the "
            f"{described.num_cores} cores that the "
            f"agent {device.name!r} may use: give at most {described.num_cores}."
        )


def to_wire(
    session: Session, settings: Settings, devices: Sequence[DeviceRow]
) -> list[wire.Device]:
    """The answers that show devices."""
    leased_by_device = repository.leased_by_device(
        session, [device.id for device in devices], now()
    )
    return [
        wire.Device(
            id=device.id,
            name=device.name,
            state="away"
            if is_away(device, settings)
            else "measuring"
            if device.id in leased_by_device
            else "idle",
            description=description_of(device),
            last_seen_at=device.last_seen_at,
            registered_at=device.registered_at,
            measurement_id=leased_by_device.get(device.id),
        )
        for device in devices
    ]


def mark_lost(measurement: MeasurementRow, max_attempts: int) -> None:
    """Queues a measurement again whose lease expired, or fails it after too many attempts."""
    if measurement.attempt >= max_attempts:
        agent = measurement.device_budget["agent"]
        fail(
            measurement,
            f"the agent on {agent!r} stopped {measurement.attempt} times in the middle of this "
            f"measurement: look at "
            "its log, and whether the machine has enough memory for the models.",
        )
        return
    measurement.state = MeasurementState.QUEUED.value
    lease.release(measurement)
    measurement.fraction = 0.0


def fail(measurement: MeasurementRow, detail: str) -> None:
    """Ends a measurement without results."""
    measurement.state = MeasurementState.FAILED.value
    measurement.error = detail
    lease.complete(measurement)


def _check_abandoned(session: Session, device: DeviceRow) -> None:
    owner = repository.find_key(session, device.key_id)
    if owner is not None and owner.revoked_at is None:
        raise ForbiddenError(
            f"the device {device.name!r} belongs to the key {owner.prefix}...: use that key, "
            f"choose another name, or "
            "have a user remove the device first."
        )
