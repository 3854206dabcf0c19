"""Endpoints of devices, which agents register. Measurements are in `measurement_endpoints`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Response

from inn_automl.api.base import Name, Page
from inn_automl.api.devices import Device, RegisterDevice
from inn_automl.core import errors
from inn_automl.core.errors import (
    AuthenticationError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    TooLargeError,
    UnavailableError,
)
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.access import AnyRole, User
from inn_automl_services.coordinator.context import InContext, Reading, Writing
from inn_automl_services.coordinator.devices import measurement_endpoints, service

router = APIRouter(tags=["devices"])
router.include_router(measurement_endpoints.router)

DeviceName = Annotated[Name, Path(description="Name of a device.", examples=["pi4"])]
READ_ERRORS = (AuthenticationError, RateLimitError, errors.InputError, UnavailableError)

EXAMPLE: dict[str, Any] = {
    "name": "pi4",
    "description": {
        "agent_version": "0.2.0",
        "cpu": "Raspberry Pi 4 Model B Rev 1.4",
        "num_cores": 4,
        "memory_bytes": 8_000_000_000,
        "runtimes": {"onnxruntime-cpu": "1.24.1"},
        "details": {"platform": "Linux-6.6-aarch64", "governor": "performance"},
    },
}


@router.post(
    "/devices",
    status_code=201,
    response_model=Device,
    summary="Register a device, or renew what is known of it",
    responses={
        200: {
            "description": "It was registered before; its description is renewed.",
            "model": Device,
        },
        **problems.responses(*READ_ERRORS, ForbiddenError, TooLargeError),
    },
)
def register(
    body: Annotated[RegisterDevice, Body(examples=[EXAMPLE])],
    caller: AnyRole,
    session: Writing,
    context: InContext,
    response: Response,
) -> Device:
    """The name belongs to the key that registers it, until a user removes the device or the key is
    revoked. An agent registers when it starts: measurements that it had leased are queued again.
    """
    device, is_new = service.register(session, context.settings, caller, body)
    response.status_code = 201 if is_new else 200
    return device


@router.get(
    "/devices",
    response_model=Page[Device],
    summary="List the devices of the project",
    responses=problems.responses(*READ_ERRORS),
)
def page(
    caller: AnyRole,
    session: Reading,
    context: InContext,
    cursor: Annotated[
        str | None, Query(pattern=r"^dev_[0-9a-z]{26}$", description="`next_cursor` of a page.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Page[Device]:
    return service.page(session, context.settings, caller, cursor=cursor, limit=limit)


@router.get(
    "/devices/{name}",
    response_model=Device,
    summary="Show a device",
    responses=problems.responses(*READ_ERRORS, NotFoundError),
)
def show(name: DeviceName, caller: AnyRole, session: Reading, context: InContext) -> Device:
    return service.to_wire(session, context.settings, [service.find(session, caller, name)])[0]


@router.delete(
    "/devices/{name}",
    status_code=204,
    summary="Remove a device",
    responses=problems.responses(*READ_ERRORS, ForbiddenError, NotFoundError),
)
def remove(name: DeviceName, caller: User, session: Writing) -> None:
    """Measurements that are queued for it or leased fail, with an error that says so."""
    service.remove(session, caller, name)


@router.post(
    "/devices/{name}/heartbeat",
    status_code=204,
    summary="Say that a device is there",
    responses=problems.responses(*READ_ERRORS, ForbiddenError, NotFoundError),
)
def heartbeat(name: DeviceName, caller: AnyRole, session: Writing) -> None:
    """Reports that an agent lives while it waits for its machine. A lease request does so, too."""
    service.touch(service.find_own(session, caller, name, lock=True))
