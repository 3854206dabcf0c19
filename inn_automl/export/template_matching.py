"""Comparison of two translations of a network at different widths, up to known differences.

Initializers that are parameters or buffers, the group count of a convolution, and one dimension of
a Reshape may differ. `reconcile` makes the first graph independent of widths or says what else
differs.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from inn_automl.export.onnx_graph import CONVOLUTIONS, set_reshape_target
from inn_automl.export.raw_model import RawInput


class UnsupportedTemplateError(Exception):
    """Raised if a graph depends on widths in a way that a template cannot repeat."""


def reconcile(
    model: ir.Model, other: ir.Model, raw: RawInput, other_raw: RawInput
) -> dict[int, str]:
    """Makes `model` free of widths, in place, so far as `other` shows that it depends on them.

    Returns:
        Name of the module that gives the group count, by index of the convolution among the nodes.

    Raises:
        UnsupportedTemplateError: something else differs; the message says what.
    """
    nodes, other_nodes = list(model.graph), list(other.graph)
    if [n.op_identifier() for n in nodes] != [n.op_identifier() for n in other_nodes]:
        raise UnsupportedTemplateError("the operations of the network change with its widths")
    names = raw.tensors().keys()
    if names != other_raw.tensors().keys():
        raise UnsupportedTemplateError("the parameters of the network change with its widths")
    # Names of intermediate values may differ between the translations; what is compared is which
    # value goes where.
    counterparts: dict[ir.Value | None, ir.Value | None] = {None: None}
    counterparts.update(zip(model.graph.inputs, other.graph.inputs, strict=True))
    owners: dict[int, str] = {}
    for index, (node, counterpart) in enumerate(zip(nodes, other_nodes, strict=True)):
        if node.op_type == "Reshape":
            _free_dimension(model.graph, node, other.graph, counterpart)
        if len(node.inputs) != len(counterpart.inputs):
            raise UnsupportedTemplateError(
                f"{_place(node)} has another number of inputs at other widths"
            )
        for value, other_value in zip(node.inputs, counterpart.inputs, strict=True):
            if value not in counterparts and _are_same_initializer(value, other_value, names):
                counterparts[value] = other_value
            if value not in counterparts or counterparts[value] is not other_value:
                raise UnsupportedTemplateError(f"{_place(node)} takes other inputs at other widths")
        if node.op_type in CONVOLUTIONS:
            owner = _owner_of_groups(node, counterpart, raw, other_raw)
            if owner is not None:
                owners[index] = owner
        _same_attributes(node, counterpart, ignore="group" if index in owners else None)
        counterparts.update(zip(node.outputs, counterpart.outputs, strict=True))
    if [counterparts.get(value) for value in model.graph.outputs] != list(other.graph.outputs):
        raise UnsupportedTemplateError(
            "the output of the network is another operation at other widths"
        )
    return owners


def _free_dimension(
    graph: ir.Graph, node: ir.Node, other_graph: ir.Graph, counterpart: ir.Node
) -> None:
    """Makes -1 ("what remains") of the one dimension in which the constant targets of two Reshape
    nodes differ.
    """
    targets = [
        ir.convenience.get_const_tensor(n.inputs[1]) if n.inputs[1] else None
        for n in (node, counterpart)
    ]
    if any(target is None for target in targets):
        return
    first, second = (target.numpy() for target in targets if target is not None)
    if first.shape != second.shape or (first == second).all() or -1 in first or -1 in second:
        return
    if (first != second).sum() > 1:
        raise UnsupportedTemplateError(
            f"{_place(node)} changes more than one dimension with the widths: {first}, {second}"
        )
    freed = np.where(first == second, first, -1).tolist()
    set_reshape_target(graph, node, freed)
    set_reshape_target(other_graph, counterpart, freed)


def _are_same_initializer(
    value: ir.Value | None, counterpart: ir.Value | None, names: Collection[str]
) -> bool:
    """Return whether both are the same parameter, or constants of the same value."""
    if (
        value is None
        or counterpart is None
        or not value.is_initializer()
        or not counterpart.is_initializer()
    ):
        return False
    if value.name in names or counterpart.name in names:
        return value.name == counterpart.name
    first, second = value.const_value, counterpart.const_value
    return (
        first is not None and second is not None and np.array_equal(first.numpy(), second.numpy())
    )


def _owner_of_groups(
    node: ir.Node, counterpart: ir.Node, raw: RawInput, other_raw: RawInput
) -> str | None:
    """Name of the module whose weight a convolution uses, if its `groups` are those of the node at
    both widths.
    """
    weight = node.inputs[1]
    owner = (weight.name or "").rpartition(".")[0] if weight is not None else ""
    try:
        agree = num_groups(raw, owner) == _group(node) and num_groups(other_raw, owner) == _group(
            counterpart
        )
    except UnsupportedTemplateError:
        return None
    return owner if agree else None


def num_groups(raw: RawInput, owner: str) -> int:
    try:
        return int(raw.get_submodule(owner).groups)  # type: ignore[arg-type]
    except (AttributeError, TypeError):
        raise UnsupportedTemplateError(
            f"the module has no convolution {owner.removeprefix('body.')!r}"
        ) from None


def _group(node: ir.Node) -> int:
    attribute = node.attributes.get("group")
    return attribute.as_int() if attribute is not None else 1


def _same_attributes(node: ir.Node, counterpart: ir.Node, *, ignore: str | None) -> None:
    for name in (node.attributes.keys() | counterpart.attributes.keys()) - {ignore}:
        first, second = node.attributes.get(name), counterpart.attributes.get(name)
        if (
            first is None
            or second is None
            or first.type != second.type
            or not _equal(first, second)
        ):
            values = " and ".join(
                "nothing" if a is None else f"{a.value!s:.60}" for a in (first, second)
            )
            raise UnsupportedTemplateError(
                f"{name} of {_place(node)} changes with the widths: {values}"
            )


def _equal(first: ir.Attr, second: ir.Attr) -> bool:
    if first.type == ir.AttributeType.TENSOR:
        return np.array_equal(first.as_tensor().numpy(), second.as_tensor().numpy())
    # a subgraph equals itself only, and so is never the same
    return bool(first.value == second.value)


def _place(node: ir.Node) -> str:
    """A node as a user can find it: its operation and what goes into it; of a constant, also what
    it goes into.
    """
    inputs = ", ".join(value.name or "?" for value in node.inputs if value is not None)
    users = (
        [_place(user) for user in node.outputs[0].consumers()] if node.op_type == "Constant" else []
    )
    return f"{node.op_type}({inputs})" + (f" in {users[0]}" if users else "")
