"""The references that are generated from code: nothing is left out."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from inn_automl.cli.main import commands
from inn_automl.core.spec import DeviceBudget, SearchBudget, TrainingBudget

DOCS = Path(__file__).parents[3] / "docs"
MODELS = (DeviceBudget, TrainingBudget, SearchBudget)


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    """The Sphinx extension of the documentation, which is no package."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("generated", DOCS / "_ext" / "generated.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_of_a_budget_is_explained(generated: ModuleType, model: type[BaseModel]) -> None:
    docs = generated.attribute_docs(model)
    assert set(docs) == set(model.model_fields)
    for name in model.model_fields:
        assert f".{name}`: " in generated.budget()


def test_every_command_is_described(generated: ModuleType) -> None:
    described = set(re.findall(r"^## `inn-automl (.+)`$", generated.cli(), flags=re.MULTILINE))
    assert set(commands.list_commands(None)) <= described  # type: ignore[arg-type]
    assert "datasets upload" in described


def test_every_endpoint_is_described(generated: ModuleType) -> None:
    text = generated.http()
    for endpoint in ("POST /v1/jobs", "GET /v1/jobs/{job_id}", "GET /v1/health"):
        assert f"### `{endpoint}`" in text


def test_pages_name_only_references_that_exist(generated: ModuleType) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    assert set(re.findall(r"<!-- generated: (\w+) -->", text)) == set(generated.BUILT)
    assert set(re.findall(r"<!-- begin generated: (\w+) -->", text)) == set(generated.COMMITTED)


@pytest.mark.parametrize("name", ["budget", "cli"])
def test_committed_references_are_current(generated: ModuleType, name: str) -> None:
    text = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")
    assert generated.renew(text) == text, "run `make reference`"


def test_an_outdated_reference_is_renewed(generated: ModuleType) -> None:
    text = "a\n<!-- begin generated: budget -->\nold\n<!-- end generated: budget -->\nb\n"
    renewed = generated.renew(text)
    assert "old" not in renewed
    assert "`training.cpus`" in renewed
    assert renewed.startswith("a\n") and renewed.endswith("-->\nb\n")
    assert generated.renew(renewed) == renewed
