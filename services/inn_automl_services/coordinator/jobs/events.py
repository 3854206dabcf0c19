"""A job's events as a stream that can be resumed, for any number of watchers at a small price.

A watcher that waits holds neither a thread nor a connection. It asks the database about once a
second, less often while nothing happens, and all watchers of a process together never ask more
than `MAX_ASKING` times at once.
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

POLL_S, IDLE_POLL_S = 0.5, 2.0
"""Between two looks right after something happened; each look in vain makes it longer, up to the
second.
"""
BATCH = 500
MAX_ASKING = 4

_asking: RunVar[CapacityLimiter] = RunVar("inn_automl_services.coordinator.jobs.events")


async def watch(
    database: Database, job_id: str, *, after: int, follow: bool
) -> AsyncIterator[wire.JobEvent]:
    """Events that follow the one with id `after`, until the job has ended and all were given, or
    is deleted.

    Args:
        follow: False to end after what is there now.
    """
    pause_s = POLL_S
    while True:
        ended, events = await anyio.to_thread.run_sync(
            functools.partial(_look, database, job_id, after), limiter=_limiter()
        )
        for event in events:
            yield event
            after, pause_s = event.id, POLL_S
        if len(events) == BATCH:
            continue
        if ended or not follow:
            return
        await anyio.sleep(pause_s)
        pause_s = min(IDLE_POLL_S, 1.5 * pause_s)


def _look(database: Database, job_id: str, after: int) -> tuple[bool, list[wire.JobEvent]]:
    """Whether the job has ended, and what happened."""
    with database.read() as session:
        state, rows = repository.state_and_events(session, job_id, after=after, limit=BATCH)
    events = [
        wire.JobEvent.model_validate(
            {"id": row.id, "kind": row.kind, "data": row.data, "at": row.at}
        )
        for row in rows
    ]
    return state is None or state in ENDED, events


def _limiter() -> CapacityLimiter:
    try:
        return _asking.get()
    except LookupError:
        limiter = CapacityLimiter(MAX_ASKING)
        _asking.set(limiter)
        return limiter
