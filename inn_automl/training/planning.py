"""The number of epochs that fit into a time, by a few real steps on the clock."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inn_automl.training.distributed import broadcast_value
from inn_automl.training.recipe import Recipe
from inn_automl.training.run import TrainingRun

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.tasks import Task

# Fraction of the planned time that timing takes. The first steps with new random widths are slow
# ones.
_TIMED_FRACTION = 0.03
_MIN_TIMED_STEPS, _MAX_TIMED_STEPS = 3, 40
_TIMED_EPOCHS = 100
_VALIDATION_COST = 0.5
"""Of three widths without gradients, over a step of the full width with them."""
_SPARE_FRACTION = 0.1
"""Of the time, left unplanned where an upper bound of epochs decides: a short measurement cannot
know what else the machine will do.
"""
_MAX_VALIDATION_FRACTION = 0.1
"""Of the time, that validation takes at most, if it can."""
_MIN_BATCH = 4
_MIN_EPOCHS = 4
"""Validations that a training has at least, so that there is a best state to choose."""
_MIN_VALIDATION_SAMPLES = 100


@dataclass(frozen=True)
class _Costs:
    """Seconds that the parts of a training take."""

    step_s: float
    warmup_step_s: float
    validation_s: float
    steps_per_epoch: int

    def epochs_s(self, epochs: int, num_warmup: int) -> float:
        """Seconds of epochs of which `num_warmup` are warm-up."""
        steps_s = (epochs - num_warmup) * self.step_s + num_warmup * self.warmup_step_s
        return self.steps_per_epoch * steps_s + epochs * self.validation_s

    def most_epochs(self, available_s: float) -> int:
        """Epochs that fit if all were of the cheaper kind."""
        cheapest_s = min(self.step_s, self.warmup_step_s)
        return int(available_s / (self.steps_per_epoch * cheapest_s + self.validation_s))

    def fitting_epochs(self, recipe: Recipe, available_s: float) -> int:
        """Epochs that fit, by the recipe's share of warm-up."""
        epochs = self.most_epochs(available_s)
        while epochs >= 1:
            num_warmup = dataclasses.replace(recipe, epochs=epochs).num_warmup_epochs
            if self.epochs_s(epochs, num_warmup) <= available_s:
                break
            epochs -= 1
        return epochs

    def fitting_steps(self, recipe: Recipe, available_s: float) -> int:
        """Steps that fit, without validation, by the recipe's share of warm-up in the time."""
        share = recipe.warmup_fraction
        return max(1, int(available_s * (share / self.warmup_step_s + (1 - share) / self.step_s)))


def fit_to_budget(
    network: IntegralNetwork,
    task: Task,
    recipe: Recipe,
    *,
    seconds: float,
    max_epochs: int | None = None,
) -> Recipe:
    """The recipe with the epochs of `seconds`, whose schedule ends with the time.

    Takes a few real steps and one validation on the clock; the network is left as it was, but for
    width deltas of zero where the recipe is width-conditioned. Epochs are of as many samples as
    make at least four of them, and as let validation take a tenth of the time at most.

    Args:
        network: moved to the task's device.
        seconds: from this call on.
        max_epochs: upper bound; the recipe's own epochs are not one. Where it is what ends
            training, the recipe follows its steps: the same seed gives the same network.
    """
    started_at = time.monotonic()
    # Of so many epochs the first is warm-up where the recipe has any, and the last is not.
    run, costs = _fitting_memory(
        network, task, dataclasses.replace(recipe, epochs=_TIMED_EPOCHS), seconds
    )
    recipe = dataclasses.replace(
        run.recipe, epochs=recipe.epochs, epoch_samples=recipe.epoch_samples
    )
    left_s = broadcast_value(seconds - (time.monotonic() - started_at))
    bounded = costs.fitting_epochs(recipe, (1 - _SPARE_FRACTION) * left_s)
    if max_epochs is not None and bounded >= max_epochs:
        return dataclasses.replace(recipe, epochs=max_epochs)
    return _timed(run, recipe, costs, left_s)


def measure_epoch_s(network: IntegralNetwork, task: Task, recipe: Recipe) -> float:
    """Seconds of an epoch at all widths, by a few real steps and without validation.

    Args:
        network: moved to the task's device, and trained a little.
    """
    run = TrainingRun.from_task(network, task, recipe, 0)
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        run.steps(recipe.epochs, 1)  # the very first step also loads libraries
        step_s = _step_s(run, recipe.epochs, 1)
    run.batches.close()
    return run.batches.steps_per_epoch * step_s


