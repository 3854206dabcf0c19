"""The device agent: leases measurements from a coordinator, times the models on this machine,
posts the samples.

It outlives restarts of the coordinator and cuts of the network. Stopped, it gives its measurement
back; killed, its lease runs out, or ends when an agent of the same name starts again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from inn_automl.agent.description import describe_device
from inn_automl.agent.link import Link
from inn_automl.agent.model_cache import ModelCache
from inn_automl.api.devices import RegisterDevice
from inn_automl.api.measurements import MeasurementLease
from inn_automl.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InnAutomlError,
    MeasurementError,
    NotFoundError,
)
from inn_automl.latency.benchmark import measure
from inn_automl.latency.machine_lock import machine_lock
from inn_automl.latency.measurement import BenchmarkConfig, LatencyMeasurement, Measure

logger = logging.getLogger(__name__)

WAIT_S = 20.0
"""How long the coordinator may hold a request for work."""
FAREWELL_S = 5.0
"""How long the coordinator has to answer when a lease is given back."""
DOWNLOAD_ATTEMPTS = 8


KEY_REFUSED = (AuthenticationError, ForbiddenError)
"""This agent may not speak here at all."""
LEASE_LOST = (NotFoundError, ConflictError, GoneError)
"""The measurement is not this agent's any more."""


class AbandonedError(InnAutomlError):
    """The measurement in hand is not this agent's any more."""

    code = "stale_lease"


class Agent:
    """One device of a coordinator.

    Args:
        name: what the device is called there.
        measure: who times the models.
    """

    def __init__(
        self, link: Link, name: str, cache: ModelCache, *, measure: Measure = measure
    ) -> None:
        self._link, self._name, self._cache, self._measure = link, name, cache, measure

    def run(self) -> None:
        """Measures whatever comes, until an exception (a signal's) ends it.

        Raises:
            AuthenticationError, ForbiddenError: the key may not speak for this device, or the device was removed.
        """
        self.register()
        while True:
            lease = self.lease()
            if lease is not None:
                self.serve(lease)

    def register(self) -> None:
        """Makes the device known; what an agent of the same name had in hand is queued again.

        Raises:
            AuthenticationError, ForbiddenError: the name belongs to another key, or the key is not known.
        """
        asked = RegisterDevice(name=self._name, description=describe_device())
        self._link.request("POST", "/devices", json=asked.model_dump(mode="json"))
        described = asked.description
        versions = ", ".join(f"{name} {version}" for name, version in described.runtimes.items())
        logger.info(
            "registered device=%s server=%s cpu=%r runtimes=%r",
            self._name,
            self._link.url,
            described.cpu,
            versions,
        )

    def lease(self) -> MeasurementLease | None:
        """The next measurement; None when there was none for a while.

        Raises:
            RefusedError: the device was removed, or belongs to another key now.
        """
        path = f"/devices/{self._name}/lease"
        response = self._link.request("POST", path, params={"wait_s": WAIT_S})
        return (
            None
            if response.status_code == 204
            else MeasurementLease.model_validate_json(response.content, extra="ignore")
        )

    def serve(self, lease: MeasurementLease) -> None:
        """Does one measurement, and tells how it ended.

        Raises:
            AuthenticationError, ForbiddenError: the key may not speak here any more.
        """
        logger.info(
            "leased measurement=%s device=%s models=%d",
            lease.id,
            lease.device.name,
            len(lease.models),
        )
        start = time.monotonic()
        try:
            with _Heartbeats(self._link, lease) as heartbeats:
                found = self._done(lease, heartbeats)
                self._post(
                    lease,
                    "results",
                    {"results": {name: one.to_dict() for name, one in found.items()}},
                )
                logger.info("done measurement=%s seconds=%.1f", lease.id, time.monotonic() - start)
        except AbandonedError as error:
            logger.warning("abandoned measurement=%s: %s", lease.id, error)
        except KEY_REFUSED:
            raise
        except Exception as error:
            self._fail(lease, error)
        except BaseException:
            self._release(lease)
            raise

    def _done(
        self, lease: MeasurementLease, heartbeats: _Heartbeats
    ) -> dict[str, LatencyMeasurement]:
        paths = self._download(lease, heartbeats)
        with machine_lock(on_wait=heartbeats.check):
            return self._measure(
                paths,
                lease.device,
                config=BenchmarkConfig.from_dict(lease.benchmark_config),
                on_progress=heartbeats.progress,
            )

    def _download(self, lease: MeasurementLease, heartbeats: _Heartbeats) -> dict[str, Path]:
        def fetch(sha256: str) -> Iterator[bytes]:
            path = f"/measurements/{lease.id}/models/{sha256}"
            for chunk in self._link.download(path, {"Lease-Token": lease.token}):
                heartbeats.check()
                yield chunk

        for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
            try:
                return self._cache.collect(lease.models, fetch)
            except httpx.TransportError as error:
                logger.warning(
                    "download broke measurement=%s attempt=%d: %s", lease.id, attempt, error
                )
                heartbeats.pause(min(30.0, 0.5 * 2**attempt))
        raise MeasurementError(
            f"device {self._name!r} could not download the models: look at its network."
        )

    def _post(self, lease: MeasurementLease, what: str, body: dict[str, object]) -> None:
        path = f"/measurements/{lease.id}/{what}"
        try:
            self._link.request("POST", path, json=body, headers={"Lease-Token": lease.token})
        except LEASE_LOST as error:
            raise AbandonedError(str(error)) from error

    def _fail(self, lease: MeasurementLease, error: Exception) -> None:
        # Whoever stops this agent may stop its processes a moment earlier: what looks like a crash
        # is then none.
        time.sleep(0.2)
        if isinstance(error, InnAutomlError):
            detail = str(error)
            logger.warning("failed measurement=%s code=%s: %s", lease.id, error.code, detail)
        else:
            detail = f"the agent on {self._name!r} failed ({type(error).__name__}: {error}): its log says where."
            logger.error("failed measurement=%s", lease.id, exc_info=error)
        try:
            self._post(lease, "failure", {"detail": detail[:4096]})
        except AbandonedError as abandoned:
            logger.warning("abandoned measurement=%s: %s", lease.id, abandoned)
        except KEY_REFUSED:
            raise
        except InnAutomlError as refused:
            logger.error("its failure was refused measurement=%s: %s", lease.id, refused)

    def _release(self, lease: MeasurementLease) -> None:
        path = f"/measurements/{lease.id}/release"
        try:
            self._link.once(
                "POST", path, timeout_s=FAREWELL_S, headers={"Lease-Token": lease.token}
            )
            logger.info("given back measurement=%s", lease.id)
        except (httpx.TransportError, InnAutomlError) as error:
            logger.warning("not given back measurement=%s: %s", lease.id, error)


