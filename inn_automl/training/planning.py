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
_SPARE_FRACTION = 0.1
"""Of the time, left unplanned: a short measurement cannot know what else the machine will do."""


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

    def fitting_steps(self, available_s: float) -> int:
        """Steps of a single epoch that fit with its validation, at least one."""
        fitting = max(1, int((available_s - self.validation_s) / self.step_s))
        return min(fitting, self.steps_per_epoch)


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
    width deltas of zero where the recipe is width-conditioned. Where less than one epoch fits, the
    recipe gets one epoch of fewer samples.

    Args:
        network: moved to the task's device.
        seconds: from this call on.
        max_epochs: upper bound; the recipe's own epochs are not one.
    """
    started_at = time.monotonic()
    # Of so many epochs the first is warm-up where the recipe has any, and the last is not.
    timed = dataclasses.replace(recipe, epochs=_TIMED_EPOCHS)
    run = TrainingRun.from_task(network, task, timed, 0)
    costs = _measure_costs(run, seconds)
    left_s = seconds - (time.monotonic() - started_at)
    available_s = broadcast_value((1 - _SPARE_FRACTION) * left_s)
    epochs = costs.most_epochs(available_s)
    while epochs >= 1:
        fitting = dataclasses.replace(recipe, epochs=epochs)
        if costs.epochs_s(epochs, fitting.num_warmup_epochs) <= available_s:
            break
        epochs -= 1
    if epochs < 1:
        num_samples = costs.fitting_steps(available_s) * run.batches.batch_size
        return dataclasses.replace(recipe, epochs=1, epoch_samples=num_samples)
    return dataclasses.replace(
        recipe, epochs=epochs if max_epochs is None else min(epochs, max_epochs)
    )


def _measure_costs(run: TrainingRun, seconds: float) -> _Costs:
    """Measures steps and a validation, and puts the network back into the state that it had."""
    network = run.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    was_training = network.training
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        run.steps(_TIMED_EPOCHS, 1)  # the very first step also loads libraries
        affordable = int(_TIMED_FRACTION * seconds / max(1e-6, _step_s(run, _TIMED_EPOCHS, 1)))
        num_steps = int(broadcast_value(min(_MAX_TIMED_STEPS, max(_MIN_TIMED_STEPS, affordable))))
        step_s = warmup_step_s = broadcast_value(_step_s(run, _TIMED_EPOCHS, num_steps))
        if run.recipe.num_warmup_epochs > 0:
            warmup_step_s = broadcast_value(_step_s(run, 1, _MIN_TIMED_STEPS))
        run.validate()
    run.batches.close()
    network.load_state_dict(before)
    network.to(memory_format=torch.contiguous_format)
    network.zero_grad(set_to_none=True)
    network.train(was_training)
    return _Costs(
        step_s, warmup_step_s, broadcast_value(run.validation_s), run.batches.steps_per_epoch
    )


def _step_s(run: TrainingRun, epoch: int, num_steps: int) -> float:
    """Seconds a step."""
    started_at = time.monotonic()
    run.steps(epoch, num_steps)
    return (time.monotonic() - started_at) / num_steps
