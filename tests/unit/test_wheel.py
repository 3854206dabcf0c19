"""The wheel, built from just the files that an image is built from."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "infra/docker/coordinator.Dockerfile"
DATA_FILES = {
    "inn_automl/latency/reference.onnx",
    "inn_automl/py.typed",
    "inn_automl_services/coordinator/db/migrations/script.py.mako",
}
USE = """
import sys
sys.path.insert(0, sys.argv[1])
import inn_automl, inn_automl_services, inn_automl_workers
from inn_automl_services.coordinator.db.migrate import upgrade
assert all(
    module.__file__.startswith(sys.argv[1])
    for module in (inn_automl, inn_automl_services, inn_automl_workers)
)
upgrade(sys.argv[2])
"""


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for line in SERVER.read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / name, ignore=ignored)
                else:
                    shutil.copy(ROOT / name, source)
    _pip("wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", built, "--quiet")
    (found,) = built.glob("*.whl")
    return found


def test_only_our_prefix_is_claimed_on_the_import_path(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.partition("/")[0] for name in archive.namelist()}
    packages = {name for name in top if not name.endswith(".dist-info")}
    assert packages == {"inn_automl", "inn_automl_services", "inn_automl_workers"}


def test_every_module_and_data_file_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    present = {
        path.relative_to(folder).as_posix()
        for folder in (ROOT, ROOT / "services", ROOT / "workers")
        for package in folder.glob("inn_automl*")
        if package.suffix != ".egg-info"  # what an editable installation writes
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert present >= DATA_FILES
    assert present - names == set()


def test_what_is_installed_migrates_a_database(wheel: Path, tmp_path: Path) -> None:
    """Without the checkout on the path."""
    site = tmp_path / "site"
    _pip("install", "--no-deps", "--quiet", "--target", site, wheel)
    command = [sys.executable, "-I", "-c", USE, str(site), f"sqlite:///{tmp_path}/new.db"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_image_gets_all_files_that_its_build_copies() -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for dockerfile in sorted((ROOT / "infra/docker").glob("*.Dockerfile")):
        for line in dockerfile.read_text().splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                assert set(line.split()[1:-1]) <= kept, f"{dockerfile.name}: {line}"
