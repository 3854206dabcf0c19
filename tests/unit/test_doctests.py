"""Examples in docstrings of the public interface run, and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "inn_automl.core.spec",
    "inn_automl.data.load",
    "inn_automl.integral.conversion.convert",
    "inn_automl.integral.graph.groups",
    "inn_automl.integral.network",
    "inn_automl.latency.benchmark",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
