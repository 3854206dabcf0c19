"""The peer TorchIntegral, from a checkout of its repository: https://github.com/TheStageAI/TorchIntegral.

It is not on PyPI, and asks for torch 2.0.1; of it this needs the converter, the grids and the sampling, which run
unchanged on later versions. Its compiled part orders channels when a network is converted. That step is left out of
timings of anything else (`init_from_discrete=False`): it changes values, not shapes, so none depends on it.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

_THRESHOLD = 0.001
"""Share of improvement below which a restart ends: the default of its `NOptPermutation`."""


class TorchIntegralNetwork:
    """A network that TorchIntegral made continuous in all channels but its input's and its classes.

    Args:
        checkout: folder of the repository.
        module: copied; its batch normalization is folded away, because TorchIntegral cannot resample it.
        fixed: parameters with their dimensions that keep their size.
    """

    def __init__(
        self, checkout: Path, module: nn.Module, input_shape: tuple[int, ...], fixed: dict[str, list[int]]
    ) -> None:
        library = _load(checkout)
        copied = copy.deepcopy(module).eval()
        wrapper = library.IntegralWrapper(init_from_discrete=False, fuse_bn=True, verbose=False)
        continuous = library.standard_continuous_dims(copied)
        self.model: Any = wrapper(copied, [1, *input_shape], continuous, fixed)
        self.version = _revision(checkout)

    def resize(self, ratio: float) -> None:
        """Sets every group to the share `ratio` of its channels, for evaluation and for training."""
        library = sys.modules["torch_integral"]
        for group in self.model.groups:
            size = round(ratio * group.size)
            group.reset_distribution(library.UniformDistribution(size, size))
            group.resize(size)

    def discretize(self) -> nn.Module:
        """A plain module at the current sizes."""
        plain: nn.Module = self.model.get_unparametrized_model()
        return plain


def order_channels(checkout: Path, rows: list[Tensor], num_restarts: int) -> tuple[Tensor, str]:
    """The order that its optimizer of permutations finds for channels, and its revision.

    Args:
        checkout: folder of the repository, with its compiled part.
        rows: slices (n, f) of tensors; the sum of their mean absolute differences is to be small.
        num_restarts: random orders that it improves by exchanges; the best is taken.

    Raises:
        SystemExit: there is no checkout, or it is not compiled.
    """
    _load(checkout)
    find = sys.modules["torch_integral.tsp_solver"].two_opt_find_permutation
    if find is None:
        raise SystemExit(
            f"{str(checkout)!r} is not compiled: run 'python setup.py build_ext --inplace' in it, with Cython."
        )
    tensors = [{"value": one.float(), "dim": 0} for one in rows]
    with contextlib.redirect_stdout(io.StringIO()):
        order = find(tensors, len(rows[0]), num_restarts, _THRESHOLD)
    return order.long(), _revision(checkout)


def _load(checkout: Path) -> Any:
    if not (checkout / "torch_integral" / "__init__.py").is_file():
        raise SystemExit(
            f"{str(checkout)!r} is no checkout of TorchIntegral: clone its repository and give that folder."
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
    return lines[1] if len(lines) == 2 and Path(lines[0]) == checkout.resolve() else "unknown (no git checkout)"