def _timed(run: TrainingRun, recipe: Recipe, costs: _Costs, left_s: float) -> Recipe:
    """The recipe as it follows the clock, with the size of its epochs."""
    costs, validation_samples = _affordable_validation(run, costs, left_s)
    num_steps = costs.fitting_steps(recipe, left_s)
    most = max(_MIN_EPOCHS, int(_MAX_VALIDATION_FRACTION * left_s / max(1e-6, costs.validation_s)))
    epoch_steps = costs.steps_per_epoch
    if num_steps < _MIN_EPOCHS * epoch_steps:
        epoch_steps = max(1, num_steps // _MIN_EPOCHS)
    elif num_steps > most * epoch_steps:
        epoch_steps *= -(-num_steps // (most * epoch_steps))
    sized = dataclasses.replace(costs, steps_per_epoch=epoch_steps)
    epoch_samples = epoch_steps * run.batches.batch_size
    return dataclasses.replace(
        recipe,
        epochs=max(1, sized.fitting_epochs(recipe, left_s)),
        epoch_samples=recipe.epoch_samples
        if epoch_steps == costs.steps_per_epoch
        else epoch_samples,
        validation_samples=validation_samples,
        is_timed=True,
    )


def _affordable_validation(
    run: TrainingRun, costs: _Costs, left_s: float
) -> tuple[_Costs, int | None]:
    """Validation on fewer samples where the fewest validations of all would take too long."""
    share = _MAX_VALIDATION_FRACTION * left_s / (_MIN_EPOCHS * max(1e-6, costs.validation_s))
    if share >= 1:
        return costs, run.recipe.validation_samples
    usual = len(run.validator.validation)
    kept = min(usual, max(_MIN_VALIDATION_SAMPLES, int(share * usual)))
    return dataclasses.replace(costs, validation_s=costs.validation_s * kept / usual), kept


def _fitting_memory(
    network: IntegralNetwork, task: Task, recipe: Recipe, seconds: float
) -> tuple[TrainingRun, _Costs]:
    """A training with batches that fit into the memory of the GPU, and what its parts cost.

    A batch that does not fit is halved, and with it the learning rate of SGD (P. Goyal et al.,
    2017); that of AdamW, whose steps do not grow with gradients, by the square root.
    """
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    while True:
        run = TrainingRun.from_task(network, task, recipe, 0)
        try:
            return run, _measure_costs(run, seconds)
        except torch.OutOfMemoryError:
            run.batches.close()
            if recipe.batch_size < 2 * _MIN_BATCH:
                raise
        del run  # with its optimizer and teacher
        network.zero_grad(set_to_none=True)
        network.load_state_dict(before, strict=False)  # width deltas are zero before any step
        torch.cuda.empty_cache()
        factor = 0.5 if recipe.optimizer == "sgd" else 0.5**0.5
        recipe = dataclasses.replace(
            recipe,
            batch_size=recipe.batch_size // 2,
            learning_rate=factor * recipe.learning_rate,
        )


def _measure_costs(run: TrainingRun, seconds: float) -> _Costs:
    """Measures steps and a validation, and puts the network back into the state that it had."""
    network = run.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    was_training = network.training
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        run.steps(_TIMED_EPOCHS, 1)  # the very first step also loads libraries
        step_s = broadcast_value(_step_s(run, _TIMED_EPOCHS, 1))
        affordable = int(_TIMED_FRACTION * seconds / max(1e-6, step_s))
        is_long = affordable < _MIN_TIMED_STEPS
        if not is_long:
            step_s = broadcast_value(_step_s(run, _TIMED_EPOCHS, min(_MAX_TIMED_STEPS, affordable)))
        warmup_step_s = step_s
        if run.recipe.num_warmup_epochs > 0:
            num_steps = 1 if is_long else _MIN_TIMED_STEPS
            warmup_step_s = broadcast_value(_step_s(run, 1, num_steps))
        if is_long:
            run.validation_s = _estimated_validation_s(run, min(step_s, warmup_step_s))
        else:
            run.validate()
    run.batches.close()
    network.load_state_dict(before)
    network.to(memory_format=torch.contiguous_format)
    network.zero_grad(set_to_none=True)
    network.train(was_training)
    return _Costs(
        step_s, warmup_step_s, broadcast_value(run.validation_s), run.batches.steps_per_epoch
    )


def _estimated_validation_s(run: TrainingRun, step_s: float) -> float:
    """Seconds of a validation by those of a step of the full width, which goes forwards and
    backwards.
    """
    num_samples = len(run.validator.validation) + len(run.validator.recalibration)
    return _VALIDATION_COST * step_s * num_samples / run.batches.batch_size


def _step_s(run: TrainingRun, epoch: int, num_steps: int) -> float:
    """Seconds a step."""
    started_at = time.monotonic()
    run.steps(epoch, num_steps)
    return (time.monotonic() - started_at) / num_steps
