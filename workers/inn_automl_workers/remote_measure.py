"""Latency measured by a device agent, through the job's storage and the coordinator's queue.

A measurement outlives the worker that requested it: the job's next run requests the same and finds
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inn_automl.api.measurements import Measurement, MeasurementState, ModelFile, NewMeasurement
from inn_automl.core.errors import (
    AuthenticationError,
    BackendError,
    ConflictError,
    ConnectionLostError,
    ForbiddenError,
    InnAutomlError,
    InputError,
    MeasurementError,
    SpecError,
)
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.storage import sha256_of
from inn_automl.http.connection import Connection
from inn_automl.http.retries import RetryPolicy
from inn_automl.latency.config import THOROUGH, BenchmarkConfig
from inn_automl.latency.measurement import LatencyMeasurement, read_measurements

FOLDER = "measuring-models"
"""Folder in the job's storage that agents' downloads come from."""

RETRY = RetryPolicy(deadline_s=24 * 3600.0, first_delay_s=0.5, max_delay_s=10.0, is_unattended=True)
"""The deadline is also how long an agent may be away before the measurement is given up."""

WAIT_S = 5.0
"""Seconds that one request waits for the end of a measurement; the interval of progress."""
REQUEST_TIMEOUT_S = WAIT_S + 30.0


class RemoteMeasure:
    """Has a device agent measure; called as `inn_automl.latency.benchmark.measure` is.

    Args:
        connection: to the coordinator, with the job's lease token.
        store: the job's folder in the coordinator's storage.
        note: tells the user of the job something, once.
        retry: how requests are retried; its deadline is also that of an agent that is away.
    """

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        store: ObjectStore,
        *,
        note: Callable[[str], None],
        retry: RetryPolicy = RETRY,
    ) -> None:
        self._connection, self._store, self._note, self._retry = connection, store, note, retry
        self._path = f"/runs/{job_id}/measurements"

    def __call__(
        self,
        models: Mapping[str, Path],
        device: DeviceBudget,
        *,
        config: BenchmarkConfig = THOROUGH,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, LatencyMeasurement]:
        """Measures ONNX files (name -> path) on the device's agent, interleaved.

        Raises:
            SpecError: the project has no such agent, or it cannot be this device.
            MeasurementError: a file is missing or cannot be measured, or the agent stayed away.
            StorageError: a model could not be put into the storage.
            BackendError: the coordinator does not answer, or this run does not hold the job any
                more.
        """
        if not models:
            return {}
        asked = NewMeasurement(
            device=device,
            models={name: self._put(name, Path(path)) for name, path in models.items()},
            benchmark_config=config.to_dict(),
        )
        measurement = self._request("POST", self._path, json=asked.model_dump(mode="json"))
        done = self._wait(measurement, on_progress)
        found = read_measurements(done.results, device.percentile)
        if set(found) != set(models):
            raise MeasurementError(
                f"agent {done.agent!r} did not measure all models: measure them again."
            )
        return {name: found[name] for name in models}

    def _put(self, name: str, path: Path) -> ModelFile:
        try:
            sha256 = sha256_of(path)
        except FileNotFoundError:
            raise MeasurementError(
                f"model {name!r} cannot be measured: there is no file {str(path)!r}, export it "
                f"first."
            ) from None
        size_bytes, target = path.stat().st_size, f"{FOLDER}/{sha256}.onnx"
        if not self._store.exists(target):
            self._store.put(target, path)
        return ModelFile(sha256=sha256, size_bytes=size_bytes)

    def _wait(
        self, measurement: Measurement, on_progress: Callable[[float], None] | None
    ) -> Measurement:
        """The measurement once it is done."""
        fraction, away_since, is_noted = 0.0, None, False
        while True:
            fraction = max(fraction, measurement.fraction)
            if on_progress is not None:
                on_progress(fraction)
            if measurement.state is MeasurementState.DONE:
                return measurement
            if measurement.state in (MeasurementState.FAILED, MeasurementState.CANCELLED):
                detail = (
                    measurement.error.detail
                    if measurement.error
                    else "the measurement was cancelled."
                )
                raise MeasurementError(detail)
            if not measurement.agent_is_away:
                away_since = None
            else:
                away_since = away_since or time.monotonic()
                if not is_noted:
                    self._note(
                        f"agent {measurement.agent!r} is away (stopped, cut off, or its key was "
                        f"revoked: its log says "
                        "which): its measurements wait until it is back."
                    )
                    is_noted = True
                if time.monotonic() - away_since > self._retry.deadline_s:
                    raise MeasurementError(
                        f"agent {measurement.agent!r} was away for "
                        f"{self._retry.deadline_s / 3600:.3g} "
                        f"hours: start it again "
                        "and retry the job."
                    )
            path = f"{self._path}/{measurement.id}"
            measurement = self._request("GET", path, params={"wait_s": WAIT_S})

    def _request(self, method: str, path: str, **content: Any) -> Measurement:
        """The coordinator's answer; asking twice is asking once."""
        try:
            response = self._connection.request(
                method,
                path,
                is_repeatable=True,
                retry=self._retry,
                timeout_s=REQUEST_TIMEOUT_S,
                **content,
            )
        except ConnectionLostError as error:
            raise BackendError(str(error)) from error
        except InnAutomlError as error:
            raise _refusal(error) from error
        return Measurement.model_validate_json(response.content, extra="ignore")


def _refusal(error: InnAutomlError) -> InnAutomlError:
    """The job's error for a refusal: a wrong spec, a lost lease, or a failed measurement."""
    match error:
        case AuthenticationError() | ForbiddenError() | ConflictError():
            return BackendError(str(error))
        case SpecError() | MeasurementError():
            return error
        case InputError() if error.status == 422:
            return SpecError(str(error))
    return MeasurementError(str(error))
