"""The application: routers, errors as problem documents, request ids, and the loop that dispatches
jobs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from inn_automl.core.object_store import ObjectStore
from inn_automl.core.version import __version__
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.datasets.endpoints import router as datasets
from inn_automl_services.coordinator.db.session import Database, make_engine
from inn_automl_services.coordinator.devices.endpoints import router as devices
from inn_automl_services.coordinator.dispatch.dispatcher import dispatching
from inn_automl_services.coordinator.jobs.endpoints import router as jobs
from inn_automl_services.coordinator.keys import KeyRing
from inn_automl_services.coordinator.models.endpoints import router as models
from inn_automl_services.coordinator.projects.endpoints import router as projects
from inn_automl_services.coordinator.requests import RequestLimits
from inn_automl_services.coordinator.runs.endpoints import router as runs
from inn_automl_services.coordinator.settings import Settings
from inn_automl_services.coordinator.system.endpoints import router as system

ROUTERS = (system, projects, datasets, jobs, models, devices, runs)


def create_app(settings: Settings) -> FastAPI:
    """An application over a migrated database; nothing is dispatched unless the settings name a
    Ray.
    """
    context = Context(
        settings=settings,
        database=Database(make_engine(settings.database_url)),
        store=ObjectStore(settings.storage_url),
        keys=KeyRing(settings.requests_per_minute),
    )

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        with dispatching(context):
            yield
        context.database.engine.dispose()

    app = FastAPI(
        title="inn_automl",
        version=__version__,
        summary="Datasets and hardware budgets in; measured accuracy-latency fronts and "
        "downloadable models out.",
        lifespan=running,
    )
    app.state.context = context
    problems.install(app)
    app.add_middleware(RequestLimits, settings=settings)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
    return app
