"""One training candidate: from an empty folder to a saved integral network, resumable at any time.

A trial's folder holds `plan.json` (the recipe as fitted to the time), `checkpoint.safetensors`,
and, when it is done, `network/` and `outcome.json`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from inn_automl.core.storage import read_json, write_json
from inn_automl.integral import IntegralNetwork
from inn_automl.models.architecture import Architecture
from inn_automl.models.initial_weights import InitialWeights
from inn_automl.training.distributed import broadcast_value, rank
from inn_automl.training.folds import OnEpoch, run_folds
from inn_automl.training.loop import EpochReport, load_best, train
from inn_automl.training.planning import fit_to_budget
from inn_automl.training.recipe import Recipe, TrialSpec
from inn_automl.training.trained import OUTCOME, Trained

if TYPE_CHECKING:
    from inn_automl.tasks import Task

CHECKPOINT = "checkpoint.safetensors"
_PLAN = "plan.json"
_NETWORK = "network"


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
    start: Path | None = None,
) -> Trained:
    """Trains a candidate. Continues where the folder holds an unfinished trial, and returns a
    finished one at once.

    Several processes of torch.distributed train it together where all make the same call; they
    must see the same folder.

    Args:
        model: name of a model family.
        task: on the device to train on.
        seconds: time that is left for this trial. No more epochs are planned than fit into it.
        max_epochs: upper bound of the planned epochs.
        on_epoch: see `train`.
        start: file of `InitialWeights` that training starts from; None for a fresh network.

    Raises:
        TrainingError: training diverged.
        CorruptFileError, StorageError: the folder cannot be read or written.
    """
    if broadcast_value((folder / OUTCOME).exists()):
        return load_trial(folder)
    if spec.recipe.folds:

        def run(part: TrialSpec, of: Task, into: Path, left_s: float, report: OnEpoch) -> Trained:
            return run_trial(
                part,
                model,
                of,
                into,
                seed=seed,
                seconds=left_s,
                max_epochs=max_epochs,
                on_epoch=report,
                start=start,
            )

        report = on_epoch or (lambda _: None)
        kept = run_folds(spec, task, folder, run, seconds=seconds, on_epoch=report)
        trained = dataclasses.replace(kept, folder=folder / _NETWORK)
        if rank() == 0:
            _save(trained, kept.network())
        return trained
    trained, network = _train_network(
        spec, model, task, folder, seed, seconds, max_epochs, on_epoch, start
    )
    if rank() == 0:
        _save(trained, network.cpu())
    return trained


def _train_network(
    spec: TrialSpec,
    model: str,
    task: Task,
    folder: Path,
    seed: int,
    seconds: float,
    max_epochs: int | None,
    on_epoch: OnEpoch | None,
    start: Path | None,
) -> tuple[Trained, IntegralNetwork]:
    """Trains the network of a candidate from its weights, or from its checkpoint."""
    deadline_s = time.monotonic() + seconds
    architecture = Architecture.from_dataset(task.dataset, model, spec.width, spec.depth)
    initial = None if start is None else InitialWeights.load(start)
    network = architecture.network(seed=seed, initial=initial)
    if broadcast_value((folder / _PLAN).exists()):
        recipe = Recipe.from_dict(read_json(folder / _PLAN))
    else:
        recipe = fit_to_budget(network, task, spec.recipe, seconds=seconds, max_epochs=max_epochs)
        if rank() == 0:
            write_json(folder / _PLAN, recipe.to_dict())
    result = train(
        network,
        task,
        recipe,
        seed=seed,
        checkpoint=folder / CHECKPOINT,
        deadline_s=deadline_s,
        max_epochs=max_epochs,
        on_epoch=on_epoch,
    )
    trained = Trained(
        architecture,
        folder / _NETWORK,
        recipe,
        result.stopped,
        result.best_score,
        list(result.history),
        initial.origin if initial else None,
    )
    return trained, network


def load_trial(folder: Path) -> Trained:
    """A finished trial.

    Raises:
        FileNotFoundError: the trial is not finished.
        CorruptFileError: its outcome cannot be read.
    """
    return Trained.from_dict(read_json(folder / OUTCOME), folder / _NETWORK)


def salvage_trial(
    spec: TrialSpec,
    model: str,
    task: Task,
    folder: Path,
    *,
    seed: int,
    start: Path | None = None,
) -> Trained | None:
    """The best state of a trial that was stopped from outside, as if it had ended with its last
    checkpoint.

    Returns:
        None if the trial never reached a checkpoint.

    Raises:
        CorruptFileError, StorageError: the folder cannot be read or written.
    """
    if (folder / OUTCOME).exists():
        return load_trial(folder)
    if not (folder / CHECKPOINT).exists():
        return None
    architecture = Architecture.from_dataset(task.dataset, model, spec.width, spec.depth)
    network = architecture.network(seed=seed)
    history, best_score = load_best(network, folder / CHECKPOINT)
    recipe = Recipe.from_dict(read_json(folder / _PLAN))
    origin = None if start is None else InitialWeights.load(start).origin
    trained = Trained(architecture, folder / _NETWORK, recipe, "rival", best_score, history, origin)
    _save(trained, network)
    return trained


def _save(trained: Trained, network: IntegralNetwork) -> None:
    """Writes a trial's network, and then its outcome, by which it counts as finished."""
    network.save(trained.folder)
    write_json(trained.folder.with_name(OUTCOME), trained.to_dict())
