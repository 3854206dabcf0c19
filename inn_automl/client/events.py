"""A job's events, as server-sent events."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import httpx
import httpx_sse
from pydantic import ValidationError

from inn_automl.api.jobs import ENDED, Job, JobEvent
from inn_automl.core.errors import ServiceError
from inn_automl.http.connection import Connection
from inn_automl.http.retries import restart


def watch_job(
    connection: Connection,
    job_id: str,
    state: Callable[[], Job],
    *,
    after: int = 0,
    retry_deadline_s: float,
    on_reconnect: Callable[[str], None] = lambda reason: None,
) -> Iterator[JobEvent]:
    """Yields the job's events as they come, until the job ended and all of them were given.

    Args:
        state: reads the job.
        after: id of the last event that is known already.
        retry_deadline_s: how long the server may be away.
        on_reconnect: called with the reason when the connection broke.

    Raises:
        NotFoundError: there is no such job.
        ConnectionLostError: the server was away for longer.
        ServiceError: the server sends something else than a job's events.
    """
    retry = dataclasses.replace(connection.retry, deadline_s=retry_deadline_s)
    follow = True
    while True:
        try:
            for attempt in retry.retrying(on_retry=on_reconnect):
                with attempt:
                    for event in _stream(connection, job_id, after, follow):
                        after = event.id
                        restart(attempt)
                        yield event
        except httpx.TransportError as error:
            raise connection.lost(error) from error
        if not follow:
            return
        # The stream also ends when a server stops. Only what is read after the job was seen ended
        # is all there is.
        follow = state().state not in ENDED
        if follow:
            retry.sleep(retry.first_delay_s)


def _stream(connection: Connection, job_id: str, after: int, follow: bool) -> Iterator[JobEvent]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    params = None if follow else {"follow": "false"}
    address = f"/jobs/{job_id}/events"
    with connection.stream(address, params=params, headers=headers) as response:
        try:
            for event in httpx_sse.EventSource(response).iter_sse():
                if event.data:  # none: a comment, which keeps the connection alive
                    yield _read(event.data)
        except httpx_sse.SSEError as error:
            raise ServiceError(
                f"{connection.url} does not stream events ({error}): check that the URL is a "
                f"coordinator's."
            ) from error


def _read(data: str) -> JobEvent:
    try:
        return JobEvent.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        raise ServiceError(
            f"the server sent an event that this version does not know "
            f"({error.errors()[0]['msg']}): install the server's version of inn-automl."
        ) from error
