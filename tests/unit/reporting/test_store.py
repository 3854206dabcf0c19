from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inn_automl.core.errors import StorageError
from inn_automl.reporting.store import Store, connect, exclusive, locate, prepare, prepare_early

REPOSITORY = Path(__file__).parents[3]


def test_where_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("INN_AUTOML_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate().home == tmp_path / ".inn_automl"
    monkeypatch.setenv("INN_AUTOML_HOME", str(tmp_path / "elsewhere"))
    assert locate() == Store(f"sqlite:///{tmp_path}/elsewhere/mlflow.db", tmp_path / "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
    assert locate() == Store("http://tracking:5000", None)
    assert locate().is_server
    assert locate(tmp_path / "given").home == tmp_path / "given"


def test_two_processes_at_once_make_one_whole_database(template_home: Path) -> None:
    assert {path.name for path in template_home.iterdir()} == {"mlflow.db", "mlflow.lock"}
    with sqlite3.connect(template_home / "mlflow.db") as database:
        tables = {
            name
            for (name,) in database.execute("select name from sqlite_master where type = 'table'")
        }
    database.close()
    assert {"runs", "metrics", "registered_models", "alembic_version"} <= tables


def test_an_existing_database_is_left_as_it_is(store: Store) -> None:
    assert store.database is not None
    before = store.database.stat()
    prepare(store)
    prepare_early(store)
    assert store.database.stat() == before


def test_preparing_early_does_not_wait(
    template_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = locate(tmp_path / "home")
    ready = tmp_path / "ready"
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nsleep 0.3; echo "$@" > {ready}.partial; mv {ready}.partial {ready}\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    prepare_early(store)
    assert not ready.exists()
    deadline = time.monotonic() + 20
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ready.read_text().split() == ["-m", "inn_automl.reporting.store", str(tmp_path / "home")]


def test_client_knows_the_store_and_leaves_mlflow_s_own_choice_alone(store: Store) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    client = connect(store)
    assert client.tracking_uri == store.uri
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None


def test_one_writer_at_a_time(store: Store) -> None:
    code = "import sys, pathlib; from inn_automl.reporting.store import exclusive, locate\n"
    code += "print('waiting', flush=True)\n"
    code += "with exclusive(locate(pathlib.Path(sys.argv[1]))): print('in', flush=True)"
    with exclusive(store):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(store.home)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    assert other.communicate(timeout=30)[0] == "in\n"


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(
        StorageError, match=r"'.*/file/home' cannot be written .*set INN_AUTOML_HOME"
    ):
        prepare(locate(blocked / "home"))


def test_a_file_that_is_no_database_is_named_at_once(store: Store) -> None:
    assert store.database is not None
    store.database.write_bytes(b"not SQLite" * 100)
    with pytest.raises(StorageError, match=r"mlflow\.db' is no MLflow database .*move it away"):
        connect(store)


def test_a_store_of_another_mlflow_is_named_with_the_way_out(store: Store) -> None:
    with sqlite3.connect(str(store.database)) as database:
        database.execute("update alembic_version set version_num = '451aebb31d03'")
    database.close()
    with pytest.raises(StorageError, match=r"another version of MLflow.*mlflow db upgrade"):
        connect(store)
