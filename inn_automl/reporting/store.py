"""Storage of MLflow runs: the one that `MLFLOW_TRACKING_URI` names, or else an embedded store in a
home folder.

The embedded store is a SQLite file `mlflow.db` and a folder `mlartifacts/` under
`$INN_AUTOML_HOME`, by default `~/.inn_automl`. Creating its tables takes MLflow seconds:
`prepare_early` lets that happen while a job trains.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inn_automl.core.errors import StorageError
from inn_automl.core.home import home_folder
from inn_automl.core.locking import file_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
}
"""Environment variables of MLflow, unless they are set already: no output, no telemetry, and half a
minute instead of four until an unreachable server is an error."""


@dataclass(frozen=True)
class Store:
    """Storage of MLflow runs."""

    uri: str
    """MLflow tracking URI."""
    home: Path | None
    """Folder of the embedded store; None where `uri` came from the environment."""

    @property
    def artifacts(self) -> Path | None:
        """Folder that the embedded store keeps artifacts in."""
        return self.home / "mlartifacts" if self.home else None

    @property
    def database(self) -> Path | None:
        """SQLite file of the embedded store."""
        return self.home / "mlflow.db" if self.home else None

    @property
    def is_server(self) -> bool:
        """True if `uri` can be opened in a browser."""
        return self.uri.startswith(("http://", "https://"))


def locate(home: Path | None = None) -> Store:
    """The store to use: under `home` if given, else what `MLFLOW_TRACKING_URI` names, else the
    embedded one.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if home is None and uri:
        return Store(uri.rstrip("/"), home=None)
    folder = home.expanduser().absolute() if home else home_folder()
    return Store(f"sqlite:///{folder / 'mlflow.db'}", home=folder)


@contextmanager
def exclusive(store: Store) -> Iterator[None]:
    """Holds the embedded store for one writer at a time, across processes; other stores arbitrate
    by themselves.

    Raises:
        StorageError: the home folder cannot be written.
    """
    if store.home is None:
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(store.home / "mlflow.lock", timeout_s=None))
        except StorageError as error:
            raise StorageError(
                f"the folder for MLflow's data {str(store.home)!r} cannot be written ({error}): "
                "set INN_AUTOML_HOME to a folder that can, or MLFLOW_TRACKING_URI to a server."
            ) from error
        yield


def prepare(store: Store) -> None:
    """Creates the embedded store where it does not exist yet; does nothing for any other.

    Safe to call from several processes at once, and after one of them was killed here: the
    database appears whole or not at all.

    Raises:
        StorageError: the home folder cannot be written, or its database is none.
    """
    if store.database is None:
        return
    if not store.database.exists():
        with exclusive(store):
            if not store.database.exists():
                _create_database(store.database)
    _check_database(store.database)


def prepare_early(store: Store) -> None:
    """Starts `prepare` in a process of its own and returns at once; whoever needs the store first
    waits for it.

    A failure there is silent, since `prepare` meets the same error again where it can be
    reported.
    """
    if store.home is None or (store.database and store.database.exists()):
        return
    command = [sys.executable, "-m", "inn_automl.reporting.store", str(store.home)]
    nowhere = subprocess.DEVNULL

    def run() -> None:
        subprocess.run(command, check=False, stdin=nowhere, stdout=nowhere, stderr=nowhere)

    # The thread only reaps the process; a process that outlives this one finishes its file and
    # ends.
    threading.Thread(target=run, daemon=True, name="prepare MLflow's store").start()


def connect(store: Store) -> MlflowClient:
    """An MLflow client of `store`; leaves MLflow's process-wide tracking URI and active run alone.

    Raises:
        StorageError: there is no store, it cannot be reached, or another version of MLflow wrote
            it.
    """
    prepare(store)
    with quiet_mlflow():
        from mlflow import MlflowClient

        try:
            registry = (
                store.uri if store.home else os.environ.get("MLFLOW_REGISTRY_URI") or store.uri
            )
            client = MlflowClient(tracking_uri=store.uri, registry_uri=registry)
            client.search_experiments(max_results=1)
        except (
            Exception
        ) as error:  # MLflow's, SQLAlchemy's, requests': whichever the store is made of.
            raise StorageError(_explain(store, error)) from error
    return client


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Within it, MLflow is imported as `ENVIRONMENT` says, and without the warnings that its own
    code raises.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # MLflow maps its tables in a way that SQLAlchemy 2.1 deprecates.
        warnings.filterwarnings(
            "ignore", message="The ``noload`` loader strategy", category=DeprecationWarning
        )
        # Raised while `mlflow.pyfunc` is imported, about type hints of its own.
        warnings.filterwarnings(
            "ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning
        )
        yield


def _create_database(path: Path) -> None:
    # One name, not a random one: under the lock, what a killed process left is cleaned here.
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with quiet_mlflow():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        try:
            created = SqlAlchemyStore(f"sqlite:///{partial}", str(path.with_name("mlartifacts")))
            created.engine.dispose()
            os.replace(partial, path)
        except (
            Exception
        ) as error:  # SQLAlchemy's and Alembic's own trees, which the library does not import.
            partial.unlink(missing_ok=True)
            raise StorageError(
                f"MLflow's database {str(path)!r} could not be made ({_first_line(error)}): free "
                "some room, or set INN_AUTOML_HOME to a folder that has it."
            ) from error


def _check_database(path: Path) -> None:
    """Says at once what MLflow would find out after two minutes of retries."""
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("select version_num from alembic_version")
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"{str(path)!r} is no MLflow database ({error}): move it away, and a new one is made."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _explain(store: Store, error: Exception) -> str:
    reason = _first_line(error)
    if "out-of-date database schema" in reason:
        return (
            f"the MLflow store {store.uri!r} was written by another version of MLflow: back it up, "
            f"then run "
            f"`{sys.executable} -m mlflow db upgrade {store.uri}`, or set INN_AUTOML_HOME to a new "
            f"folder."
        )
    return (
        f"the MLflow store {store.uri!r} cannot be used ({reason}): "
        f"correct MLFLOW_TRACKING_URI or start its server."
    )


if __name__ == "__main__":
    prepare(locate(Path(sys.argv[1])))
