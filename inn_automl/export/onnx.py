"""A torch module as one self-contained ONNX file that takes the raw values of the dataset.

The torch exporter is asked for its plain translation of the module, in which every parameter is an
initializer under its name in the state dict. `normal_form` takes the widths out of that graph
where it can, `fill` puts a module's tensors into it, and `finish` folds constants and batch norm.
For other widths of the same network only the last two are repeated, by `template.OnnxTemplate`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)
from torch import Tensor, nn

from inn_automl.core.errors import ExportError
from inn_automl.core.storage import write_atomically
from inn_automl.core.version import __version__
from inn_automl.export.attention import TRANSLATIONS

INPUT, LOGITS, OUTPUT = "input", "logits", "output"
"""Names of the ports; the output is called logits where it is one number a class."""
TRANSPOSED = ".T"
"""What follows the name of a weight that is stored transposed, as a product with more than two
axes takes it.
"""

Statistics = tuple[np.ndarray, np.ndarray]
"""Mean and standard deviation, one number a channel."""

_FOLD_BATCH_NORM = (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_LARGEST_BYTES = 2**31 - 2**20  # a protobuf message holds 2 GiB; a megabyte for the graph itself


class Standardize(nn.Module):
    """Raw values to standardized ones, channel by channel: (x - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, input_shape: Sequence[int], mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__()
        shape = (input_shape[0],) + (1,) * (len(input_shape) - 1)
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.as_tensor(np.asarray(values), dtype=torch.float32).reshape(-1)
            if tensor.numel() != input_shape[0]:
                raise ExportError(
                    f"{name} has {tensor.numel()} values for {input_shape[0]} channels: give one a "
                    f"channel."
                )
            self.register_buffer(name, tensor.reshape(shape).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        return (x - self.mean) / self.std


class Restore(nn.Module):
    """Standardized values to those of the dataset: x * std + mean, along the second dimension."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(
                name, torch.as_tensor(np.asarray(values), dtype=torch.float32).reshape(-1).clone()
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, ...) -> the same shape."""
        shape = (-1, *[1] * (x.ndim - 2))
        return x * self.std.reshape(shape) + self.mean.reshape(shape)


class RawInput(nn.Module):
    """A module behind the standardization of its input, and before that of its output is undone,
    if it has one; as a copy, unless it is in eval mode and on the CPU already.

    Submodules keep their parameters apart from the names that the exporter gives to intermediate
    values: those have no dot in them.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: Sequence[int],
        mean: np.ndarray,
        std: np.ndarray,
        target_statistics: Statistics | None = None,
    ) -> None:
        super().__init__()
        self.standardize = Standardize(input_shape, mean, std)
        self.restore = nn.Identity() if target_statistics is None else Restore(target_statistics)
        self.output_name = LOGITS if target_statistics is None else OUTPUT
        tensors = [*module.parameters(), *module.buffers()]
        is_ready = all(t.device.type == "cpu" for t in tensors) and not any(
            m.training for m in module.modules()
        )
        self.body = module if is_ready else copy.deepcopy(module).cpu()
        self.eval()

    def forward(self, input: Tensor) -> Tensor:
        """Raw float32 values (N, *input_shape) -> logits (N, num_classes), or other outputs in
        their own units.
        """
        output: Tensor = self.restore(self.body(self.standardize(input)))
        return output

    def relative(self, output: np.ndarray) -> np.ndarray:
        """Outputs as differences between them count: logits as they are, others as deviations from
        the targets' mean.

        The unit of a deviation is the targets' standard one, or a thousandth of their mean where
        that is larger: float32 holds no more digits.
        """
        if not isinstance(self.restore, Restore):
            return output
        shape = (-1, *[1] * (output.ndim - 2))
        mean, std = (
            values.numpy().reshape(shape) for values in (self.restore.mean, self.restore.std)
        )
        scaled: np.ndarray = (output - mean) / np.maximum(std, 1e-3 * np.abs(mean))
        return scaled

    def tensors(self) -> dict[str, np.ndarray]:
        """All parameters and buffers by their name in the exported graph; a shared one under each
        of its names.
        """
        named = [
            *self.named_parameters(remove_duplicate=False),
            *self.named_buffers(remove_duplicate=False),
        ]
        return {name: tensor.detach().numpy() for name, tensor in named}


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
        widths: kept in the file's metadata as JSON, under `inn_automl.widths`.

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


def normal_form(model: ir.Model) -> ir.Model:
    """Takes out of a translated graph, in place, what depends on widths without need.

    - Reshape gets a constant target: 0 (as it is) for the batch and, where the rest is one
      dimension, -1 (what remains). The exporter has the graph compute the target.
    - A convolution without bias gets none. The exporter has the graph make zeros.
    - Static shapes of intermediate values, notes and stack traces go: they describe one width, and
      the machine.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type == "Reshape":
            target = _reshape_target(node)
            if target is not None:
                set_reshape_target(graph, node, target)
        elif node.op_type in CONVOLUTIONS and len(node.inputs) == 3 and _is_zeros(node.inputs[2]):
            node.resize_inputs(2)
    remove_unused_nodes(model)
    passes.ClearMetadataAndDocStringPass()(model)
    outputs = set(graph.outputs)
    for node in graph:
        for value in node.outputs:
            if value not in outputs:
                value.shape = None
    return model


def set_reshape_target(graph: ir.Graph, node: ir.Node, target: Sequence[int]) -> None:
    """Makes `target` the constant shape of a Reshape node."""
    name = f"{node.outputs[0].name}.shape"
    graph.initializers.pop(name, None)
    tensor = ir.tensor(np.asarray(target, np.int64), name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape([len(target)]),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    node.replace_input_with(1, value)
    node.attributes.pop("allowzero", None)


def fill(model: ir.Model, raw: RawInput) -> None:
    """Puts the tensors of `raw` into the initializers of the same names, in place."""
    tensors = raw.tensors()
    for name, value in model.graph.initializers.items():
        if name in tensors:
            value.const_value = ir.tensor(tensors[name], name=name)
            value.shape = ir.Shape(tensors[name].shape)


def finish(model: ir.Model, widths: Mapping[str, int] | None) -> bytes:
    """Folds constants, and batch norm into the convolution or linear layer before it; returns the
    file's bytes.

    ONNX Runtime folds batch norm after a convolution by itself, but not after a linear layer, and
    other readers of the file may not; folded weights are also what quantization wants to see.

    Raises:
        ExportError: the graph could not be folded, or the file would pass 2 GiB.
    """
    try:
        _transpose_weights(model.graph)
        fold_constants(model)
        model = rewrite(model, _FOLD_BATCH_NORM)
        passes.IdentityEliminationPass()(model)
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        passes.ClearMetadataAndDocStringPass()(model)
    except Exception as error:  # whatever the rules, written for graphs of all kinds, trip over
        reason = " ".join(str(error).split())
        raise ExportError(
            f"the ONNX graph could not be folded ({reason}): update onnxscript."
        ) from error
    num_bytes = sum(
        v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None
    )
    if num_bytes > _LARGEST_BYTES:
        raise ExportError(
            f"the weights take {num_bytes} bytes and an ONNX file holds 2 GiB: choose smaller "
            f"widths."
        )
    for index, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{index}"
    model.producer_name, model.producer_version = "inn_automl", __version__
    (output,) = (str(value.name) for value in model.graph.outputs)
    meaning = "one a class" if output == LOGITS else "in the units of the dataset's targets"
    model.doc_string = (
        f"{INPUT}: raw float32 values of the dataset, standardized inside; {output}: {meaning}."
    )
    if widths is not None:
        model.metadata_props["inn_automl.widths"] = json.dumps(dict(widths))
    proto = ir.to_proto(model)
    # every reader infers these; names of intermediate values say little
    del proto.graph.value_info[:]
    return proto.SerializeToString(deterministic=True)


def _reshape_target(node: ir.Node) -> list[int] | None:
    before, after = node.inputs[0].shape, node.outputs[0].shape  # type: ignore[union-attr]
    if (
        not before
        or not after
        or len(after) < 2
        or before[0] != after[0]
        or isinstance(after[0], int)
    ):
        return None
    rest = list(after)[1:]
    if len(rest) == 1:
        return [0, -1]
    if 0 in rest or not all(isinstance(size, int) for size in rest):
        return None
    return [0, *(int(size) for size in rest)]  # type: ignore[arg-type]


def _transpose_weights(graph: ir.Graph) -> None:
    """Makes initializers of transposed ones, whatever their size, under names by which the weight
    is known.
    """
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or source.const_value is None or not source.is_initializer():
            continue
        name = f"{source.name}{TRANSPOSED}"
        if name not in graph.initializers:
            order = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
            tensor = ir.tensor(
                np.ascontiguousarray(source.const_value.numpy().transpose(order)), name=name
            )
            graph.register_initializer(
                ir.Value(
                    name=name,
                    shape=ir.Shape(tensor.shape.numpy()),
                    type=ir.TensorType(tensor.dtype),
                    const_value=tensor,
                )
            )
        ir.convenience.replace_all_uses_with(node.outputs[0], graph.initializers[name])
        graph.remove(node, safe=True)


def _is_zeros(value: ir.Value | None) -> bool:
    """Whether a value is an expanded constant 0."""
    seen = []
    while (
        value is not None and value.const_value is None and (node := value.producer()) is not None
    ):
        seen.append(node.op_type)
        if node.op_type == "Constant":
            break
        if node.op_type not in ("Expand", "CastLike"):
            return False
        value = node.inputs[0]
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return "Expand" in seen and tensor is not None and not tensor.numpy().any()


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
