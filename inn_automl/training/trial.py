"""One training candidate from an empty folder to a saved integral network, resumable at any
moment.

A trial's folder holds `plan.json` (the recipe as fitted to the time), `checkpoint.safetensors`,
and, when it is done, `network/` and `outcome.json`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.storage import read_json, write_json
from inn_automl.integral import IntegralNetwork
from inn_automl.models.architecture import Architecture
from inn_automl.training.distributed import broadcast_value, rank
from inn_automl.training.loop import EpochReport, fit_to_budget, load_best, train
from inn_automl.training.recipe import Recipe, TrialSpec

if TYPE_CHECKING:
    from inn_automl.tasks import Task

CHECKPOINT = "checkpoint.safetensors"


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
    spec: TrialSpec,
    model: str,
    task: Task,
    folder: Path,
    *,
    seed: int,
    seconds: float,
    max_epochs: int | None = None,
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
    if broadcast_value(outcome.exists(), task.device):
        return load_trial(folder)
    deadline_s = time.monotonic() + seconds
    architecture = Architecture.from_dataset(task.dataset, model, spec.width, spec.depth)
    network = architecture.network(seed=seed)
    plan = folder / "plan.json"
    if broadcast_value(plan.exists(), task.device):
        recipe = Recipe.from_dict(read_json(plan))
    else:
        recipe = fit_to_budget(
            network,
            task,
            spec.recipe,
            seconds=seconds,
            max_epochs=max_epochs,
        )
        if rank() == 0:
            write_json(plan, recipe.to_dict())
    result = train(
        network,
        task,
        recipe,
        seed=seed,
        checkpoint=folder / CHECKPOINT,
        deadline_s=deadline_s,
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
    spec: TrialSpec, model: str, task: Task, folder: Path, *, seed: int
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
    architecture = Architecture.from_dataset(task.dataset, model, spec.width, spec.depth)
    network = architecture.network(seed=seed)
    history, best_score = load_best(network, folder / CHECKPOINT)
    network.save(folder / "network")
    recipe = Recipe.from_dict(read_json(folder / "plan.json"))
    trained = Trained(architecture, folder / "network", recipe, "rival", best_score, history)
    write_json(outcome, trained.to_dict())
    return trained
