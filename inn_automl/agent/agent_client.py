"""A device agent's requests, retried until the coordinator answers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from inn_automl.api.devices import RegisterDevice
from inn_automl.api.measurements import MeasurementLease
from inn_automl.core.errors import (
    ConflictError,
    GoneError,
    NotFoundError,
    StaleLeaseError,
)
from inn_automl.http.connection import Connection
from inn_automl.http.retries import RetryPolicy

logger = logging.getLogger(__name__)

RETRY = RetryPolicy(deadline_s=math.inf, first_delay_s=0.5, max_delay_s=30.0, is_unattended=True)
HEARTBEAT_TIMEOUT_S = 10.0


class AgentClient:
    """A coordinator, as a device agent sees it.

    Requests are retried for as long as it takes, but heartbeats and releases: they are sent once.
    All of them raise `AuthenticationError` or `ForbiddenError` if the key may not speak for the
    device (any more), and those about a measurement `StaleLeaseError` if it is not this agent's any
    more.

    Args:
        url: of the coordinator.
        key: an API key of the role agent.
        retry: how requests are retried.
        shutdown_timeout_s: how long the coordinator has to answer when a lease is released.
        transport: sends the requests in place of the network, e.g. in a test.

    Raises:
        NoServerError: `url` is no URL.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        retry: RetryPolicy = RETRY,
        shutdown_timeout_s: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = Connection(
            url, key, retry=retry, user_agent="inn-automl-agent", transport=transport
        )
        self._shutdown_timeout_s = shutdown_timeout_s

    @property
    def url(self) -> str:
        return self._http.url

    def close(self) -> None:
        self._http.close()

    def register(self, device: RegisterDevice) -> None:
        """Makes a device known; what an agent of its name had leased is queued again."""
        self._request("/devices", json=device.model_dump(mode="json"))

    def lease(self, device: str, *, wait_s: float) -> MeasurementLease | None:
        """The device's next measurement; None if there is none within `wait_s`."""
        response = self._request(f"/devices/{device}/lease", params={"wait_s": wait_s})
        if response.status_code == 204:
            return None
        return MeasurementLease.model_validate_json(response.content, extra="ignore")

    def download_model(self, lease: MeasurementLease, sha256: str) -> Iterator[bytes]:
        """The bytes of one of the measurement's models; a single attempt.

        Raises:
            httpx.TransportError: the connection broke.
        """
        path = f"/measurements/{lease.id}/models/{sha256}"
        with self._http.stream(path, headers={"Lease-Token": lease.token}) as response:
            yield from response.iter_bytes()

    def post_results(self, lease: MeasurementLease, results: dict[str, dict[str, Any]]) -> None:
        """Delivers what was measured: by model, `LatencyMeasurement.to_dict()`."""
        self._about(lease, "results", json={"results": results})

    def post_failure(self, lease: MeasurementLease, detail: str) -> None:
        """Tells why the measurement failed."""
        self._about(lease, "failure", json={"detail": detail})

    def heartbeat(self, lease: MeasurementLease, fraction: float) -> None:
        """Renews the lease once, and tells how much of the measurement is done."""
        self._about(
            lease,
            "heartbeat",
            send=self._http.request_once,
            timeout_s=HEARTBEAT_TIMEOUT_S,
            json={"fraction": fraction},
        )

    def release(self, lease: MeasurementLease) -> None:
        """Gives the measurement back, once: the agent is being stopped."""
        self._about(
            lease, "release", send=self._http.request_once, timeout_s=self._shutdown_timeout_s
        )

    def _about(
        self,
        lease: MeasurementLease,
        what: str,
        *,
        send: Callable[..., httpx.Response] | None = None,
        **content: Any,
    ) -> None:
        path, headers = f"/measurements/{lease.id}/{what}", {"Lease-Token": lease.token}
        try:
            if send is None:
                self._request(path, headers=headers, **content)
            else:
                send("POST", path, headers=headers, **content)
        except (NotFoundError, ConflictError, GoneError) as error:
            raise StaleLeaseError(str(error)) from error

    def _request(self, path: str, **content: Any) -> httpx.Response:
        is_away = False

        def warn(reason: str) -> None:
            nonlocal is_away
            if not is_away:
                logger.warning(
                    "no answer from %s (%s): trying until there is one", self.url, reason
                )
            is_away = True

        response = self._http.request("POST", path, is_repeatable=True, on_retry=warn, **content)
        if is_away:
            logger.info("%s answers again", self.url)
        return response
