"""The nodes of an ONNX file that denormalize its output to the units of the dataset's targets."""

from __future__ import annotations

import onnx

from inn_automl.export.raw_model import LOGITS


def denormalization_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Finds the nodes of `raw_model.Denormalize`, the last one
    first.
    """
    name = graph.output[0].name
    if name == LOGITS:
        return []
    producers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    found = []
    for operation in ("Add", "Mul"):
        node = producers.get(name)
        # A deviation or mean that is all ones or zeros leaves no node.
        if (
            node is None
            or node.op_type != operation
            or sum(value in constants for value in node.input) != 1
        ):
            continue
        found.append(node)
        name = next(value for value in node.input if value not in constants)
    return found
