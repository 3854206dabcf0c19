"""The names of `import inn_automl`: each is found, and none costs anything before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import inn_automl


@pytest.mark.parametrize("name", inn_automl.__all__)
def test_every_name_is_found_and_documented(name: str) -> None:
    value = getattr(inn_automl, name)
    assert name == "__version__" or value.__doc__


def test_names_are_listed_and_others_refused() -> None:
    assert set(dir(inn_automl)) == set(inn_automl.__all__)
    with pytest.raises(AttributeError, match="serch"):
        inn_automl.serch  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import inn_automl; "
    code += "print(*{name.split('.')[0] for name in sys.modules.keys() - before})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split()) - set(sys.stdlib_module_names)
    assert loaded == {"inn_automl"}


def test_a_function_is_not_hidden_by_a_package_of_its_name() -> None:
    """Importing a subpackage sets an attribute of its parent, which would come before the name."""
    code = "import inn_automl, inn_automl.pipeline.run; assert all(map(callable, "
    code += "[inn_automl.search, inn_automl.extend, inn_automl.discretize, inn_automl.measure]))"
    subprocess.run([sys.executable, "-c", code], check=True)
