"""The size of files, functions and lines: what passes these limits holds more than one idea."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("inn_automl", "services", "workers", "benchmarks", "tests")
MAX_FUNCTION_LINES = 60
"""Without the docstring."""
MAX_FILE_LINES = 400
MAX_COLUMNS = 100
PRAGMA = re.compile(r"  # (type: ignore|noqa).*$")
"""A comment for a checker has to stand on the line that it is about."""


def python_files() -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(found) > 300
    return found


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name of each function of a file, and its number of lines without the docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            # Decorators do not count: tables of parameters are as long as they are.
            num_lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                docstring = node.body[0]
                num_lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
            yield node.name, num_lines


def test_functions_are_short() -> None:
    # A migration is one list of statements, and is never changed.
    files = [path for path in python_files() if "migrations/versions" not in path.as_posix()]
    long = {
        f"{path.relative_to(ROOT)}: {name}": num_lines
        for path in files
        for name, num_lines in functions(path)
        if num_lines > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_files_are_short() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in python_files()}
    long = {
        str(path.relative_to(ROOT)): num_lines
        for path, num_lines in lines.items()
        if num_lines > MAX_FILE_LINES
    }
    assert long == {}


def test_lines_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in python_files()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(PRAGMA.sub("", line)) > MAX_COLUMNS
    ]
    assert long == []
