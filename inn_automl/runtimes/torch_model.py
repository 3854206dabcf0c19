"""An ONNX file as a torch program: its nodes one after the other, each by the torch function of
the same meaning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, numpy_helper
from torch import Tensor

from inn_automl.runtimes import torch_operators
from inn_automl.runtimes.torch_operators import Compute

_ON_HOST = (torch.int32, torch.int64)
"""Sizes and positions, which the program reads; from a GPU it would wait for each of them."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One node, and where its inputs are."""

    name: str
    kind: str
    compute: Compute
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last_uses: tuple[str, ...] = ()
    """Values that no later step reads: they are released after it."""


class TorchModel:
    """Computes what a model says, for inputs of one shape.

    What follows from that shape is computed once, as in the torch module that the file was made
    from, where it is Python's arithmetic.

    Args:
        model: has one input and one output beside its initializers.
        example: (N, ...), an input of that shape, on the device that computes.

    Raises:
        MeasurementError: torch has no counterpart of an operator here; names it.
    """

    def __init__(self, model: ModelProto, example: Tensor) -> None:
        graph = model.graph
        self._input = next(port.name for port in graph.input)
        (self._output,) = (port.name for port in graph.output)
        self._constants: dict[str, Tensor | None] = {"": None}
        with torch.inference_mode():
            self._steps = _letting_go(list(self._follow(graph, example)), keep=self._output)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, ...) to the model's output."""
        return self.run(x, lambda step, inputs: step.compute(*inputs))

    def run(self, x: Tensor, call: Callable[[Step, list[Any]], Any]) -> Tensor:
        """Runs the program like `__call__`, with `call` in place of each step's own computing."""
        values: dict[str, Any] = {**self._constants, self._input: x}
        for step in self._steps:
            found = call(step, [values[name] for name in step.inputs])
            if len(step.outputs) == 1:
                values[step.outputs[0]] = found
            else:
                values.update(zip(step.outputs, found, strict=True))
            for name in step.last_uses:
                del values[name]
        result: Tensor = values[self._output]
        return result

    def _follow(self, graph: GraphProto, example: Tensor) -> Iterator[Step]:
        """The steps that depend on the input's values; what the others give becomes constants."""
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._constants |= {name: _placed(array, example.device) for name, array in arrays.items()}
        values: dict[str, Any] = {**self._constants, self._input: example}
        for node in graph.node:
            attributes = {one.name: _attribute(one) for one in node.attribute}
            compute = torch_operators.make(
                node.op_type, attributes, [arrays.get(name) for name in node.input]
            )
            found = compute(*(values[name] for name in node.input))
            is_fixed = node.op_type == "Shape" or all(
                name in self._constants for name in node.input
            )
            if is_fixed and isinstance(found, Tensor):
                (name,) = node.output
                arrays[name] = found.numpy(force=True)
                values[name] = self._constants[name] = _placed(arrays[name], example.device)
                continue
            values.update(
                zip(node.output, [found] if len(node.output) == 1 else found, strict=True)
            )
            yield Step(
                node.name or node.output[0],
                node.op_type,
                compute,
                tuple(node.input),
                tuple(node.output),
            )


def _letting_go(steps: list[Step], *, keep: str) -> list[Step]:
    """The steps with the values that each of them is the last to read, or that none reads."""
    made = {name for step in steps for name in step.outputs}
    later, found = {keep}, []
    for step in reversed(steps):
        unread = {*step.inputs, *step.outputs} & made - later
        later |= unread
        found.append(dataclasses.replace(step, last_uses=tuple(sorted(unread))))
    return found[::-1]


def _placed(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array.copy())
    return tensor if tensor.dtype in _ON_HOST else tensor.to(device)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value
