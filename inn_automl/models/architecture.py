"""The architecture of a job's network, without its weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inn_automl.core.metric import TaskKind
from inn_automl.integral import IntegralNetwork
from inn_automl.integral.graph.groups import Coupling
from inn_automl.models import build

if TYPE_CHECKING:
    from inn_automl.data import Dataset
    from inn_automl.models.initial_weights import InitialWeights


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a job's network, without its weights."""

    model: str
    """Name of a model family, or of a network of the zoo (`inn_automl.models.zoo`)."""
    input_shape: tuple[int, ...]
    num_classes: int
    """Logits; of a regression, targets; 0 of super-resolution."""
    width: float
    depth: int
    task: TaskKind = "classification"
    scale: int | None = None
    """Scale factor of super-resolution; None for other tasks."""
    sample_rate_hz: int | None = None
    """Of sound; None for anything else."""

    @classmethod
    def from_dataset(cls, dataset: Dataset, model: str, width: float, depth: int) -> Architecture:
        """The architecture of a model family for a dataset."""
        num_outputs = 0 if dataset.task == "super-resolution" else dataset.output_shape[0]
        return cls(
            model,
            dataset.input_shape,
            num_outputs,
            width,
            depth,
            dataset.task,
            dataset.scale,
            dataset.sample_rate_hz,
        )

    def module(self) -> nn.Module:
        """A freshly initialized module, by torch's global random state."""
        return build(
            self.model,
            self.input_shape,
            self.num_classes,
            width=self.width,
            depth=self.depth,
            task=self.task,
            scale=self.scale,
            sample_rate_hz=self.sample_rate_hz,
        )

    def network(self, *, seed: int = 0, initial: InitialWeights | None = None) -> IntegralNetwork:
        """The integral network of a freshly initialized module; the same for the same seed.

        Args:
            initial: values of its tensors to start from.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.module()
            if initial is not None:
                initial.load_into(module)
            return IntegralNetwork(
                module, torch.zeros(2, *self.input_shape), coupling=_coupling(self)
            )

    def load(self, folder: Path) -> IntegralNetwork:
        """The integral network that was saved in a folder.

        Raises:
            CorruptFileError, ModuleError: the folder holds none, or one of another architecture.
        """
        with torch.random.fork_rng(devices=[]):
            return IntegralNetwork.load(folder, self.module()).eval()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, which `from_dict` reads."""
        return {**dataclasses.asdict(self), "input_shape": list(self.input_shape)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Architecture:
        """Reads the output of `to_dict`."""
        return cls(**{**value, "input_shape": tuple(value["input_shape"])})


@functools.lru_cache(maxsize=64)
def _coupling(architecture: Architecture) -> Coupling:
    """The coupled groups: tracing takes seconds and depends on nothing but the architecture."""
    with torch.random.fork_rng(devices=[]):
        return IntegralNetwork(
            architecture.module(), torch.zeros(2, *architecture.input_shape)
        ).coupling
