"""A torch module as one self-contained ONNX file that takes the raw values of the dataset.

The torch exporter translates the module without optimization, so that every parameter is an
initializer under its name in the state dict. `normal_form` takes the widths out of that graph
where it can, `fill` puts a module's tensors into it, and `finish` folds constants and batch norm.
For other widths of the same network only the last two are repeated, by `template.OnnxTemplate`.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from inn_automl.core.errors import ExportError
from inn_automl.core.storage import write_atomically
from inn_automl.export.attention import TRANSLATIONS
from inn_automl.export.onnx_graph import fill, finish, normal_form
from inn_automl.export.raw_model import INPUT, RawInput, Statistics


def export_onnx(
    module: nn.Module,
    path: str | Path,
    *,
    input_shape: Sequence[int],
    mean: np.ndarray,
    std: np.ndarray,
    target_statistics: Statistics | None = None,
    widths: Mapping[str, int] | None = None,
) -> None:
    """Writes a module as ONNX: one input `input`, one output `logits` (`output` where targets were
    standardized), both float32 with a dynamic batch.

    Takes seconds; many widths of one network go faster through `OnnxTemplate`. What the file
    computes is not checked
    here: see `verify_onnx`.

    Args:
        module: takes standardized float32 (N, *input_shape), returns logits (N, num_classes) or
            standardized targets.
        input_shape: of one sample, (C, H, W) or (C, L).
        mean, std: (C,), of the dataset's raw values; they become part of the graph.
        target_statistics: mean and standard deviation, (K,) along the second dimension of the
            module's output, that it is brought to the dataset's units by; None leaves it as it is.
        widths: stored in the file's metadata as JSON, under `inn_automl.widths`.

    Raises:
        ExportError: torch cannot translate the module, or its file would pass 2 GiB.
        StorageError: the file could not be written.
    """
    raw = RawInput(module, input_shape, mean, std, target_statistics)
    model = normal_form(translate(raw, input_shape))
    fill(model, raw)
    write_atomically(Path(path), finish(model, widths))


def translate(raw: RawInput, input_shape: Sequence[int]) -> ir.Model:
    """The torch exporter's translation, unoptimized. Takes seconds.

    Raises:
        ExportError: torch cannot translate the module.
    """
    example = torch.zeros(2, *input_shape)  # a batch of 1 would be taken for a constant
    try:
        with _quiet():
            program = torch.onnx.export(
                raw,
                (example,),
                dynamo=True,
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                input_names=[INPUT],
                output_names=[raw.output_name],
                custom_translation_table=TRANSLATIONS,
                external_data=False,
                optimize=False,
                verbose=False,
            )
    # the exporter documents no base class: an unsupported module may raise anything
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(
            f"torch cannot translate {type(raw.body).__name__} to ONNX ({reason}): "
            f"use operations that torch.export supports, for any batch size."
        ) from error
    if program is None:
        raise ExportError(
            f"torch gave no ONNX program for {type(raw.body).__name__}: update torch."
        )
    ports = [*program.model.graph.inputs, *program.model.graph.outputs]
    if len(ports) != 2 or not all(
        port.shape and isinstance(port.shape[0], ir.SymbolicDim) for port in ports
    ):
        # The exporter does not fail where a module fixes its batch size; it gives a graph for that
        # size alone.
        shapes = ", ".join(f"{port.name}: {port.shape}" for port in ports)
        raise ExportError(
            f"{type(raw.body).__name__} does not map a batch of any size to one tensor of as many "
            f"rows ({shapes}): "
            "take the batch size from the input's shape."
        )
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporter says about itself and not about the module."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    # it notes for each call that torchvision, which nothing here uses, is not installed
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13's exporter copies its own tree specs through a class that the same torch
            # has deprecated.
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        logger.setLevel(level)
