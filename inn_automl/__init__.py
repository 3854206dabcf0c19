"""inn_automl: a dataset and a hardware budget in, measured Pareto fronts and downloadable models
out.

Importing this package costs nothing: what needs torch is imported from the subpackage that holds
it, e.g. `from inn_automl.integral import IntegralNetwork`. `inn_automl.convert` is found without
its subpackage's name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inn_automl.integral import convert

__all__ = ["__version__", "convert"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name == "convert":
        # Not an import statement: this package itself depends on nothing.
        return import_module("inn_automl.integral").convert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
