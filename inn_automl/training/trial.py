"""One training candidate from an empty folder to a saved integral network, resumable at any
moment.

A trial's folder holds `plan.json` (the recipe as fitted to the time), `checkpoint.safetensors`,
and, when it is done, `network/` and `outcome.json`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inn_automl.core.metric import TaskKind
from inn_automl.core.storage import read_json, write_json
from inn_automl.integral import IntegralNetwork
from inn_automl.integral.graph.groups import Coupling
from inn_automl.models import build
from inn_automl.training.distributed import broadcast_value, rank
from inn_automl.training.loop import EpochReport, fit_to_budget, load_best, train
from inn_automl.training.recipe import Recipe, TrialSpec

if TYPE_CHECKING:
    from inn_automl.data import Dataset

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a job's network, without its values."""

    family: str
    input_shape: tuple[int, ...]
    num_classes: int
    """Logits; of a regression, targets; 0 of super-resolution."""
    width: float
    depth: int
    task: TaskKind = "classification"
    scale: int | None = None
    """Of super-resolution."""

    @classmethod
    def of(cls, dataset: Dataset, family: str, width: float, depth: int) -> Architecture:
        """The architecture of a family that serves a dataset."""
        num_outputs = 0 if dataset.task == "super-resolution" else dataset.output_shape[0]
        return cls(
            family, dataset.input_shape, num_outputs, width, depth, dataset.task, dataset.scale
        )

    def module(self) -> nn.Module:
        """A freshly initialized module, by torch's global random state."""
        return build(
            self.family,
            self.input_shape,
            self.num_classes,
            width=self.width,
            depth=self.depth,
            task=self.task,
            scale=self.scale,
        )

    def network(self, *, seed: int = 0) -> IntegralNetwork:
        """The integral network of a freshly initialized module; the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return IntegralNetwork(
                self.module(), torch.zeros(2, *self.input_shape), coupling=_coupling(self)
            )

    def load(self, folder: Path) -> IntegralNetwork:
        """The integral network that was saved in a folder.

        Raises:
            CorruptFileError, ModuleError: the folder holds none, or one of another architecture.
        """
        with torch.random.fork_rng(devices=[]):
            return IntegralNetwork.load(folder, self.module()).eval()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {**dataclasses.asdict(self), "input_shape": list(self.input_shape)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Architecture:
        return cls(**{**value, "input_shape": tuple(value["input_shape"])})


@functools.lru_cache(maxsize=64)
def _coupling(architecture: Architecture) -> Coupling:
    """Following a network takes seconds and depends on nothing but its architecture."""
    with torch.random.fork_rng(devices=[]):
        return IntegralNetwork(
            architecture.module(), torch.zeros(2, *architecture.input_shape)
        ).coupling


@dataclass(frozen=True)
class Trained:
    """A trained integral network and how it came to be."""

    architecture: Architecture
    folder: Path
    """Where `IntegralNetwork.save` wrote it."""
    recipe: Recipe
    stopped: str
    """ "epochs", "deadline", or "rival" where the scheduler stopped it for a better trial."""
    best_score: float
    history: list[EpochReport]

    @property
    def score(self) -> float:
        """Best mean metric value over widths, by which trials compare; -inf where reduced widths
        were never trained.
        """
        return -math.inf if self.history and self.history[-1].is_warmup else self.best_score

    def network(self) -> IntegralNetwork:
        return self.architecture.load(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the folder relative to nothing: `from_dict` is told where it is."""
        return {
            "architecture": self.architecture.to_dict(),
            "recipe": self.recipe.to_dict(),
            "stopped": self.stopped,
            "best_score": self.best_score,
            "history": [dataclasses.asdict(report) for report in self.history],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], folder: Path) -> Trained:
        return cls(
            architecture=Architecture.from_dict(value["architecture"]),
            folder=folder,
            recipe=Recipe.from_dict(value["recipe"]),
            stopped=value["stopped"],
            best_score=value["best_score"],
            history=[EpochReport(**report) for report in value["history"]],
        )


def run_trial(
    candidate: TrialSpec,
    family: str,
    dataset: Dataset,
    folder: Path,
    *,
    seed: int,
    seconds: float,
    max_epochs: int | None = None,
    device: str = "cpu",
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> Trained:
    """Trains a candidate; a folder that holds an unfinished trial is continued, a finished one is
    returned.

    Several processes of torch.distributed train it together where all call this alike; they must
    see the same folder.

    Args:
        seconds: time that is left for this trial. What does not fit into it is not planned.

    Raises:
        TrainingError: training diverged.
        CorruptFileError, StorageError: the folder cannot be read or written.
    """
    outcome = folder / "outcome.json"
    if broadcast_value(outcome.exists(), torch.device(device)):
        return load_trial(folder)
    deadline_s = time.monotonic() + seconds
    architecture = Architecture.of(dataset, family, candidate.width, candidate.depth)
    network = architecture.network(seed=seed)
    plan = folder / "plan.json"
    if broadcast_value(plan.exists(), torch.device(device)):
        recipe = Recipe.from_dict(read_json(plan))
    else:
        recipe = fit_to_budget(
            network,
            dataset,
            candidate.recipe,
            seconds=seconds,
            max_epochs=max_epochs,
            device=device,
        )
        if rank() == 0:
            write_json(plan, recipe.to_dict())
    result = train(
        network,
        dataset,
        recipe,
        seed=seed,
        checkpoint=folder / CHECKPOINT,
        deadline_s=deadline_s,
        device=device,
        on_epoch=on_epoch,
    )
    network.cpu()
    if rank() == 0:
        network.save(folder / "network")
    trained = Trained(
        architecture,
        folder / "network",
        recipe,
        result.stopped,
        result.best_score,
        list(result.history),
    )
    if rank() == 0:
        write_json(outcome, trained.to_dict())
    return trained


def load_trial(folder: Path) -> Trained:
    """A finished trial.

    Raises:
        FileNotFoundError: the trial is not finished.
        CorruptFileError: its outcome cannot be read.
    """
    return Trained.from_dict(read_json(folder / "outcome.json"), folder / "network")


def salvage_trial(
    candidate: TrialSpec, family: str, dataset: Dataset, folder: Path, *, seed: int
) -> Trained | None:
    """The best state of a trial that was stopped from outside, as if it had ended with its last
    checkpoint.

    Returns:
        None if the trial never reached a checkpoint.

    Raises:
        CorruptFileError, StorageError: the folder cannot be read or written.
    """
    outcome = folder / "outcome.json"
    if outcome.exists():
        return load_trial(folder)
    if not (folder / CHECKPOINT).exists():
        return None
    architecture = Architecture.of(dataset, family, candidate.width, candidate.depth)
    network = architecture.network(seed=seed)
    history, best_score = load_best(network, folder / CHECKPOINT)
    network.save(folder / "network")
    recipe = Recipe.from_dict(read_json(folder / "plan.json"))
    trained = Trained(architecture, folder / "network", recipe, "rival", best_score, history)
    write_json(outcome, trained.to_dict())
    return trained
