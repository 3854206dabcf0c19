"""Migrations make what the tables say, on both databases, and several processes may run them at
once.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from inn_automl_services.coordinator.db.migrate import VERSION_TABLE, downgrade, upgrade
from inn_automl_services.coordinator.db.session import make_engine
from inn_automl_services.coordinator.db.tables import Table
from sqlalchemy import MetaData, inspect


def test_migrations_make_the_tables_that_the_code_expects(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        differences = compare_metadata(context, Table.metadata)
    engine.dispose()
    assert differences == []


def test_constraints_carry_the_names_of_the_convention(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    found, expected = (
        _constraint_names(empty_database_url),
        _expected_constraint_names(Table.metadata),
    )
    assert found == expected
    assert all(None not in names for names in found.values())


def test_up_down_and_up_again(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    tables = _tables(empty_database_url)
    assert tables == {*Table.metadata.tables, VERSION_TABLE}
    downgrade(empty_database_url, "base")
    assert _tables(empty_database_url) == {VERSION_TABLE}
    upgrade(empty_database_url)
    upgrade(empty_database_url)
    assert _tables(empty_database_url) == tables


def test_two_processes_that_start_at_once_both_find_the_tables(empty_database_url: str) -> None:
    spawning = multiprocessing.get_context("spawn")
    processes = [spawning.Process(target=upgrade, args=(empty_database_url,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert _tables(empty_database_url) == {*Table.metadata.tables, VERSION_TABLE}


def test_a_failed_migration_leaves_nothing(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    drop = op.create_index

    def fail(name: str, table: str, columns: Any, **more: Any) -> None:
        if table == "measurements":
            raise RuntimeError("the machine stops here")
        drop(name, table, columns, **more)

    monkeypatch.setattr(op, "create_index", fail)
    with pytest.raises(RuntimeError, match="the machine stops here"):
        upgrade(empty_database_url)
    assert _tables(empty_database_url) == set()


def _tables(url: str) -> set[str]:
    engine = make_engine(url)
    with engine.connect() as connection:
        names = set(inspect(connection).get_table_names())
    engine.dispose()
    return names


def _constraint_names(url: str) -> dict[str, set[str | None]]:
    engine = make_engine(url)
    names: dict[str, set[str | None]] = {}
    with engine.connect() as connection:
        found = inspect(connection)
        for table in Table.metadata.tables:
            names[table] = {
                found.get_pk_constraint(table)["name"],
                *(key["name"] for key in found.get_foreign_keys(table)),
                *(unique["name"] for unique in found.get_unique_constraints(table)),
                *(check["name"] for check in found.get_check_constraints(table)),
            }
    engine.dispose()
    return names


def _expected_constraint_names(metadata: MetaData) -> dict[str, set[str | None]]:
    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateTable

    names: dict[str, set[str | None]] = {}
    for name, table in metadata.tables.items():
        # as the naming convention puts them
        statement = str(CreateTable(table).compile(dialect=sqlite.dialect()))
        names[name] = {
            line.split()[1]
            for line in statement.splitlines()
            if line.strip().startswith("CONSTRAINT")
        }
    return names
