"""Settings, database, store and keys that endpoints work with, made once for each process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from inn_automl.core.object_store import ObjectStore
from inn_automl_services.coordinator.db.session import Database
from inn_automl_services.coordinator.keys import KeyRing
from inn_automl_services.coordinator.settings import Settings


@dataclass(frozen=True)
class Context:
    settings: Settings
    database: Database
    store: ObjectStore
    keys: KeyRing


def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _reading(context: Annotated[Context, Depends(get_context)]) -> Iterator[Session]:
    with context.database.read() as session:
        yield session


def _writing(context: Annotated[Context, Depends(get_context)]) -> Iterator[Session]:
    with context.database.write() as session:
        yield session


# The scope: committed before the answer is sent, so that no answer reports what did not happen.
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function")]
InContext = Annotated[Context, Depends(get_context)]
