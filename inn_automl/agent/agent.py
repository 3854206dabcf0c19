"""The device agent: leases measurements, times the models on this machine, posts the samples.

It outlives restarts of the coordinator and cuts of the network. Stopped, it releases its
measurement; killed, its lease expires, or ends when an agent of the same name starts again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from inn_automl.agent.agent_client import AgentClient
from inn_automl.agent.description import describe_device
from inn_automl.agent.model_cache import ModelCache
from inn_automl.api.devices import RegisterDevice
from inn_automl.api.measurements import MeasurementLease
from inn_automl.core.errors import (
    AuthenticationError,
    ForbiddenError,
    InnAutomlError,
    MeasurementError,
    RefusedError,
    StaleLeaseError,
)
from inn_automl.http.heartbeats import Heartbeats
from inn_automl.http.retries import RetryPolicy
from inn_automl.latency.benchmark import measure
from inn_automl.latency.config import BenchmarkConfig
from inn_automl.latency.machine_lock import machine_lock
from inn_automl.latency.measurement import Measure

logger = logging.getLogger(__name__)

LEASE_WAIT_S = 20.0
"""Seconds that the coordinator may hold a request for work."""
DOWNLOAD_DEADLINE_S = 120.0
"""Seconds in which a download is repeated after the connection broke."""
HEARTBEATS_PER_LEASE = 4
KEY_REFUSED = (AuthenticationError, ForbiddenError)


class Agent:
    """One device of a coordinator.

    Args:
        client: speaks to the coordinator.
        name: what the device is called there.
        cache: keeps downloaded models.
        measure: times the models.
        lock: waits until no other agent measures on this machine, and calls its argument
            meanwhile.
    """

    def __init__(
        self,
        client: AgentClient,
        name: str,
        cache: ModelCache,
        *,
        measure: Measure = measure,
        lock: Callable[[Callable[[], None]], AbstractContextManager[None]] = machine_lock,
    ) -> None:
        self._client, self._name, self._cache = client, name, cache
        self._measure, self._lock = measure, lock

    def run(self) -> None:
        """Measures what comes, until an exception (a signal's) ends it.

        Raises:
            AuthenticationError, ForbiddenError: the key may not speak for this device.
            RefusedError: the device was removed.
        """
        self.register()
        while True:
            lease = self.lease()
            if lease is not None:
                self.serve(lease)

    def register(self) -> None:
        """Makes the device known; what an agent of the same name had leased is queued again.

        Raises:
            AuthenticationError: the key is not known.
            ForbiddenError: the name belongs to another key.
        """
        description = describe_device()
        self._client.register(RegisterDevice(name=self._name, description=description))
        logger.info(
            "registered device=%s server=%s cpu=%r runtimes=%r",
            self._name,
            self._client.url,
            description.cpu,
            ", ".join(f"{name} {version}" for name, version in description.runtimes.items()),
        )

    def lease(self) -> MeasurementLease | None:
        """The next measurement; None if there was none for a while.

        Raises:
            RefusedError: the device was removed, or belongs to another key now.
        """
        return self._client.lease(self._name, wait_s=LEASE_WAIT_S)

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
            self._serve(lease)
            logger.info("done measurement=%s seconds=%.1f", lease.id, time.monotonic() - start)
        except StaleLeaseError as error:
            logger.warning("abandoned measurement=%s: %s", lease.id, error)
        except KEY_REFUSED:
            raise
        except Exception as error:
            self._fail(lease, error)
        except BaseException:
            self._release(lease)
            raise

    def _serve(self, lease: MeasurementLease) -> None:
        done = 0.0

        def beat() -> None:
            self._client.heartbeat(lease, done)

        def report(fraction: float) -> None:
            nonlocal done
            done = min(1.0, max(done, fraction))
            heartbeats.check()

        every_s = lease.lease_s / HEARTBEATS_PER_LEASE
        with Heartbeats(beat, every_s, ends_on=(RefusedError,)) as heartbeats:
            paths = self._download(lease, heartbeats)
            with self._lock(heartbeats.check):
                found = self._measure(
                    paths,
                    lease.device,
                    config=BenchmarkConfig.from_dict(lease.benchmark_config),
                    on_progress=report,
                )
            self._client.post_results(
                lease, {name: measurement.to_dict() for name, measurement in found.items()}
            )

    def _download(self, lease: MeasurementLease, heartbeats: Heartbeats) -> dict[str, Path]:
        def fetch(sha256: str) -> Iterator[bytes]:
            for chunk in self._client.download_model(lease, sha256):
                heartbeats.check()
                yield chunk

        def warn(reason: str) -> None:
            logger.warning("download broke measurement=%s: %s", lease.id, reason)

        retry = RetryPolicy(
            deadline_s=DOWNLOAD_DEADLINE_S,
            first_delay_s=1.0,
            max_delay_s=30.0,
            is_unattended=True,
            sleep=heartbeats.pause,
        )
        try:
            return retry.retrying(on_retry=warn)(self._cache.collect, lease.models, fetch)
        except httpx.TransportError as error:
            raise MeasurementError(
                f"device {self._name!r} could not download the models ({error}): look at its "
                f"network."
            ) from error

    def _fail(self, lease: MeasurementLease, error: Exception) -> None:
        # Whoever stops this agent may stop its processes a moment earlier: what looks like a crash
        # is then none.
        time.sleep(0.2)
        if isinstance(error, InnAutomlError):
            detail = str(error)
            logger.warning("failed measurement=%s code=%s: %s", lease.id, error.code, detail)
        else:
            detail = (
                f"the agent on {self._name!r} failed ({type(error).__name__}: {error}): its log "
                f"says where."
            )
            logger.error("failed measurement=%s", lease.id, exc_info=error)
        try:
            self._client.post_failure(lease, detail[:4096])
        except StaleLeaseError as lost:
            logger.warning("abandoned measurement=%s: %s", lease.id, lost)
        except KEY_REFUSED:
            raise
        except InnAutomlError as refused:
            logger.error("its failure was refused measurement=%s: %s", lease.id, refused)

    def _release(self, lease: MeasurementLease) -> None:
        try:
            self._client.release(lease)
            logger.info("released measurement=%s", lease.id)
        except InnAutomlError as error:
            logger.warning("not released measurement=%s: %s", lease.id, error)
