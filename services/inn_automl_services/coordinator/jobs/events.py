"""A job's events as a stream that can be resumed, for any number of watchers at a small price.

A watcher that waits holds neither a thread nor a connection. It reads the database about once a
second, less often while nothing happens, and at most `max_event_readers` watchers of a process
read at once.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator

import anyio
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

from inn_automl.api import jobs as wire
from inn_automl.api.jobs import ENDED
from inn_automl_services.coordinator.db.session import Database
from inn_automl_services.coordinator.jobs import repository
from inn_automl_services.coordinator.settings import Settings

_limiter: RunVar[CapacityLimiter] = RunVar("inn_automl_services.coordinator.jobs.events")


async def watch(
    database: Database, settings: Settings, job_id: str, *, after: int, follow: bool
) -> AsyncIterator[wire.JobEvent]:
    """Yields the events that follow the one with id `after`, until the job has ended and all were
    given, or is deleted.

    Args:
        follow: False to end after those that are there now.
    """
    batch_size, limiter = settings.event_batch_size, _get_limiter(settings.max_event_readers)
    pause_s = settings.event_poll_s
    while True:
        ended, events = await anyio.to_thread.run_sync(
            functools.partial(_read, database, job_id, after, batch_size), limiter=limiter
        )
        for event in events:
            yield event
            after, pause_s = event.id, settings.event_poll_s
        if len(events) == batch_size:
            continue
        if ended or not follow:
            return
        await anyio.sleep(pause_s)
        pause_s = min(settings.event_idle_poll_s, 1.5 * pause_s)


def _read(
    database: Database, job_id: str, after: int, limit: int
) -> tuple[bool, list[wire.JobEvent]]:
    """Returns whether the job has ended, and its next events."""
    with database.read() as session:
        state, rows = repository.state_and_events(session, job_id, after=after, limit=limit)
    events = [
        wire.JobEvent.model_validate(
            {"id": row.id, "kind": row.kind, "data": row.data, "at": row.at}
        )
        for row in rows
    ]
    return state is None or state in ENDED, events


def _get_limiter(max_readers: int) -> CapacityLimiter:
    """The one limiter of the event loop."""
    try:
        return _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(max_readers)
        _limiter.set(limiter)
        return limiter
