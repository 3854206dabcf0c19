"""Steps from a translated ONNX graph to the bytes of a file.

`normal_form` removes what depends on widths without need, `fill` puts a module's tensors into the
graph, and `finish` folds constants and batch norm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)

from inn_automl.core.errors import ExportError
from inn_automl.core.version import __version__
from inn_automl.export.raw_model import INPUT, LOGITS, RawInput

TRANSPOSED = ".T"
"""Suffix of the name of a weight that is stored transposed, for a product with more than two axes.
"""

_FOLD_BATCH_NORM = (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_LARGEST_BYTES = 2**31 - 2**20  # a protobuf message holds 2 GiB; a megabyte for the graph itself


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
    """Return whether a value is an expanded constant 0."""
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
