"""The nodes of an ONNX file that make a spectrogram of sound: they stay float32 in every precision.

Powers of sound span more than 8 bits, or the smallest numbers of float16, tell apart, and the
logarithm magnifies what they lose.
"""

from __future__ import annotations

import onnx

_CENTRING = frozenset({"ReduceMean", "GlobalAveragePool", "Sub"})
"""Operators that take the mean off the logarithms."""


def front_end_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Finds the logarithms of a graph, all nodes before them, and those that take their mean off;
    none without logarithms.
    """
    producers = {name: node for node in graph.node for name in node.output}
    unread = [node for node in graph.node if node.op_type == "Log"]
    found: set[str] = set()
    while unread:
        node = unread.pop()
        if node.name not in found:
            found.add(node.name)
            unread += [producers[name] for name in node.input if name in producers]
    if found:
        for node in graph.node:  # in the order in which they run
            before = [producers[name].name for name in node.input if name in producers]
            if node.op_type in _CENTRING and before and found.issuperset(before):
                found.add(node.name)
    return [node for node in graph.node if node.name in found]
