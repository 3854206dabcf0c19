"""The peer TorchIntegral, from a checkout of its repository:
https://github.com/TheStageAI/TorchIntegral.

It is not on PyPI, and asks for torch 2.0.1; of it this needs the converter, the grids and the
sampling, which run unchanged on later versions. Its compiled part orders channels when a network
is converted. That step is left out of timings of anything else (`ordered=False`): it changes
values, not shapes, so none depends on it.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_THRESHOLD = 0.001
"""Share of improvement below which a restart ends: the default of its `NOptPermutation`."""


class TorchIntegralNetwork:
    """A network that TorchIntegral made continuous in all channels but its input's and its
    classes.

    Args:
        checkout: folder of the repository.
        module: copied; its batch normalization is folded away, because TorchIntegral cannot
            resample it.
        fixed: parameters with their dimensions that keep their size.
        ordered: whether its compiled part orders the channels of every group first, as it does by
            default.

    Raises:
        SystemExit: there is no checkout, or it is to order channels and is not compiled.
    """

    def __init__(
        self,
        checkout: Path,
        module: nn.Module,
        input_shape: tuple[int, ...],
        fixed: dict[str, list[int]],
        *,
        ordered: bool = False,
    ) -> None:
        library = _load(checkout)
        if ordered:
            permutation_solver(checkout)
        copied = copy.deepcopy(module).eval()
        _fold_signals(copied)
        continuous = library.standard_continuous_dims(copied)
        continuous |= {
            f"{name}.{of}": dims
            for name, layer in copied.named_modules()
            if isinstance(layer, nn.Conv1d)
            for of, dims in (("weight", [0, 1]), ("bias", [0]))
            if getattr(layer, of) is not None
        }
        wrapper = library.IntegralWrapper(init_from_discrete=ordered, fuse_bn=True, verbose=False)
        with contextlib.redirect_stdout(io.StringIO()):
            self.model: Any = wrapper(copied, [1, *input_shape], continuous, fixed)
        self.version = _revision(checkout)

    @property
    def axes(self) -> list[tuple[str, int]]:
        """Of each group, a parameter of the module that it resizes, and the dimension."""
        return [(group.params[0]["name"], group.params[0]["dim"]) for group in self.model.groups]

    def vary(self, smallest: Sequence[int]) -> None:
        """From now on each forward pass in training mode draws a size of every group: of
        `smallest` to all channels.
        """
        library = sys.modules["torch_integral"]
        for group, size in zip(self.model.groups, smallest, strict=True):
            group.reset_distribution(library.UniformDistribution(size, group.size))

    def resize(self, ratio: float) -> None:
        """Sets every group to the fraction `ratio` of its channels, to evaluate and to train."""
        library = sys.modules["torch_integral"]
        for group in self.model.groups:
            size = round(ratio * group.size)
            group.reset_distribution(library.UniformDistribution(size, size))
            group.resize(size)

    def set_sizes(self, sizes: Sequence[int]) -> None:
        """Sets the number of channels of each group, for evaluation alone."""
        self.model.resize(sizes)

    def discretize(self) -> nn.Module:
        """A plain module at the current sizes."""
        plain: nn.Module = self.model.get_unparametrized_model()
        return plain


def _fold_signals(module: nn.Module) -> None:
    """Folds batch normalization into 1-D convolutions, as TorchIntegral does by itself with 2-D
    ones.
    """
    for parent in module.modules():
        if isinstance(parent, nn.Sequential):
            for index, (layer, after) in enumerate(itertools.pairwise(list(parent))):
                if isinstance(layer, nn.Conv1d) and isinstance(after, nn.BatchNorm1d):
                    parent[index], parent[index + 1] = (
                        fuse_conv_bn_eval(layer, after),
                        nn.Identity(),
                    )


def order_channels(checkout: Path, rows: list[Tensor], num_restarts: int) -> tuple[Tensor, str]:
    """The order that its optimizer of permutations finds for channels, and its revision.

    Args:
        checkout: folder of the repository, with its compiled part.
        rows: slices (n, f) of tensors; the sum of their mean absolute differences is to be small.
        num_restarts: random orders that it improves by exchanges; the best is taken.

    Raises:
        SystemExit: there is no checkout, or it is not compiled.
    """
    find = permutation_solver(checkout)
    tensors = [{"value": one.float(), "dim": 0} for one in rows]
    with contextlib.redirect_stdout(io.StringIO()):
        order = find(tensors, len(rows[0]), num_restarts, _THRESHOLD)
    return order.long(), _revision(checkout)


def permutation_solver(checkout: Path) -> Any:
    """Its compiled optimizer of permutations.

    Raises:
        SystemExit: there is no checkout, or it is not compiled.
    """
    _load(checkout)
    find = sys.modules["torch_integral.tsp_solver"].two_opt_find_permutation
    if find is None:
        raise SystemExit(
            f"{str(checkout)!r} is not compiled: run 'python setup.py build_ext --inplace' in it, "
            f"with Cython."
        )
    return find


def _load(checkout: Path) -> Any:
    if not (checkout / "torch_integral" / "__init__.py").is_file():
        raise SystemExit(
            f"{str(checkout)!r} is no checkout of TorchIntegral: clone its repository and give "
            f"that folder."
        )
    sys.path.insert(0, str(checkout))
    try:
        importlib.import_module("torch_integral.tsp_solver")
    except ImportError:  # not compiled
        solver = ModuleType("torch_integral.tsp_solver")
        solver.two_opt_find_permutation = None  # type: ignore[attr-defined]
        sys.modules[solver.__name__] = solver
        for name in [name for name in sys.modules if name == "torch_integral"]:
            del sys.modules[name]
    return importlib.import_module("torch_integral")


def _revision(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--show-toplevel", "HEAD"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return (
        lines[1]
        if len(lines) == 2 and Path(lines[0]) == checkout.resolve()
        else "unknown (no git checkout)"
    )
