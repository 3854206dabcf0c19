"""The budgets and command lines that the documentation shows are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from inn_automl.cli.main import commands
from inn_automl.core.spec import Budget, parse

ROOT = Path(__file__).parents[3]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_budgets_are_accepted(page: Path) -> None:
    for block in blocks(page, "yaml"):
        value = YAML(typ="safe", pure=True).load(block)
        parse(Budget, {"devices": [{"name": "one"}], **value}, where=page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist(page: Path) -> None:
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    for words in re.findall(r"inn-automl (?!-)([^#\n;|]*)", text):
        context, command = click.Context(commands), commands
        names = words.rstrip(")").split()
        while isinstance(command, click.Group) and names and command.get_command(context, names[0]):
            command = command.get_command(context, names.pop(0))
        assert command is not commands, words
        options = {name for parameter in command.params for name in parameter.opts}
        assert {name for name in names if name.startswith("-")} <= options | {"-h", "--help"}, words
