"""What the README promises can be done, can be done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inn_automl.core.spec import load_budget

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (block for block in blocks("python") if "IntegralNetwork" in block)
    exec(compile(example, "README.md", "exec"), {})
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_key_of_a_budget_is_explained() -> None:
    from inn_automl.core.spec import DeviceBudget, SearchBudget, TrainingBudget

    reference = README.split("## The hardware budget")[1].split("## ")[0]
    named = set(re.findall(r"`[\w\[\]]*\.(\w+)`", reference))
    assert named == {
        *DeviceBudget.model_fields,
        *TrainingBudget.model_fields,
        *SearchBudget.model_fields,
    }
