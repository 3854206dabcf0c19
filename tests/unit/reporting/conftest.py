from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inn_automl.reporting.store import Store, locate

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def template_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose database two processes wanted at the same time, beside what a killed one had
    left.
    """
    home = tmp_path_factory.mktemp("home with a space")
    (home / "mlflow.db.partial").write_bytes(b"left by a process that was killed")
    command = [sys.executable, "-W", "error", "-m", "inn_automl.reporting.store", str(home)]
    both = [
        subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert errors == ""
    return home


@pytest.fixture
def store(template_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty embedded store of its own for each test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(template_home / "mlflow.db", home)
    return locate(home)
