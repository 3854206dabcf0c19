"""`inn-automl coordinator` serves the API; `inn-automl migrate` prepares its database."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from inn_automl.core.errors import InputError

if TYPE_CHECKING:
    import uvicorn

    from inn_automl.api.access import Role
    from inn_automl_services.coordinator.settings import Settings

LEAST_KEY_LENGTH = 32
GRACE_S = 4
"""Time for requests under way after a SIGTERM; event streams would never end by themselves."""


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    help="Port to listen on; 0 for a free one.",
)
@click.option("--migrate", is_flag=True, help="Bring the database's tables up to date first.")
@click.option(
    "--bootstrap-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Make the project 'default' and an admin key, and write the key here, unless there is an "
    "admin key already.",
)
def coordinator(host: str, port: int, migrate: bool, bootstrap_key_file: Path | None) -> None:
    """Serve the API until SIGTERM; settings are read from INN_AUTOML_DATABASE_URL,
    INN_AUTOML_STORAGE_URL and so on.
    """
    from inn_automl_services.coordinator.app import create_app
    from inn_automl_services.coordinator.db.migrate import upgrade
    from inn_automl_services.coordinator.json_logs import log_as_json

    settings = _settings()
    log_as_json()
    if migrate:
        upgrade(settings.database_url)
    if bootstrap_key_file is not None:
        _bootstrap(settings, bootstrap_key_file)
    _server(create_app(settings), host, port).run()


@click.command()
def migrate() -> None:
    """Bring the database's tables up to date and end; what a deployment runs before its
    coordinators.

    Where INN_AUTOML_ADMIN_KEY or INN_AUTOML_AGENT_KEY are set, these become keys of the project
    'default'.
    """
    from inn_automl.api.access import Role
    from inn_automl_services.coordinator.db.migrate import upgrade

    settings = _settings()
    secrets = {
        role: os.environ.get(f"INN_AUTOML_{role.name}_KEY", "") for role in (Role.ADMIN, Role.AGENT)
    }
    given = {role: secret for role, secret in secrets.items() if secret}
    for role, secret in given.items():
        if len(secret) < LEAST_KEY_LENGTH:
            raise InputError(
                f"INN_AUTOML_{role.name}_KEY has {len(secret)} characters: "
                f"give at least {LEAST_KEY_LENGTH} random ones, e.g. from `openssl rand -hex 32`."
            )
    upgrade(settings.database_url)
    if given:
        _make_keys(settings, given)


def _make_keys(settings: Settings, secrets: dict[Role, str]) -> None:
    from inn_automl_services.coordinator.db.session import Database, make_engine
    from inn_automl_services.coordinator.projects.service import ensure_project_and_keys

    database = Database(make_engine(settings.database_url))
    try:
        ensure_project_and_keys(database, "default", secrets)
    finally:
        database.engine.dispose()


def _settings() -> Settings:
    from pydantic import ValidationError

    from inn_automl_services.coordinator.settings import Settings

    try:
        return Settings()  # type: ignore[call-arg]  # from the environment
    except ValidationError as error:
        failure = error.errors()[0]
        name = "INN_AUTOML_" + ".".join(str(part) for part in failure["loc"]).upper()
        raise InputError(f"the environment variable {name}: {failure['msg']}.") from None


def _bootstrap(settings: Settings, path: Path) -> None:
    from inn_automl_services.coordinator.db.session import Database, make_engine
    from inn_automl_services.coordinator.projects.service import bootstrap

    database = Database(make_engine(settings.database_url))
    try:
        bootstrap(database, path)
    finally:
        database.engine.dispose()


def _server(app: object, host: str, port: int) -> uvicorn.Server:
    import uvicorn

    class CoordinatorServer(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            # A thread in a long poll cannot be interrupted. Everything is a transaction: nothing
            # is lost by leaving.
            leaving = threading.Timer(GRACE_S + 1, os._exit, (0,))
            leaving.daemon = True
            leaving.start()

    # The middleware logs each request itself, with its id.
    return CoordinatorServer(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
        )
    )
