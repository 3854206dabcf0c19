"""Training of an integral network: epochs of sandwich steps with checkpoints, until the last one
or a deadline.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inn_automl.training.checkpoint import load_checkpoint, under
from inn_automl.training.distributed import broadcast_value
from inn_automl.training.pace import Pace
from inn_automl.training.recipe import Recipe
from inn_automl.training.run import EpochReport, TrainingRun

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.tasks import Task

__all__ = ["EpochReport", "TrainingResult", "load_best", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """End of a training, whose network holds the state of the best epoch."""

    epochs_done: int
    """Whole epochs."""
    stopped: str
    """ "epochs" or "deadline"."""
    best_score: float
    history: list[EpochReport]


def train(
    network: IntegralNetwork,
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    deadline_s: float | None = None,
    max_epochs: int | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TrainingResult:
    """Trains in place; on return the network is on the task's device, in eval mode, and holds its
    best state.

    Args:
        seed: of order, augmentation and random widths; on the CPU the same seed (and thread count)
            gives the same bits.
        checkpoint: file to resume from if it exists, and to write after each epoch.
        deadline_s: `time.monotonic()` at which to stop, validation included. An epoch cut short is
            validated too. The schedule of a recipe that is timed ends there.
        max_epochs: at which a timed training ends before its deadline.
        on_epoch: called after each epoch, once its checkpoint is written; an exception from it ends
            the training.

    Where torch.distributed is initialized, all its processes make the same call and train
    together: see `training.distributed`. They must see the same `checkpoint`.

    Raises:
        TrainingError: the loss is no longer finite, or the checkpoint belongs to another training.
        CorruptFileError, StorageError: the checkpoint cannot be read or written.
    """
    run = TrainingRun.from_task(network, task, recipe, seed)
    if checkpoint is not None and broadcast_value(checkpoint.exists()):
        run.restore(checkpoint)
    last = recipe.epochs
    if recipe.is_timed and deadline_s is not None:
        run.pace = Pace(deadline_s, run.spent_s)
        last = sys.maxsize if max_epochs is None else max_epochs
    stopped = "epochs"
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        for epoch in range(len(run.history) + 1, last + 1):
            if run.best is not None and run.is_over(deadline_s):
                stopped = "deadline"
                break
            is_whole = run.epoch(epoch, deadline_s)
            if not is_whole:
                stopped = "deadline"
            elif checkpoint is not None:
                run.save(checkpoint)
            if on_epoch is not None:
                on_epoch(run.history[-1])
            if not is_whole:
                break
    run.finish()
    return TrainingResult(run.epochs_done, stopped, run.best_score, run.history)


def load_best(network: IntegralNetwork, checkpoint: Path) -> tuple[list[EpochReport], float]:
    """Puts the best state of a checkpoint into the network.

    Returns:
        The epochs that were trained, and the score of the best.

    Raises:
        CorruptFileError, StorageError: the checkpoint cannot be read.
    """
    tensors, state = load_checkpoint(checkpoint)
    if Recipe.from_dict(state["identity"]["recipe"]).width_conditioned:
        network.add_width_deltas()
    network.load_state_dict(under("best", tensors))
    network.eval()
    return [EpochReport(**report) for report in state["history"]], state["best_score"]
