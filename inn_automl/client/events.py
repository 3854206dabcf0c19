"""A job's events, as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import httpx
from pydantic import ValidationError

from inn_automl.api.jobs import ENDED, Job, JobEvent
from inn_automl.client.transport import SILENCE_S, Backoff, Transport
from inn_automl.core.errors import InnAutomlError, ServiceError


def parse_events(lines: Iterable[str]) -> Iterator[JobEvent]:
    """The events of a stream's lines; comments and events cut off before their blank line are
    dropped.

    Raises:
        ServiceError: data that are no event of a job.
    """
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                try:
                    yield JobEvent.model_validate_json("\n".join(data), extra="ignore")
                except ValidationError as error:
                    raise ServiceError(
                        f"the server sent an event that this version does not know "
                        f"({error.errors()[0]['msg']}): "
                        "install the server's version of inn-automl."
                    ) from error
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def watch_job(
    transport: Transport,
    job_id: str,
    state: Callable[[], Job],
    *,
    after: int = 0,
    patience_s: float,
    on_reconnect: Callable[[str], None] = lambda reason: None,
) -> Iterator[JobEvent]:
    """The job's events after the one with id `after`, as they come, until the job ended and all of
    them were given.

    Raises:
        RefusedError: there is no such job, or the key does not fit.
        ConnectionLostError: the server was away for longer than `patience_s`.
    """
    backoff = Backoff(patience_s)
    follow = True
    while True:
        try:
            for event in _stream(transport, job_id, after, follow):
                after = event.id
                backoff.succeeded()
                yield event
            if not follow:
                return
            # The stream also ends when a server stops. Only what is read after the job was seen
            # ended is all there is.
            follow = state().state not in ENDED
            reason = "the stream ended"
        except httpx.TransportError as error:
            lost, reason = transport.lost(error), str(error) or type(error).__name__
            if not backoff.wait():
                raise lost from error
            on_reconnect(reason)
        except InnAutomlError as error:
            if not _may_pass(error) or not backoff.wait():
                raise
            on_reconnect(str(error))
        else:
            if follow and not backoff.wait():
                backoff.succeeded()


def _may_pass(error: InnAutomlError) -> bool:
    return error.status is not None and (error.status >= 500 or error.status == 429)


def _stream(transport: Transport, job_id: str, after: int, follow: bool) -> Iterator[JobEvent]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    params = None if follow else {"follow": "false"}
    with transport.stream(
        f"/jobs/{job_id}/events", params=params, headers=headers, silence_s=SILENCE_S
    ) as response:
        yield from parse_events(response.iter_lines())
