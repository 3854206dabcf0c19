"""Training of an integral network: epochs of sandwich steps, checkpoints, a deadline, and the best
state kept.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inn_automl.training.checkpoint import load_checkpoint, under
from inn_automl.training.distributed import broadcast_value
from inn_automl.training.recipe import Recipe
from inn_automl.training.run import EpochReport, TrainingRun

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.tasks import Task

__all__ = ["EpochReport", "TrainingResult", "fit_to_budget", "load_best", "train"]

# Timing takes about this share of the time that is planned. The first steps with new random widths
# are slow ones.
_TIMED_SHARE = 0.03
_MIN_TIMED_STEPS, _MAX_TIMED_STEPS = 3, 40
_TIMED_EPOCHS = 100


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended; the network holds the state of the best epoch."""

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
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TrainingResult:
    """Trains in place; on return the network is on the task's device, in eval mode, and holds its best
    state.

    Args:
        seed: of order, augmentation and random widths; on the CPU the same seed (and thread count)
            gives the same bits.
        checkpoint: file to resume from if it exists, and to write after each epoch.
        deadline_s: `time.monotonic()` at which to stop, validation included. An epoch cut short is
            validated too.
        on_epoch: called after each epoch, once its checkpoint is written; what it raises ends the
            training.

    Where torch.distributed is initialized, all its processes call this alike and train together:
    see `training.distributed`. They must see the same `checkpoint`.

    Raises:
        TrainingError: the loss is no longer finite, or the checkpoint belongs to another training.
        CorruptFileError, StorageError: the checkpoint cannot be read or written.
    """
    run = TrainingRun(network.to(task.device), task, recipe, seed)
    if checkpoint is not None and broadcast_value(checkpoint.exists(), run.device):
        run.restore(checkpoint)
    stopped = "epochs"
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        for epoch in range(len(run.history) + 1, recipe.epochs + 1):
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


def fit_to_budget(
    network: IntegralNetwork,
    task: Task,
    recipe: Recipe,
    *,
    seconds: float,
    max_epochs: int | None = None,
) -> Recipe:
    """The recipe with as many epochs as fit into `seconds`, so that its schedule ends before a
    deadline does.

    Takes a few real steps and one validation on the clock; the network is left as it was, but for
    width deltas of zero where the recipe is width-conditioned. Where less than one epoch fits, the recipe gets one
    epoch of fewer samples.

    Args:
        seconds: from this call on.
        max_epochs: upper bound; the recipe's own epochs are not one.
    """
    started_at = time.monotonic()
    # Of so many epochs the first is a plain one where the recipe has any, and the last is not.
    timed = dataclasses.replace(recipe, epochs=_TIMED_EPOCHS)
    run = TrainingRun(network.to(task.device), task, timed, 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    was_training = network.training
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        run.steps(_TIMED_EPOCHS, 1)  # the very first step also loads libraries
        affordable = int(_TIMED_SHARE * seconds / max(1e-6, _step_s(run, _TIMED_EPOCHS, 1)))
        num_steps = int(
            broadcast_value(min(_MAX_TIMED_STEPS, max(_MIN_TIMED_STEPS, affordable)), run.device)
        )
        step_s = warmup_step_s = broadcast_value(_step_s(run, _TIMED_EPOCHS, num_steps), run.device)
        if timed.num_warmup_epochs > 0:
            warmup_step_s = broadcast_value(_step_s(run, 1, _MIN_TIMED_STEPS), run.device)
        run.validate()
    network.load_state_dict(before)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.zero_grad(set_to_none=True)
    network.train(was_training)
    # A tenth is kept back, because a short measurement cannot know what else the machine will do.
    available_s = broadcast_value(0.9 * (seconds - (time.monotonic() - started_at)), run.device)
    validation_s = broadcast_value(run.validation_s, run.device)

    def needed_s(epochs: int) -> float:
        num_warmup = dataclasses.replace(recipe, epochs=epochs).num_warmup_epochs
        steps_s = (epochs - num_warmup) * step_s + num_warmup * warmup_step_s
        return run.steps_per_epoch * steps_s + epochs * validation_s

    epochs = int(available_s / (run.steps_per_epoch * min(step_s, warmup_step_s) + validation_s))
    while epochs >= 1 and needed_s(epochs) > available_s:
        epochs -= 1
    if epochs < 1:
        fitting = min(max(1, int((available_s - validation_s) / step_s)), run.steps_per_epoch)
        return dataclasses.replace(recipe, epochs=1, epoch_samples=fitting * run.batch_size)
    return dataclasses.replace(
        recipe, epochs=epochs if max_epochs is None else min(epochs, max_epochs)
    )


def _step_s(run: TrainingRun, epoch: int, num_steps: int) -> float:
    """Seconds a step."""
    started_at = time.monotonic()
    run.steps(epoch, num_steps)
    return (time.monotonic() - started_at) / num_steps


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