class _Heartbeats:
    """Renews a lease from a thread of its own, and tells the measuring one when there is no use in
    going on.
    """

    def __init__(self, link: Link, lease: MeasurementLease) -> None:
        self._link, self._lease = link, lease
        self._share = 0.0
        self._over, self._ended = threading.Event(), threading.Event()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeats", daemon=True)

    def __enter__(self) -> _Heartbeats:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def progress(self, share: float) -> None:
        """Raises:
        AbandonedError: the lease is lost.
        AuthenticationError, ForbiddenError: the key may not speak here any more.
        """
        self._share = min(1.0, max(self._share, share))
        self.check()

    def check(self) -> None:
        """As `progress`, where there is none."""
        if self._fault is not None:
            raise self._fault

    def pause(self, seconds: float) -> None:
        """Waits, but not for a measurement that is lost."""
        self._over.wait(seconds)
        self.check()

    def _beat(self) -> None:
        path = f"/measurements/{self._lease.id}/heartbeat"
        while not self._ended.wait(self._lease.lease_s / 4):
            try:
                self._link.once(
                    "POST",
                    path,
                    json={"fraction": self._share},
                    headers={"Lease-Token": self._lease.token},
                )
            except httpx.TransportError as error:
                logger.warning("heartbeat not heard measurement=%s: %s", self._lease.id, error)
            except InnAutomlError as error:
                self._fault = AbandonedError(str(error)) if isinstance(error, LEASE_LOST) else error
                self._over.set()
                return
