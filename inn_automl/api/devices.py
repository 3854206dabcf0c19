"""Devices that measure: machines with a device agent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from inn_automl.api.base import Name, UtcTime, WireModel


class DeviceDescription(WireModel):
    """Description of a machine by its agent."""

    agent_version: Annotated[str, Field(max_length=64)]
    cpu: Annotated[str, Field(max_length=256)]
    num_cores: Annotated[int, Field(gt=0, le=4096)]
    """Cores that the agent may use."""
    memory_bytes: Annotated[int, Field(gt=0)] | None = None
    runtimes: dict[str, str]
    """Runtimes that can measure here, with their versions."""
    details: dict[str, Any] = Field(default_factory=dict)
    """Whatever else describes the machine: architecture, governor, operating system."""


class RegisterDevice(WireModel):
    """A device to register; registering again under the same name renews its description."""

    name: Name
    description: DeviceDescription


class Device(WireModel):
    id: str
    name: Name
    state: Literal["idle", "measuring", "away"]
    """ "away": its agent was not heard of lately."""
    description: DeviceDescription
    last_seen_at: UtcTime
    registered_at: UtcTime
    measurement_id: str | None = None
    """Measurement that is running on the device."""
