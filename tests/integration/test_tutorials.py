"""The tutorials and the README do what they promise, code block by code block."""

from __future__ import annotations

import doctest
import functools
import importlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inn_automl.cli.main import main
from inn_automl.core.result import JobResult
from inn_automl.pipeline import run

from .conftest import measure_by_size

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"


def measured_by_size(job: Callable[..., JobResult]) -> Callable[..., JobResult]:
    @functools.wraps(job)
    def measured(*arguments: Any, **options: Any) -> JobResult:
        return job(*arguments, **{**options, "measure": measure_by_size})

    return measured


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )


@pytest.fixture(scope="module")
def first_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which somebody has followed the first tutorial up to its job."""
    folder = tmp_path_factory.mktemp("first-front")
    page = TUTORIALS / "first-front.md"
    (budget,) = blocks(page, "yaml")
    (folder / "budget.yaml").write_text(budget, encoding="utf-8")
    (command,) = blocks(page, "bash")
    program, *arguments = shlex.split(command)
    assert program == "inn-automl"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        for name in ("run_job", "extend_job"):
            monkeypatch.setattr(run, name, measured_by_size(getattr(run, name)))
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
        yield folder


def test_the_first_front_is_read_and_a_model_of_it_runs(
    first_front: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Path.cwd() == first_front
    names: dict[str, Any] = {}
    for block in blocks(TUTORIALS / "first-front.md", "python"):
        exec(compile(block, "first-front.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "parameters" in line]) == len(names["result"].front())
    assert re.search(r"class \d", lines[-1])


def test_the_search_of_the_readme_gives_a_result(first_front: Path) -> None:
    assert Path.cwd() == first_front
    (block,) = (b for b in blocks(ROOT / "README.md", "python") if "inn_automl.search" in b)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["point"] in names["result"].front()


@pytest.mark.parametrize(
    "module", ["inn_automl.facade.jobs", "inn_automl.facade.result", "inn_automl.serving.model"]
)
def test_examples_in_docstrings_of_a_finished_job(first_front: Path, module: str) -> None:
    """Here, for they read the job of the tutorial."""
    assert Path.cwd() == first_front
    ended = doctest.testmod(importlib.import_module(module))
    assert ended.attempted > 0
    assert ended.failed == 0


def test_the_notebook_makes_narrow_models_that_know_digits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    notebook = json.loads((TUTORIALS / "own-network.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            assert cell["outputs"] == []
    assert names["found"][1.0] > 0.9
    assert names["found"][0.25] > 0.5
    assert len(capsys.readouterr().out.splitlines()) >= len(names["found"])
