"""Entry point of Alembic: migrations over the connection that `migrate` has locked."""

from __future__ import annotations

from alembic import context

from inn_automl_services.coordinator.db.migrate import VERSION_TABLE
from inn_automl_services.coordinator.db.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a table by making a new one
)
with context.begin_transaction():
    context.run_migrations()
