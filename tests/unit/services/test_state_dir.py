from __future__ import annotations

import os
from pathlib import Path

import pytest
from inn_automl_services.standalone.state_dir import MAX_LOG_BYTES, NUM_RAY_SESSIONS, StateDir

from inn_automl.core.errors import InputError


@pytest.fixture
def home(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path)
    made.make()
    return made


def test_what_grew_is_put_aside_and_what_is_old_goes(home: StateDir) -> None:
    large, small = home.log("ray"), home.log("mlflow")
    with large.open("wb") as file:
        file.truncate(MAX_LOG_BYTES + 1)
    small.write_text("a line")
    sessions = [
        home.ray_sessions() / f"session_2026-01-0{day}_00-00-00_000000_1" for day in range(1, 6)
    ]
    for session in sessions:
        (session / "logs").mkdir(parents=True)
    home.clean()
    assert (large.exists(), large.with_name("ray.log.1").stat().st_size) == (
        False,
        MAX_LOG_BYTES + 1,
    )
    assert small.read_text() == "a line"
    assert [session for session in sessions if session.exists()] == sessions[-NUM_RAY_SESSIONS:]


def test_a_long_home_has_short_sockets_again_and_again(tmp_path: Path) -> None:
    home = StateDir(tmp_path / ("x" * 60), short_root=tmp_path)
    sessions = home.ray_sessions()
    assert sessions.parent.parent == tmp_path
    sessions.chmod(0o777)  # as Ray does
    assert home.ray_sessions() == sessions


def test_a_home_has_one_holder(home: StateDir) -> None:
    other = StateDir(home.folder)
    assert other.supervisor() is None
    with home.held():
        assert other.supervisor() == os.getpid()
        with pytest.raises(InputError, match=str(os.getpid())), other.held():
            pass
    assert other.supervisor() is None
