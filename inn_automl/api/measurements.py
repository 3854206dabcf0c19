"""A measurement: some models on one device, timed together. A worker asks for it, an agent leases
it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from inn_automl.api.base import Sha256, Text, WireModel
from inn_automl.api.jobs import JobError
from inn_automl.core.spec import DeviceBudget


class MeasurementState(StrEnum):
    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ModelFile(WireModel):
    """An ONNX file in the job's storage, under its hash."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(gt=0)]


class NewMeasurement(WireModel):
    """Request of a worker for a measurement. The same request again finds the earlier one."""

    device: DeviceBudget
    models: Annotated[dict[str, ModelFile], Field(min_length=1, max_length=10_000)]
    benchmark_config: dict[str, Any]
    """`inn_automl.latency.benchmark.BenchmarkConfig.to_dict()`."""


class Measurement(WireModel):
    """Measurement as its worker sees it."""

    id: str
    state: MeasurementState
    fraction: float
    agent: str
    """Name of the device that measures it."""
    agent_is_away: bool
    results: dict[str, Any] | None = None
    """`LatencyMeasurement.to_dict()` by model, once done."""
    error: JobError | None = None


class MeasurementLease(WireModel):
    """Models that an agent is to measure, and the time by which it must send a heartbeat."""

    id: str
    token: str
    """Value of the header `Lease-Token` in all requests about this measurement."""
    lease_s: float
    """The lease ends this long after the last heartbeat."""
    device: DeviceBudget
    models: dict[str, ModelFile]
    benchmark_config: dict[str, Any]


class MeasurementHeartbeat(WireModel):
    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


class MeasurementResults(WireModel):
    """`LatencyMeasurement.to_dict()` by model, raw samples included."""

    results: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


class MeasurementFailure(WireModel):
    detail: Text
    """Error message for the user of the job."""
