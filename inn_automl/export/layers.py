"""Time of each layer, from the operations of an exported model, or of a runtime's version of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import onnx

from inn_automl.core.result import LayerTime
from inn_automl.runtimes import NodeTime

INPUT = "input"
"""Name of the operations before the first layer, which standardize the input."""

_PARAMETER = re.compile(r"^(.+?)\.(weight|bias)")


def layer_times(path: Path, nodes: Sequence[NodeTime]) -> list[LayerTime]:
    """Times of a model's layers, in the order in which they run, from those of the runtime's
    operations.

    A layer is what has parameters of its own, with all that follows until the next one. A runtime
    that fuses operations calls the result after one of them or after what it computes; what it
    adds (to change the layout of tensors) is counted with the layer before.

    Args:
        path: the ONNX file.
        nodes: as `Runtime.profile` returns them.
    """
    owners = _owners(path)
    total_ms = sum(node.ms for node in nodes)
    layers: dict[str, float] = {}
    layer = INPUT
    for node in nodes:
        layer = _owner(node.name.removeprefix("fused "), owners) or layer
        layers[layer] = layers.get(layer, 0.0) + node.ms
    return (
        [LayerTime(name=name, fraction=ms / total_ms) for name, ms in layers.items()]
        if total_ms > 0
        else []
    )


def _owners(path: Path) -> dict[str, str]:
    """The layer of each operation and of each tensor, by name."""
    graph = onnx.load(str(path)).graph
    # A quantized parameter passes through operations of its own before it is used.
    parameters = {
        one.name: found[1] for one in graph.initializer if (found := _PARAMETER.match(one.name))
    }
    constants = {one.name for one in graph.initializer}
    owners: dict[str, str] = {}
    for node in graph.node:
        given = [name for name in node.input if name]
        own = next((parameters[name] for name in given if name in parameters), None)
        if own is not None and all(name in constants for name in given):
            parameters.update(dict.fromkeys(node.output, own))
            constants.update(node.output)
        layer = own or next((owners[name] for name in given if name in owners), INPUT)
        owners.update(dict.fromkeys([node.name, *node.output], layer))
    return owners


def _owner(name: str, owners: dict[str, str]) -> str | None:
    """Layer of the longest known name that `name` begins with; a runtime may append a suffix."""
    ends = [len(name), *(found.start() for found in re.finditer(r"[_/ ]", name))]
    return next(
        (owners[name[:end]] for end in sorted(ends, reverse=True) if name[:end] in owners), None
    )
