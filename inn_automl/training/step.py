"""One step of training: gradients of the sandwich rule, the optimizer, and the averaged teacher."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inn_automl.integral.conversion.channel_ranking import permute, permute_tensors
from inn_automl.tasks import Objective
from inn_automl.training.batches import Batch
from inn_automl.training.distributed import sum_gradients, synchronized_batch_norm
from inn_automl.training.optimizer import make_optimizer, mixed_precision, permute_state
from inn_automl.training.recipe import Recipe
from inn_automl.training.sandwich import Widths, sandwich_gradients
from inn_automl.training.teacher import AveragedTeacher

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork


@dataclass(frozen=True, eq=False)
class SandwichStep:
    """Steps of an optimizer on the summed gradients of several widths.

    Attributes:
        network: that is trained.
        objective: loss and distillation targets of the task.
        optimizer: of the network's parameters.
        parameters: of the network, by name, in the optimizer's order.
        teacher: average of the network over its latest steps.
        autocast: the mixed-precision context; None for the network's own precision.
        scaler: of gradients in float16.
        pad_channels: whether reduced widths are padded by zero channels.
    """

    network: IntegralNetwork
    objective: Objective
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    parameters: dict[str, Tensor]
    teacher: AveragedTeacher
    autocast: torch.autocast | None
    scaler: torch.amp.GradScaler
    pad_channels: bool

    @classmethod
    def from_recipe(
        cls, network: IntegralNetwork, objective: Objective, recipe: Recipe, num_steps: int
    ) -> SandwichStep:
        """The steps of a recipe, none of which is taken yet.

        Args:
            network: on its device, in the memory layout that it is trained in.
            num_steps: of the whole training.
        """
        device = next(network.parameters()).device
        optimizer, parameters = make_optimizer(network, recipe)
        autocast, scaler = mixed_precision(recipe, device)
        return cls(
            network,
            objective,
            recipe,
            optimizer,
            parameters,
            AveragedTeacher(network, recipe.teacher_window * num_steps),
            autocast,
            scaler,
            pad_channels=device.type == "cpu" and network.supports_zero_padding,
        )

    def take(
        self, full: Batch, narrow: Batch | None, widths: list[Widths], learning_rate: float
    ) -> Tensor:
        """Takes a step.

        Args:
            full: batch of the full width.
            narrow: batch of the reduced widths; None if there are none.
            widths: the reduced widths.

        Returns:
            Loss of the full width over the whole batch, a detached scalar.
        """
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
        self.optimizer.zero_grad(set_to_none=True)
        with synchronized_batch_norm(self.network), synchronized_batch_norm(self.teacher.module):
            loss = sandwich_gradients(
                self.network,
                full.x,
                full.y,
                widths,
                objective=self.objective,
                label_smoothing=recipe.label_smoothing,
                label_fraction=recipe.soft_target_label_fraction,
                distillation_batch=None
                if narrow is None
                else (narrow.x, narrow.y, self._teacher_outputs(narrow.x)),
                autocast=self.autocast,
                pad_channels=self.pad_channels,
                backward=lambda loss: self.scaler.scale(full.fraction * loss).backward(),
            )
        loss = sum_gradients(list(self.parameters.values()), full.fraction * loss)
        if recipe.max_gradient_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.teacher.update(self.network)
        return loss

    def permute(self, order: Mapping[str, Tensor]) -> None:
        """Permutes the channels of the network, its teacher and the optimizer's state.

        Args:
            order: new order of each coupled group, on the network's device.
        """
        coupling = self.network.coupling
        permute(self.network, order)
        permute_tensors(coupling, dict(self.teacher.module.named_parameters()), order)
        permute_state(self.optimizer, self.parameters, coupling, order)

    def _teacher_outputs(self, x: Tensor) -> Tensor:
        with self.autocast or contextlib.nullcontext():
            return self.teacher.outputs(x).float()
