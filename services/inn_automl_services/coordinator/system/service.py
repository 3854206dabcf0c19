"""Readiness and metrics of the coordinator."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from inn_automl.api.jobs import JobState
from inn_automl.core.errors import StorageError, UnavailableError
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.system import repository


def check_ready(context: Context) -> None:
    """Raises:
    UnavailableError: the database or the storage cannot be reached.
    """
    try:
        with context.database.read() as session:
            repository.ping(session)
    except SQLAlchemyError as error:
        raise UnavailableError(
            f"the database cannot be reached ({type(error).__name__}): see its log."
        ) from error
    try:
        context.store.exists("datasets")
    except StorageError as error:
        raise UnavailableError(f"the storage cannot be reached: {error}") from error


def metrics(session: Session) -> bytes:
    """Counters of this process and gauges read from the database, in Prometheus' text
    format.
    """
    registry = CollectorRegistry()
    jobs = Gauge("inn_automl_jobs", "Jobs by state.", ("state",), registry=registry)
    counts = repository.num_jobs_by_state(session)
    for state in JobState:
        jobs.labels(state.value).set(counts.get(state.value, 0))
    oldest = repository.oldest_queued_at(session)
    age = Gauge(
        "inn_automl_oldest_queued_seconds", "Age of the oldest queued job.", registry=registry
    )
    age.set(max(0.0, (now() - oldest).total_seconds()) if oldest else 0)
    leases = Gauge(
        "inn_automl_running_leases", "Attempts at jobs that hold a lease.", registry=registry
    )
    leases.set(repository.num_leases(session))
    return generate_latest(REGISTRY) + generate_latest(registry)
