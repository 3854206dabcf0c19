"""Planning: the training candidates of a job, as many as its time can train."""

from __future__ import annotations

import dataclasses
import math

import torch

from inn_automl.core.progress import duration
from inn_automl.models.architecture import Architecture
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.records import PlannedTrials
from inn_automl.training.planning import measure_epoch_s
from inn_automl.training.recipe import TrialSpec, pretrained_recipe, trial_specs
from inn_automl.training.transforms import choose_transforms

CANDIDATES = "training/candidates.json"
"""The candidates that are trained, once they are decided."""
MOST_TRIALS = 4
FEW_VALIDATION, NUM_FOLDS = 100, 3
"""With fewer validation samples a trial is scored on folds, and its network learns from all."""
EPOCHS_OF_A_TRIAL = 10
"""Epochs that each of several trials must have: a network that has seen its samples less often says
more about chance than about its learning rate.
"""


def plan_trials(context: JobContext) -> PlannedTrials:
    """The training candidates that the budget and the seed ask for.

    Raises:
        SpecError: an augmentation does not fit the dataset.
    """
    dataset, seed = context.task.dataset, context.spec.seed
    augment, transforms = choose_transforms(context.spec.augmentation, dataset)

    def adapted(one: TrialSpec) -> TrialSpec:
        recipe = dataclasses.replace(one.recipe, augment=augment, transforms=transforms)
        if dataset.task == "classification" and len(dataset.validation) < FEW_VALIDATION:
            recipe = dataclasses.replace(recipe, folds=NUM_FOLDS)
        if context.initial is not None:
            recipe = pretrained_recipe(recipe, len(dataset.train), dataset.task)
        return dataclasses.replace(one, recipe=recipe)

    def specs(num: int) -> list[TrialSpec]:
        found = trial_specs(context.family, len(dataset.train), num, seed=seed, task=dataset.task)
        return [adapted(one) for one in found]

    num_trials = context.spec.budget.training.trials
    if num_trials is None:
        num_trials = _affordable_trials(context, specs(1)[0])
    return PlannedTrials(tuple(specs(num_trials)))


def _affordable_trials(context: JobContext, default: TrialSpec) -> int:
    """The number of trials whose epochs are enough to compare them."""
    if context.initial is not None or (context.folder / CANDIDATES).exists():
        return 1  # pretrained networks differ little in their recipes
    if default.recipe.folds:
        return 1  # folds take the time, and chance decides between recipes
    budget = context.spec.budget.training
    if budget.gpus:  # which this process may not have
        return MOST_TRIALS
    before = torch.get_num_threads()
    torch.set_num_threads(budget.cpus)
    try:
        architecture = Architecture.from_dataset(
            context.task.dataset, context.family, default.width, default.depth
        )
        network = architecture.network(seed=context.spec.seed)
        epoch_s = measure_epoch_s(network, context.task, default.recipe)
    finally:
        torch.set_num_threads(before)
    num_epochs = 60 * budget.max_minutes / max(1e-6, epoch_s)
    wanted = min(EPOCHS_OF_A_TRIAL, budget.max_epochs or math.inf)
    num_trials = int(max(1, min(MOST_TRIALS, num_epochs / wanted)))
    if num_trials < MOST_TRIALS:
        context.progress.note(
            f"an epoch takes about {duration(epoch_s)}, so {num_trials} of {MOST_TRIALS} training "
            f"candidates share the time: each of more would have fewer than {wanted:g} epochs"
        )
    return num_trials
