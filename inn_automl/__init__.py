"""inn_automl: a dataset and a hardware budget in, measured Pareto fronts and models out.

Importing this package costs nothing: each name is imported from its subpackage when it is first
used.

| name | what it is |
|---|---|
| `search`, `extend`, `discretize` | a job in this process, on other devices, at other widths |
| `Result` | the fronts of a job: `best`, `plot`, `to_dataframe` |
| `Budget`, `Device` | the hardware budget and one of its devices |
| `load_dataset`, `DataOptions` | a dataset as jobs read it, and how it is read |
| `IntegralNetwork`, `convert` | a torch module with continuous widths; a trained one |
| `measure` | the latency of ONNX files on a device |
| `Predictor` | a downloaded model on files |
| `ElasticModel` | all points of a front, switched while serving |
| `Client` | the API of a coordinator |
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inn_automl.core.version import __version__

if TYPE_CHECKING:
    from inn_automl.client import Client
    from inn_automl.core.data_options import DataOptions
    from inn_automl.core.spec import Budget
    from inn_automl.core.spec import DeviceBudget as Device
    from inn_automl.data import load_dataset
    from inn_automl.facade.jobs import discretize, extend, search
    from inn_automl.facade.result import Result
    from inn_automl.integral import IntegralNetwork, convert
    from inn_automl.latency.benchmark import measure
    from inn_automl.serving import ElasticModel, Predictor

__all__ = [
    "Budget",
    "Client",
    "DataOptions",
    "Device",
    "ElasticModel",
    "IntegralNetwork",
    "Predictor",
    "Result",
    "__version__",
    "convert",
    "discretize",
    "extend",
    "load_dataset",
    "measure",
    "search",
]


_HOMES = {
    "Budget": "core.spec:Budget",
    "Client": "client:Client",
    "DataOptions": "core.data_options:DataOptions",
    "Device": "core.spec:DeviceBudget",
    "ElasticModel": "serving:ElasticModel",
    "IntegralNetwork": "integral:IntegralNetwork",
    "Predictor": "serving:Predictor",
    "Result": "facade.result:Result",
    "convert": "integral:convert",
    "discretize": "facade.jobs:discretize",
    "extend": "facade.jobs:extend",
    "load_dataset": "data:load_dataset",
    "measure": "latency.benchmark:measure",
    "search": "facade.jobs:search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    # Not an import statement: this package itself depends on nothing.
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
