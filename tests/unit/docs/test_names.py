"""Files and names that the documentation mentions exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = (
    ROOT,
    ROOT / "inn_automl",
    ROOT / "inn_automl" / "integral",
    ROOT / "services" / "inn_automl_services",
)
"""Paths are given from the repository's top, or from one of the places that a page is about."""
PATH = re.compile(r"(?:\w+/)+[\w.*-]*(?:\.(?:py|md|toml|txt|yaml|yml))?")
STARTS = (
    *("benchmarks", "docs", "examples", "infra", "services", "tests", "workers", "inn_automl"),
    *("conversion", "coordinator", "data", "integral", "models", "pipeline", "runtimes"),
)
ENTRY_POINT_GROUPS = {"inn_automl.backends", "inn_automl.cli.commands"}
METADATA_KEYS = {"inn_automl.widths"}


def spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    paths = [
        span
        for span in spans(page)
        if PATH.fullmatch(span) and span.split("/")[0] in STARTS and "NAME" not in span
    ]
    assert not [
        path for path in paths if not any(list(folder.glob(path.rstrip("/"))) for folder in FOLDERS)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_can_be_imported(page: Path) -> None:
    for span in spans(page):
        found = re.fullmatch(r"(inn_automl(?:\.\w+)+)(?:\(.*\))?", span)
        if found and found[1] not in ENTRY_POINT_GROUPS | METADATA_KEYS:
            parent, _, name = found[1].rpartition(".")
            module = importlib.import_module(parent)
            if not hasattr(module, name):
                importlib.import_module(found[1])
