"""Tracing of modules with `torch.export`."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from inn_automl.core.errors import ModuleError
from inn_automl.integral.modes import evaluating


def trace(module: nn.Module, example_input: Tensor) -> torch.export.ExportedProgram:
    """The operations of a module in evaluation mode.

    Raises:
        ModuleError: `torch.export` cannot trace it, or it has lazy parameters.
    """
    if any(is_lazy(tensor) for tensor in [*module.parameters(), *module.buffers()]):
        raise ModuleError(
            f"{type(module).__name__} has parameters without a size yet: run it once before."
        )
    try:
        with evaluating(module), warnings.catch_warnings():
            # the tracer warns of its own internals, nothing that a caller can change
            warnings.simplefilter("ignore")
            return torch.export.export(module, (example_input,), strict=False)
    except Exception as error:  # the tracer raises many kinds, none of them documented
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModuleError(
            f"{type(module).__name__} cannot be traced by torch.export with an input of shape "
            f"{tuple(example_input.shape)} ({reason}): make its forward traceable, without control "
            f"flow on values."
        ) from error
