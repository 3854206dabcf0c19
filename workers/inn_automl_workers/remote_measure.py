"""Measuring on another machine: the models go into the job's storage, the coordinator queues them
for a device agent.

A measurement outlives the worker that asked for it: whoever runs the job next asks for the same
and finds it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from inn_automl.api.measurements import Measurement, MeasurementState, ModelFile, NewMeasurement
from inn_automl.core.errors import (
    AuthenticationError,
    BackendError,
    ConflictError,
    ForbiddenError,
    InnAutomlError,
    InputError,
    MeasurementError,
    SpecError,
)
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.spec import DeviceBudget
from inn_automl.http.problems import error_of
from inn_automl.latency.measurement import (
    THOROUGH,
    BenchmarkConfig,
    LatencyMeasurement,
    read_measurements,
)

FOLDER = "measuring-models"
"""In the job's storage, where the coordinator looks for what agents download."""

PATIENCE_S = 24 * 3600.0
"""How long an agent may be away, or the coordinator not answer, before the measurement is given
up.
"""

WAIT_S = 5.0
"""How long one look waits for the end of a measurement; progress is told this often."""

FIRST_DELAY_S, MAX_DELAY_S = 0.5, 10.0


class RemoteMeasure:
    """Has a device agent measure; called as `inn_automl.latency.benchmark.measure` is.

    Args:
        http: its base URL is the coordinator's, its header `Authorization` carries the job's lease
            token.
        store: the job's folder in the coordinator's storage.
        note: tells the user of the job something, once.
        patience_s: how long an agent may be away, or the coordinator not answer.
    """

    def __init__(
        self,
        http: httpx.Client,
        job_id: str,
        store: ObjectStore,
        *,
        note: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._http, self._store, self._note, self._patience_s = http, store, note, patience_s
        self._url = f"/v1/runs/{job_id}/measurements"

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
        measurement = self._request("POST", self._url, json=asked.model_dump(mode="json"))
        done = self._wait(measurement, on_progress)
        found = read_measurements(done.results, device.percentile)
        if set(found) != set(models):
            raise MeasurementError(
                f"agent {done.agent!r} did not measure all models: measure them again."
            )
        return {name: found[name] for name in models}

    def _put(self, name: str, path: Path) -> ModelFile:
        try:
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
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
        share, away_since, told = 0.0, None, False
        while True:
            share = max(share, measurement.fraction)
            if on_progress is not None:
                on_progress(share)
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
                if not told:
                    self._note(
                        f"agent {measurement.agent!r} is away (stopped, cut off, or its key was "
                        f"revoked: its log says "
                        "which): its measurements wait until it is back."
                    )
                    told = True
                if time.monotonic() - away_since > self._patience_s:
                    raise MeasurementError(
                        f"agent {measurement.agent!r} was away for {self._patience_s / 3600:.3g} "
                        f"hours: start it again "
                        "and retry the job."
                    )
            url = f"{self._url}/{measurement.id}"
            measurement = self._request("GET", url, params={"wait_s": WAIT_S})

    def _request(self, method: str, url: str, **content: Any) -> Measurement:
        """The coordinator's answer; asked again while it does not come, for asking twice is asking
        once.
        """
        delay_s, since = FIRST_DELAY_S, time.monotonic()
        while True:
            try:
                response = self._http.request(method, url, timeout=WAIT_S + 30, **content)
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            else:
                if response.is_success:
                    return Measurement.model_validate_json(response.content, extra="ignore")
                refused = error_of(response)
                reason = str(refused)
                if response.status_code < 500 and response.status_code not in (408, 425, 429):
                    raise _refusal(refused)
            if time.monotonic() - since > self._patience_s:
                raise BackendError(
                    f"the coordinator does not answer ({reason}): check that it runs."
                )
            time.sleep(delay_s)
            delay_s = min(MAX_DELAY_S, 2 * delay_s)


def _refusal(error: InnAutomlError) -> InnAutomlError:
    """What a refusal means for the job: its spec is wrong, its lease is lost, or it is not measured."""
    match error:
        case AuthenticationError() | ForbiddenError() | ConflictError():
            return BackendError(str(error))
        case SpecError() | MeasurementError():
            return error
        case InputError() if error.status == 422:
            return SpecError(str(error))
    return MeasurementError(str(error))
