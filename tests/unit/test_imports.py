"""Imports point down, and what the base install runs pulls in nothing heavy."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = {
    "altair",
    "fastapi",
    "matplotlib",
    "mlflow",
    "onnx",
    "optuna",
    "pandas",
    "ray",
    "sklearn",
    "sqlalchemy",
    "torch",
}
LIGHT = [
    "inn_automl",
    "inn_automl.cli.main",
    "inn_automl.client",
    "inn_automl.data",
    "inn_automl.agent.agent",
    "inn_automl.latency.benchmark",
    "inn_automl.serving",
    "inn_automl.core.errors",
    "inn_automl.core.metric",
    "inn_automl.core.progress",
    "inn_automl.core.result",
    "inn_automl.width_search.pareto",
    "inn_automl.core.spec",
    "inn_automl.core.storage",
    "inn_automl.cli.summary",
]


def exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def imported_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has imported after running `code`."""
    report = "import sys; print('\\n', *{name.partition('.')[0] for name in sys.modules})"
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.splitlines()[-1].split())


def test_import_directions_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_package_is_under_the_contracts() -> None:
    found = [*ROOT.glob("inn_automl*/__init__.py"), *ROOT.glob("*/inn_automl*/__init__.py")]
    packages = {path.parent.name for path in found}
    assert packages == set(PYPROJECT["tool"]["importlinter"]["root_packages"])


@pytest.mark.parametrize("module", [module for module in LIGHT if exists(module)])
def test_what_the_base_install_runs_is_light(module: str) -> None:
    assert not imported_by(f"import {module}") & HEAVY


def test_the_command_answers_without_anything_heavy() -> None:
    code = (
        "from inn_automl.cli.main import commands\ncommands.main(['--help'], standalone_mode=False)"
    )
    assert not imported_by(code) & HEAVY


def test_the_command_refuses_bad_input_without_anything_heavy(tmp_path: Path) -> None:
    budget = tmp_path / "budget.yaml"
    budget.write_text("devices: [{name: a}]", encoding="utf-8")
    arguments = [
        "run",
        "--dataset",
        str(tmp_path / "none.npz"),
        "--budget",
        str(budget),
        "--out",
        str(tmp_path / "out"),
    ]
    code = f"from inn_automl.cli.main import main\ntry: main({arguments!r})\n"
    code += "except SystemExit as end: assert end.code == 2"
    assert not imported_by(code) & HEAVY


def third_party_imports(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    own = {"benchmarks", "docs", "tests", *PYPROJECT["tool"]["importlinter"]["root_packages"]}
    return names - set(sys.stdlib_module_names) - own


def names_of(requirements: list[str]) -> set[str]:
    return {
        re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")
        for requirement in requirements
    }


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("inn_automl", ["worker", "openvino"]),
        ("workers", ["worker"]),
        ("services", ["service"]),
        ("benchmarks", ["worker", "service", "dev"]),
        ("tests", ["worker", "service", "dev"]),
    ],
)
def test_what_is_imported_is_required(folder: str, extras: list[str]) -> None:
    """Nothing comes by chance, as a dependency of a dependency."""
    project = PYPROJECT["project"]
    required = names_of(project["dependencies"]).union(
        *(names_of(project["optional-dependencies"][extra]) for extra in extras)
    )
    distributions = importlib.metadata.packages_distributions()
    missing = {
        name
        for name in third_party_imports(ROOT / folder)
        if not {d.lower().replace("_", "-") for d in distributions.get(name, [name])} & required
    }
    assert not missing


def test_a_subpackage_does_not_take_the_place_of_a_function() -> None:
    code = (
        "import inn_automl; from inn_automl.width_search.pareto import pareto_front; "
        "assert callable(inn_automl.search) and pareto_front"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
