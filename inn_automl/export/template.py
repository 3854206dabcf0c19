"""Many widths of one network as ONNX files, for one slow translation by torch.

The network is translated at two widths that differ in every coupled group. In normal form (see
`onnx.normal_form`) the two graphs must be the same, except for what is known to follow from the
module itself: initializers that are its parameters or buffers, the group count of a convolution,
one dimension of a Reshape. Anything else that differs depends on widths in a way that is not
understood: the template then says so and has each module translated. Every file is run against
torch before it is stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from torch import nn

from inn_automl.core.errors import ExportError
from inn_automl.core.storage import write_atomically
from inn_automl.export.onnx import translate
from inn_automl.export.onnx_graph import fill, finish, normal_form
from inn_automl.export.raw_model import RawInput, Statistics
from inn_automl.export.template_matching import UnsupportedTemplateError, num_groups, reconcile
from inn_automl.export.verification import TOLERANCE, compare

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnnxFile:
    """One verified ONNX file."""

    path: Path
    size_bytes: int
    difference: float
    """Largest |ONNX - torch| over the samples, as a fraction of the largest |output|."""
    from_template: bool
    """True if the template served; False if the torch exporter translated the module itself."""


class OnnxTemplate:
    """Exports discretized modules of one network at any widths.

    Make one with `from_modules`, which translates the network.

    Args:
        raw: makes the module that is exported, which takes raw values, of a discretized one.
        input_shape: of one sample, (C, H, W) or (C, L).
        samples: (N, *input_shape), raw values of the dataset that every file is verified with; a
            handful will do.
        tolerance: see `verify_onnx`.
        model: the network's graph without its widths; None if there is no such graph.
        names: of the parameters and buffers in the graph.
        owners: index of a convolution among the nodes -> name of the module with its group count.
        why_not: why each module is translated; None where the template serves.
    """

    def __init__(
        self,
        raw: Callable[[nn.Module], RawInput],
        *,
        input_shape: Sequence[int],
        samples: np.ndarray,
        tolerance: float,
        model: ir.Model,
        names: Collection[str],
        owners: Mapping[int, str],
        why_not: str | None,
    ) -> None:
        self._raw, self.input_shape = raw, tuple(input_shape)
        self.samples, self.tolerance = samples, tolerance
        self.model, self.why_not = model, why_not
        self._names, self._owners = set(names), dict(owners)

    @classmethod
    def from_modules(
        cls,
        module: nn.Module,
        other: nn.Module,
        *,
        input_shape: Sequence[int],
        mean: np.ndarray,
        std: np.ndarray,
        target_statistics: Statistics | None = None,
        samples: np.ndarray,
        tolerance: float = TOLERANCE,
    ) -> OnnxTemplate:
        """Translates a network at two widths. Takes seconds.

        Args:
            module, other: the network at two widths that differ in every coupled group: the full
                and the smallest ones, say.
            input_shape: of one sample, (C, H, W) or (C, L).
            mean, std: (C,), of the dataset's raw values.
            target_statistics: see `export_onnx`.
            samples: see the class.
            tolerance: see `verify_onnx`.

        Raises:
            ExportError: torch cannot translate the modules.
        """

        def raw(module: nn.Module) -> RawInput:
            return RawInput(module, input_shape, mean, std, target_statistics)

        first, second = raw(module), raw(other)
        graphs = [normal_form(translate(one, tuple(input_shape))) for one in (first, second)]
        owners: dict[int, str] = {}
        why_not = None
        try:
            owners = reconcile(graphs[0], graphs[1], first, second)
        except UnsupportedTemplateError as error:
            why_not = str(error)
            logger.warning("each ONNX file takes a full export of seconds, because %s", why_not)
        return cls(
            raw,
            input_shape=input_shape,
            samples=samples,
            tolerance=tolerance,
            model=graphs[0],
            names=first.tensors(),
            owners=owners,
            why_not=why_not,
        )

    def export(
        self, module: nn.Module, path: str | Path, *, widths: Mapping[str, int] | None = None
    ) -> OnnxFile:
        """Writes a module as ONNX, verified against torch before it takes the place of `path`.

        Args:
            module: the network at any widths.
            widths: stored in the file's metadata as JSON, under `inn_automl.widths`.

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

    def _retarget(self, raw: RawInput) -> ir.Model:
        if raw.tensors().keys() != self._names:
            raise UnsupportedTemplateError(
                "the module has other parameters than those the template was made from"
            )
        model = self.model.clone()
        fill(model, raw)
        for index, node in enumerate(model.graph):
            if index in self._owners:
                node.attributes["group"] = ir.AttrInt64(
                    "group", num_groups(raw, self._owners[index])
                )
        return model

    def _write(
        self,
        model: ir.Model,
        raw: RawInput,
        path: Path,
        widths: Mapping[str, int] | None,
        *,
        from_template: bool,
    ) -> OnnxFile:
        data = finish(model, widths)
        difference = compare(data, raw, self.samples, tolerance=self.tolerance, name=str(path))
        write_atomically(path, data)
        return OnnxFile(path, len(data), difference, from_template)
