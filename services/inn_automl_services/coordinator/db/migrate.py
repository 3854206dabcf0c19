"""The database's schema, brought to what the code expects. Safe when several processes start at
once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text

from inn_automl_services.coordinator.db.session import make_engine

VERSION_TABLE = "inn_automl_version"
"""Table of versions. MLflow and Optuna use `alembic_version`."""
ADVISORY_LOCK = 0x696E6E_6175746F
"""Any number, as long as nobody else locks the same one in this database."""


def upgrade(url: str, revision: str = "head") -> None:
    """Runs the migrations that the database lacks, all in one transaction; others that try at the
    same time wait.
    """
    with _locked(url) as connection:
        command.upgrade(config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Takes migrations back, down to a revision; `base` leaves an empty database."""
    with _locked(url) as connection:
        command.downgrade(config(connection), revision)


def config(connection: Connection) -> Config:
    """Alembic's settings, over a connection in a transaction."""
    made = Config()
    made.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    engine = make_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _without_foreign_keys)
    try:
        # SQLite: BEGIN IMMEDIATE, the lock that others wait for
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK}
                )
            yield connection
    finally:
        engine.dispose()


def _without_foreign_keys(connection: sqlite3.Connection, record: Any) -> None:
    """A migration that rebuilds a table drops the old one, which would delete all rows that refer
    to it.
    """
    connection.execute("PRAGMA foreign_keys=OFF")
