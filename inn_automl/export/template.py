"""Many widths of one network as ONNX files, for one slow translation by torch.

The network is translated at two widths that differ in every coupled group. In normal form (see
`onnx.normal_form`) the two graphs must be the same, except for what is known to follow from the
module itself: initializers that are its parameters or buffers, the group count of a convolution,
one dimension of a Reshape. Anything else that differs depends on widths in a way that is not
understood: the template then says so and has each module translated. Every file is run against
torch before it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from torch import nn

from inn_automl.core.errors import ExportError
from inn_automl.core.storage import write_atomically
from inn_automl.export.onnx import (
    CONVOLUTIONS,
    RawInput,
    Statistics,
    fill,
    finish,
    normal_form,
    set_reshape_target,
    translate,
)
from inn_automl.export.verification import TOLERANCE, compare

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """One verified ONNX file."""

    path: Path
    size_bytes: int
    difference: float
    """Largest |ONNX - torch| over the samples, as a share of the largest |output|."""
    from_template: bool
    """False where the torch exporter translated this very module."""


class OnnxTemplate:
    """Exports discretized modules of one network at any widths.

    Args:
        module, other: the network at two widths that differ in every coupled group: the full and
            the smallest ones, say. Translating them takes seconds each.
        input_shape: of one sample, (C, H, W) or (C, L).
        mean, std: (C,), of the dataset's raw values.
        target_statistics: see `export_onnx`.
        samples: (N, *input_shape), raw values of the dataset that every file is verified with; a
            handful will do.
        tolerance: see `verify_onnx`.

    Raises:
        ExportError: torch cannot translate the modules.
    """

    def __init__(
        self,
        module: nn.Module,
        other: nn.Module,
        *,
        input_shape: Sequence[int],
        mean: np.ndarray,
        std: np.ndarray,
        target_statistics: Statistics | None = None,
        samples: np.ndarray,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.input_shape = tuple(input_shape)
        self.mean, self.std, self.target_statistics = mean, std, target_statistics
        self.samples, self.tolerance = samples, tolerance
        self.why_not: str | None = None
        """Why each module is translated; None where the template serves."""
        first, second = (self._raw(m) for m in (module, other))
        graphs = [normal_form(translate(raw, self.input_shape)) for raw in (first, second)]
        self._names = set(first.tensors())
        self.model = graphs[0]
        # index of a convolution among the nodes -> name of its module
        self._owners: dict[int, str] = {}
        try:
            self._owners = reconcile(graphs[0], graphs[1], first, second)
        except UnsupportedTemplateError as error:
            self.why_not = str(error)
            logger.warning(
                "each ONNX file takes a full export of seconds, because %s", self.why_not
            )

    def export(
        self, module: nn.Module, path: str | Path, *, widths: Mapping[str, int] | None = None
    ) -> Export:
        """Writes a module as ONNX, verified against torch before it takes the place of `path`.

        Args:
            module: the network at any widths.
            widths: kept in the file's metadata as JSON, under `inn_automl.widths`.

        Raises:
            ExportError: torch cannot translate the module.
            VerificationError: the full export differs from torch, too; `path` is as it was.
            StorageError: the file could not be written.
        """
        path = Path(path)
        raw = self._raw(module)
        if self.why_not is None:
            try:
                return self._write(self._retarget(raw), raw, path, widths, from_template=True)
            except (UnsupportedTemplateError, ExportError) as error:
                logger.warning("full export of %s, because the template failed it: %s", path, error)
        model = normal_form(translate(raw, self.input_shape))
        fill(model, raw)
        return self._write(model, raw, path, widths, from_template=False)

    def _raw(self, module: nn.Module) -> RawInput:
        return RawInput(module, self.input_shape, self.mean, self.std, self.target_statistics)

    def _retarget(self, raw: RawInput) -> ir.Model:
        if raw.tensors().keys() != self._names:
            raise UnsupportedTemplateError(
                "the module has other parameters than those the template was made from"
            )
        model = self.model.clone()
        fill(model, raw)
        for index, node in enumerate(model.graph):
            if index in self._owners:
                node.attributes["group"] = ir.AttrInt64("group", _groups(raw, self._owners[index]))
        return model

    def _write(
        self,
        model: ir.Model,
        raw: RawInput,
        path: Path,
        widths: Mapping[str, int] | None,
        *,
        from_template: bool,
    ) -> Export:
        data = finish(model, widths)
        difference = compare(data, raw, self.samples, tolerance=self.tolerance, name=str(path))
        write_atomically(path, data)
        return Export(path, len(data), difference, from_template)


class UnsupportedTemplateError(Exception):
    """A graph depends on widths in a way that the template cannot repeat."""


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
    twins: dict[ir.Value | None, ir.Value | None] = {None: None}
    twins.update(zip(model.graph.inputs, other.graph.inputs, strict=True))
    owners: dict[int, str] = {}
    for index, (node, twin) in enumerate(zip(nodes, other_nodes, strict=True)):
        if node.op_type == "Reshape":
            _free_dimension(model.graph, node, other.graph, twin)
        if len(node.inputs) != len(twin.inputs):
            raise UnsupportedTemplateError(
                f"{_place(node)} has another number of inputs at other widths"
            )
        for value, twin_value in zip(node.inputs, twin.inputs, strict=True):
            if value not in twins and _are_same_initializer(value, twin_value, names):
                twins[value] = twin_value
            if value not in twins or twins[value] is not twin_value:
                raise UnsupportedTemplateError(f"{_place(node)} takes other inputs at other widths")
        if node.op_type in CONVOLUTIONS:
            owner = _owner_of_groups(node, twin, raw, other_raw)
            if owner is not None:
                owners[index] = owner
        _same_attributes(node, twin, ignore="group" if index in owners else None)
        twins.update(zip(node.outputs, twin.outputs, strict=True))
    if [twins.get(value) for value in model.graph.outputs] != list(other.graph.outputs):
        raise UnsupportedTemplateError(
            "the output of the network is another operation at other widths"
        )
    return owners


def _free_dimension(graph: ir.Graph, node: ir.Node, other_graph: ir.Graph, twin: ir.Node) -> None:
    """Makes -1 ("what remains") of the one dimension in which the constant targets of two Reshape
    nodes differ.
    """
    targets = [
        ir.convenience.get_const_tensor(n.inputs[1]) if n.inputs[1] else None for n in (node, twin)
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
    set_reshape_target(other_graph, twin, freed)


def _are_same_initializer(
    value: ir.Value | None, twin: ir.Value | None, names: Collection[str]
) -> bool:
    """Whether both are the same parameter, or constants of the same value."""
    if value is None or twin is None or not value.is_initializer() or not twin.is_initializer():
        return False
    if value.name in names or twin.name in names:
        return value.name == twin.name
    first, second = value.const_value, twin.const_value
    return (
        first is not None and second is not None and np.array_equal(first.numpy(), second.numpy())
    )


def _owner_of_groups(
    node: ir.Node, twin: ir.Node, raw: RawInput, other_raw: RawInput
) -> str | None:
    """Name of the module whose weight a convolution uses, if its `groups` are those of the node at
    both widths.
    """
    weight = node.inputs[1]
    owner = (weight.name or "").rpartition(".")[0] if weight is not None else ""
    try:
        agree = _groups(raw, owner) == _group(node) and _groups(other_raw, owner) == _group(twin)
    except UnsupportedTemplateError:
        return None
    return owner if agree else None


def _groups(raw: RawInput, owner: str) -> int:
    try:
        return int(raw.get_submodule(owner).groups)  # type: ignore[arg-type]
    except (AttributeError, TypeError):
        raise UnsupportedTemplateError(
            f"the module has no convolution {owner.removeprefix('body.')!r}"
        ) from None


def _group(node: ir.Node) -> int:
    attribute = node.attributes.get("group")
    return attribute.as_int() if attribute is not None else 1


def _same_attributes(node: ir.Node, twin: ir.Node, *, ignore: str | None) -> None:
    for name in (node.attributes.keys() | twin.attributes.keys()) - {ignore}:
        first, second = node.attributes.get(name), twin.attributes.get(name)
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
