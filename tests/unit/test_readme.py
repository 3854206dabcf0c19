"""The README, the examples and the files beside them: their code runs, their links lead somewhere,
their limits are kept."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import inn_automl
from inn_automl.core.spec import load_budget

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "infra" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
WIDEST = 100


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore:the module puts all:UserWarning")  # untrained
def test_the_library_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for example in blocks("python"):
        if "inn_automl.search" not in example:
            exec(compile(example, "README.md", "exec"), names)
    small, full = map(int, re.findall(r"(\d+) of (\d+) multiply", capsys.readouterr().out)[0])
    assert 0 < small < 0.5 * full


def test_the_example_budget_is_one(tmp_path: Path) -> None:
    (example,) = blocks("yaml")
    path = tmp_path / "budget.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_budget(path).devices[0].max_latency_ms == 2.0


def test_the_demo_budget_names_two_devices() -> None:
    budget = load_budget(ROOT / "examples" / "demo-budget.yaml")
    assert [device.threads for device in budget.devices] == [1, 2]
    assert budget.training.max_minutes < 5


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 130
    assert "docs/front.png" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(
        r"\]\((?!https?://)([^)#\s]+)|^\[[^\]]+\]: (?!https?://)(\S+)",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    paths = [page.parent / (inline or reference) for inline, reference in links]
    assert not [path for path in paths if not path.exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_end_before_column_100(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > WIDEST]


def test_hooks_run_what_make_check_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    checks = re.search(r"^CHECKS := (.*)$", makefile, flags=re.MULTILINE)
    hooks = YAML(typ="safe", pure=True).load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert checks is not None
    assert [f"make {check}" for check in checks[1].split()] == [
        hook["entry"] for repository in hooks for hook in repository["hooks"]
    ]


def test_the_newest_version_of_the_changelog_is_this_one() -> None:
    versions = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert versions[0] == inn_automl.__version__


def test_the_licence_is_the_one_that_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    for name in project["license-files"]:
        assert "Apache License" in (ROOT / name).read_text(encoding="utf-8")
