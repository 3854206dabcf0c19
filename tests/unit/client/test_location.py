"""Where the service is, and the key for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inn_automl.client import (
    Location,
    RefusedError,
    find_server,
)


def make_home(folder: Path, url: str = "http://127.0.0.1:1") -> Path:
    folder.mkdir()
    (folder / "address.json").write_text(json.dumps({"url": url}), encoding="utf-8")
    (folder / "secrets.json").write_text(json.dumps({"user_key": "inn_home"}), encoding="utf-8")
    return folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No server in the environment, and a default home that is not there."""
    for name in ("INN_AUTOML_URL", "INN_AUTOML_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INN_AUTOML_HOME", str(tmp_path / "default"))
    return tmp_path


def test_the_server_is_what_was_said_most_clearly(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RefusedError, match="inn-automl up"):
        find_server()
    make_home(nowhere / "default", "http://default")
    assert find_server() == Location("http://default", "inn_home")
    monkeypatch.setenv("INN_AUTOML_URL", "http://environment/")
    with pytest.raises(RefusedError, match="INN_AUTOML_KEY"):
        find_server()
    monkeypatch.setenv("INN_AUTOML_KEY", "inn_environment")
    assert find_server() == Location("http://environment", "inn_environment")
    home = make_home(nowhere / "home", "http://home")
    assert find_server(home) == Location("http://home", "inn_home")
    assert find_server(home, key="inn_other") == Location("http://home", "inn_other")
    assert find_server(home, "http://given", "inn_given") == Location("http://given", "inn_given")
    assert "inn_given" not in repr(find_server(None, "http://given", "inn_given"))


def test_a_home_whose_stack_does_not_run(nowhere: Path) -> None:
    with pytest.raises(RefusedError, match=r"no stack runs at .*inn-automl up --home"):
        find_server(nowhere / "home")
    home = make_home(nowhere / "home")
    (home / "secrets.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RefusedError, match="lacks 'user_key'"):
        find_server(home)
