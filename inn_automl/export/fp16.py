"""A float32 ONNX file as a float16 one, for GPUs, and what such a file computes, on a machine that
has none.

The file keeps its inputs and outputs, raw float32 values in and float32 outputs out. The
standardization of the input stays float32 inside, and so does what brings the output to the units
of targets: raw values may be larger than float16 holds (65,504), or differ in digits that it
lacks. ONNX Runtime's own converter does the rest.

**ONNX Runtime's CPU provider does not compute what the file says.** It has no float16 kernels on
most processors, puts float32 ones in their place, and takes out the casts between them: what
overflows in float16 is right there. So such a file is replaced by its float32 counterpart, in
which every value is rounded to float16 where the file has one (`float32_counterpart`). Kernels of
GPUs do the same: sums are float32, results are rounded.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from inn_automl.core.errors import ExportError, StorageError
from inn_automl.core.precision import METADATA_KEY
from inn_automl.core.storage import write_atomically
from inn_automl.core.version import __version__
from inn_automl.export.denormalization import denormalization_nodes
from inn_automl.export.front_end import front_end_nodes

_STANDARDIZATION = "standardize."
"""Prefix of the names of its initializers; see `raw_model.RawInput`."""

_MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Relu",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose results are values of their inputs, or zero: there is nothing to round."""

_THERE_AND_BACK = (TensorProto.FLOAT16, TensorProto.FLOAT)


def convert_fp16(source: str | Path, target: str | Path) -> int:
    """Writes a float32 ONNX file as a float16 one.

    Args:
        source: a file as `export_onnx` writes it.

    Returns:
        The size of the file in bytes.

    Raises:
        ExportError: the graph cannot be converted.
        StorageError: a file cannot be read or written.
    """
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise StorageError(
            f"{str(source)!r} cannot be read ({error.strerror}): export the module first."
        ) from error
    try:
        converted = _convert(onnx.load_model_from_string(data))
    except Exception as error:  # protobuf's, onnx's and the converter's errors share no base class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(
            f"{str(source)!r} cannot be made float16 ({reason}): leave fp16 out."
        ) from error
    write_atomically(Path(target), converted)
    return len(converted)


def float32_counterpart(model: bytes) -> bytes:
    """Makes a float32 file that computes what a float16 file computes on hardware with kernels.

    It rounds every value that the float16 file rounds. Files of other precisions are returned as
    they are.

    Raises:
        ExportError: it is no ONNX file, or its types cannot be inferred.
    """
    try:
        proto = onnx.load_model_from_string(model)
        if all(tensor.data_type != TensorProto.FLOAT16 for tensor in proto.graph.initializer):
            return model
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        _round(
            proto.graph,
            {
                v.name
                for v in inferred.graph.value_info
                if _is_float16(v.type.tensor_type.elem_type)
            },
        )
    except Exception as error:  # protobuf's and onnx's errors share no base class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(f"the model cannot be read ({reason}): export it again.") from error
    return proto.SerializeToString()


def _convert(proto: onnx.ModelProto) -> bytes:
    float32 = [
        node.name
        for node in proto.graph.node
        if any(name.startswith(_STANDARDIZATION) for name in node.input)
    ]
    float32 += [node.name for node in denormalization_nodes(proto.graph)]
    float32 += [node.name for node in front_end_nodes(proto.graph)]
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    converted = convert_float_to_float16(
        proto, keep_io_types=True, disable_shape_infer=True, node_block_list=float32
    )
    model = ir.from_proto(converted)
    # The converter rounds what goes from one float32 node to another, too, and raw values would
    # overflow there.
    for node in model.graph:
        before = (
            node.inputs[0].producer()
            if node.op_type == "Cast" and node.inputs[0] is not None
            else None
        )
        if (
            before is not None
            and before.op_type == "Cast"
            and (_to(before), _to(node)) == _THERE_AND_BACK
        ):
            _replace(node.outputs[0], before.inputs[0])
    model.graph.sort()  # its casts are behind all other nodes
    passes.RemoveUnusedNodesPass()(model)
    for index, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{index}"
    model.producer_name, model.producer_version = "inn_automl", __version__
    model.metadata_props[METADATA_KEY] = "fp16"
    converted = ir.to_proto(model)
    del converted.graph.value_info[:]
    return converted.SerializeToString(deterministic=True)


def _replace(value: ir.Value, by: ir.Value | None) -> None:
    """Puts a value in the place of another everywhere; as the graph's output under its name, shape
    and type.
    """
    assert by is not None
    if value.is_graph_output():
        by.name, value.name = value.name, None
        by.shape, by.type = value.shape, value.type
    value.replace_all_uses_with(by, replace_graph_outputs=True)


def _to(cast: ir.Node) -> int:
    return cast.attributes["to"].as_int()


def _is_float16(element_type: int) -> bool:
    return element_type == TensorProto.FLOAT16


def _round(graph: onnx.GraphProto, float16_values: set[str]) -> None:
    """Replaces float16 in a graph by float32, in place, and rounds the results of its nodes.

    Args:
        float16_values: names of the float16 values between nodes.
    """
    for tensor in graph.initializer:
        if _is_float16(tensor.data_type):
            tensor.CopyFrom(
                numpy_helper.from_array(
                    numpy_helper.to_array(tensor).astype("float32"), tensor.name
                )
            )
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "to" and _is_float16(attribute.i):
                attribute.i = TensorProto.FLOAT
            elif attribute.HasField("t") and _is_float16(attribute.t.data_type):
                attribute.t.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype("float32"))
                )
        rounded = (
            []
            if node.op_type in _MOVES
            else [name for name in node.output if name in float16_values]
        )
        exact = {name: f"{name}.exact" for name in rounded}
        outputs = [exact.get(name, name) for name in node.output]
        del node.output[:]
        node.output.extend(outputs)
        graph.node.append(node)
        for name in rounded:
            graph.node.extend(
                [
                    helper.make_node(
                        "Cast", [exact[name]], [f"{name}.half"], to=TensorProto.FLOAT16
                    ),
                    helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT),
                ]
            )
