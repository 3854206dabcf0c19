"""The state of one training: what it steps through, validates, saves and restores.

All randomness of an epoch comes from (seed, epoch), so a checkpoint needs no random state: a run
that resumes takes the very steps that an uninterrupted one takes, and on the CPU ends in the same
bits. Where several processes train together (`training.distributed`), each takes its share of
every batch, and ends in the same state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inn_automl.core.errors import InputError, TrainingError
from inn_automl.evaluation.candidates import (
    evaluate_module,
    reconstruction_samples,
    sample_candidate,
    use_channels_last,
)
from inn_automl.integral.conversion.channel_ranking import permute, permute_tensors, rank_channels
from inn_automl.integral.conversion.reconstruction import fit_width_deltas
from inn_automl.training.checkpoint import (
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    prefixed,
    save_checkpoint,
    under,
)
from inn_automl.training.distributed import (
    broadcast_tensors,
    broadcast_value,
    local_slice,
    rank,
    sum_gradients,
    synchronized_batch_norm,
)
from inn_automl.training.recipe import Recipe
from inn_automl.training.sandwich import Widths, reused_widths, sandwich_gradients
from inn_automl.training.schedule import learning_rate_at
from inn_automl.training.teacher import AveragedTeacher

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.tasks import Task

# Validation after each epoch only has to rank epochs, so it may be coarser than the evaluation of
# a candidate.
_NUM_RECALIBRATION = 512
_MAX_VALIDATION = 2_000
_STEPS_BETWEEN_CHECKS = 50
_FORMAT = 4
_FULL = "full"


@dataclass(frozen=True)
class EpochReport:
    """What one epoch brought."""

    epoch: int
    """1-based."""
    epochs: int
    train_loss: float
    """Mean loss of the full width."""
    metric_values: dict[str, float]
    """Validation metric_values (accuracy, or the task's other metric) of the "smallest", "middle" and
    "full" widths, with re-estimated normalization; of the "full" one alone while it learns alone.
    """
    score: float
    """Mean of these: what the best state is chosen by, among those of all three widths where there
    are any.
    """
    seconds: float
    """Wall-clock time of this epoch with its validation."""

    @property
    def is_warmup(self) -> bool:
        """Whether the full width learned alone."""
        return list(self.metric_values) == [_FULL]


class TrainingRun:
    """State of one training."""

    def __init__(
        self,
        network: IntegralNetwork,
        task: Task,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.network, self.recipe, self.seed, self.device = network, recipe, seed, task.device
        self.fingerprint, self.objective = task.dataset.fingerprint, task.objective
        self.samples = task.train
        validation = np.random.default_rng(0).permutation(task.dataset.validation)[:_MAX_VALIDATION]
        self.validation = task.samples(validation)
        self.recalibration = task.recalibration_samples(_NUM_RECALIBRATION)
        self.batch_size = min(recipe.batch_size, len(self.samples))
        num_samples = min(recipe.epoch_samples or len(self.samples), len(self.samples))
        self.steps_per_epoch = max(1, num_samples // self.batch_size)
        if recipe.width_conditioned:
            network.add_width_deltas()
        use_channels_last(network, self.samples.standardized(slice(0, 2)))
        self.supports_zero_padding = task.device.type == "cpu" and network.supports_zero_padding
        self.optimizer, self.parameters = make_optimizer(network, recipe)
        self.autocast, self.scaler = _precision(recipe, task.device)
        self.teacher = AveragedTeacher(
            network, recipe.teacher_window * recipe.epochs * self.steps_per_epoch
        )
        self.validated_widths: dict[str, Widths] = {
            "smallest": network.smallest_widths,
            "middle": {
                group.name: group.allowed[len(group.allowed) // 2] for group in network.groups
            },
            _FULL: network.full_widths,
        }
        self.history: list[EpochReport] = []
        self.best: dict[str, Tensor] | None = None
        self.best_score = -math.inf
        self.validation_s = 0.0
        self.epochs_done = 0

    def epoch(self, epoch: int, deadline_s: float | None) -> bool:
        """Trains and validates one epoch; whether it was a whole one."""
        started_at = time.monotonic()
        if 1 < epoch == self.recipe.num_warmup_epochs + 1:
            self.prepare_reduced_widths()
            self.best_score = -math.inf  # the best state is one of those to come
        train_loss, is_whole = self.steps(epoch, self.steps_per_epoch, deadline_s)
        metric_values = self.validate([_FULL] if epoch <= self.recipe.num_warmup_epochs else None)
        score = sum(metric_values.values()) / len(metric_values)
        if score >= self.best_score:  # of equals the later, which has seen lower learning rates
            self.best_score = score
            self.best = {
                name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()
            }
        seconds = time.monotonic() - started_at
        self.history.append(
            EpochReport(epoch, self.recipe.epochs, train_loss, metric_values, score, seconds)
        )
        self.epochs_done += is_whole
        return is_whole

    def steps(
        self, epoch: int, num_steps: int, deadline_s: float | None = None
    ) -> tuple[float, bool]:
        """Takes `num_steps` steps of an epoch; their mean loss, and whether the deadline left time
        for all.
        """
        order_seed, width_seed, torch_seed = (
            np.random.SeedSequence((self.seed, epoch)).generate_state(3).tolist()
        )
        generator = torch.Generator().manual_seed(order_seed)
        rng = np.random.default_rng(width_seed)
        # for dropout and the like, which differ from sample to sample
        torch.manual_seed(torch_seed + rank())
        # Two orders: what the reduced widths learn from in a step are other samples than those of
        # the full width.
        orders = [torch.randperm(len(self.samples), generator=generator) for _ in range(2)]
        total = torch.zeros((), device=self.device)
        first = (epoch - 1) * self.steps_per_epoch
        drawn = reused_widths(
            self.network, rng, 1 if self.supports_zero_padding else self.recipe.num_width_uses
        )
        self.network.train()
        for step in range(num_steps):
            if self.is_over(deadline_s):
                return float(total) / max(1, step), False
            start = (step % self.steps_per_epoch) * self.batch_size
            full, narrow = (
                order[start : start + self.batch_size].to(self.device) for order in orders
            )
            learning_rate = learning_rate_at(
                self.recipe, first + step, self.recipe.epochs * self.steps_per_epoch
            )
            reduced: list[Widths] = []
            if epoch > self.recipe.num_warmup_epochs:
                reduced = [
                    self.network.smallest_widths,
                    *itertools.islice(drawn, self.recipe.num_random_widths),
                ]
            total += self._step(full, narrow, learning_rate, reduced, generator)
            is_checked = (
                self.device.type == "cpu"
                or step % _STEPS_BETWEEN_CHECKS == 0
                or step == num_steps - 1
            )
            if is_checked and not math.isfinite(float(total)):
                raise TrainingError(
                    f"training diverged: the loss is {float(total)} in epoch {epoch} at learning "
                    f"rate "
                    f"{learning_rate:.3g}; give a lower learning rate, such as "
                    f"{self.recipe.learning_rate / 3:.2g}."
                )
        return float(total) / num_steps, True

    def _step(
        self,
        full: Tensor,
        narrow: Tensor,
        learning_rate: float,
        reduced: list[Widths],
        generator: torch.Generator,
    ) -> Tensor:
        """Steps on the samples `full` at full width, and on the samples `narrow` at the reduced
        widths, if any.
        """
        x, y = self._batch(full, generator)
        other = self._batch(narrow, generator) if reduced else None
        weight = len(y) / len(full)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        with synchronized_batch_norm(self.network), synchronized_batch_norm(self.teacher.module):
            loss = sandwich_gradients(
                self.network,
                x,
                y,
                reduced,
                objective=self.objective,
                label_smoothing=self.recipe.label_smoothing,
                label_fraction=self.recipe.soft_target_label_fraction,
                distillation_batch=None
                if other is None
                else (*other, self._teacher_outputs(other[0])),
                autocast=self.autocast,
                pad_channels=self.supports_zero_padding,
                backward=lambda loss: self.scaler.scale(weight * loss).backward(),
            )
        loss = sum_gradients(list(self.parameters.values()), weight * loss)
        if self.recipe.max_gradient_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.teacher.update(self.network)
        return loss

    def _batch(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """This process's share of a batch of samples, standardized and augmented, and their
        targets.
        """
        x, y = self.samples.standardized(chosen), self.objective.targets(self.samples.y[chosen])
        if self.recipe.augment:
            x, y = self.objective.augment(x, y, generator)
        mine = local_slice(len(chosen))
        return x[mine], y[mine]

    def _teacher_outputs(self, x: Tensor) -> Tensor:
        with self.autocast or contextlib.nullcontext():
            return self.teacher.outputs(x).float()

    def is_over(self, deadline_s: float | None) -> bool:
        """Whether no time is left for another step, by the clock of the first process."""
        if deadline_s is None:
            return False
        return bool(
            broadcast_value(time.monotonic() + self.validation_s >= deadline_s, self.device)
        )

    def validate(self, names: Collection[str] | None = None) -> dict[str, float]:
        """Metric value at the three validated widths, or at those of them that are named."""
        started_at = time.monotonic()
        metric_values = {}
        for name in names or self.validated_widths:
            module = sample_candidate(self.network, self.validated_widths[name], self.recalibration)
            metric_values[name] = evaluate_module(module, self.validation).value
        self.validation_s = time.monotonic() - started_at
        return metric_values

    def prepare_reduced_widths(self) -> None:
        """Prepares a network that was trained at full width alone for learning to be narrow.

        The channels that tell most come first, and width deltas are those with which the smallest widths
        compute what is nearest to the full one; the teacher and the optimizer's state follow.
        Where there are too few samples to tell, all stays as it is.
        """
        self.network.eval()
        samples = reconstruction_samples(self.recalibration)
        try:
            order = rank_channels(self.network, samples)
        except InputError:
            return
        order = {name: found.to(self.device) for name, found in order.items()}
        broadcast_tensors(order.values())  # rounding may put equals into another order elsewhere
        permute(self.network, order)
        permute_tensors(self.network.coupling, dict(self.teacher.module.named_parameters()), order)
        self._permute_optimizer(order)
        if self.recipe.width_conditioned:
            fit_width_deltas(self.network, samples)
            broadcast_tensors(delta.data for delta in self.network.width_deltas)

    def _permute_optimizer(self, order: dict[str, Tensor]) -> None:
        prefix = "module."
        named = {
            name.removeprefix(prefix): p
            for name, p in self.parameters.items()
            if name.startswith(prefix)
        }
        for key in {key for state in self.optimizer.state.values() for key in state}:
            states = {
                name: self.optimizer.state[p].get(key)
                for name, p in named.items()
                if p in self.optimizer.state
            }
            shaped = {
                name: state
                for name, state in states.items()
                if isinstance(state, Tensor) and state.ndim > 0
            }
            permute_tensors(self.network.coupling, shaped, order)

    def finish(self) -> None:
        """Puts the best state into the network."""
        if self.best is not None:
            self.network.load_state_dict(self.best)
        if self.history and self.history[-1].is_warmup:
            self.prepare_reduced_widths()  # there was no time to learn them
        self.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.network.zero_grad(set_to_none=True)
        self.network.eval()

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree on to be continued."""
        return {
            "format": _FORMAT,
            "seed": self.seed,
            "dataset": self.fingerprint,
            "recipe": self.recipe.to_dict(),
        }

    def save(self, path: Path) -> None:
        """Writes a checkpoint; of several processes the first does so for all."""
        assert self.best is not None
        if rank() != 0:
            return
        tensors = {
            **prefixed("network", self.network.state_dict()),
            **prefixed("best", self.best),
            **prefixed("teacher", self.teacher.module.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.optimizer, self.parameters)),
        }
        state = {
            "identity": self.identity(),
            "best_score": self.best_score,
            "teacher_updates": self.teacher.num_updates,
            "validation_s": self.validation_s,
            "scaler": self.scaler.state_dict(),
            "history": [dataclasses.asdict(report) for report in self.history],
        }
        save_checkpoint(path, tensors, state)

    def restore(self, path: Path) -> None:
        tensors, state = load_checkpoint(path)
        mine, theirs = self.identity(), state["identity"]
        different = [key for key in mine if mine[key] != theirs.get(key)]
        if different:
            raise TrainingError(
                f"the checkpoint {str(path)!r} belongs to another training (it differs in "
                f"{', '.join(different)}): "
                "delete it, or give another path."
            )
        self.network.load_state_dict(under("network", tensors))
        self.best = {
            name: tensor.to(self.device) for name, tensor in under("best", tensors).items()
        }
        self.teacher.module.load_state_dict(under("teacher", tensors))
        self.teacher.num_updates = state["teacher_updates"]
        load_optimizer_tensors(self.optimizer, self.parameters, under("optimizer", tensors))
        self.scaler.load_state_dict(state["scaler"])
        self.best_score, self.validation_s = state["best_score"], state["validation_s"]
        self.history = [EpochReport(**report) for report in state["history"]]
        self.epochs_done = len(self.history)


def make_optimizer(
    network: IntegralNetwork, recipe: Recipe
) -> tuple[torch.optim.Optimizer, dict[str, Tensor]]:
    """The recipe's optimizer, and its parameters by name, in its order."""
    trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    decayed = [(name, p) for name, p in trainable if p.ndim > 1]
    plain = [(name, p) for name, p in trainable if p.ndim <= 1]
    groups = [
        {"params": [p for _, p in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for _, p in plain], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        optimizer = torch.optim.SGD(
            groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov
        )
    else:
        optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=(recipe.momentum, 0.999)
        )
    return optimizer, dict([*decayed, *plain])


def _precision(
    recipe: Recipe, device: torch.device
) -> tuple[torch.autocast | None, torch.amp.GradScaler]:
    """The autocast context, and the gradient scaler that float16 needs (bfloat16 has the range of
    float32).
    """
    if device.type != "cuda" or not recipe.mixed_precision:
        return None, torch.amp.GradScaler("cpu", enabled=False)
    dtype = (
        torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    )
    return torch.autocast("cuda", dtype), torch.amp.GradScaler(
        "cuda", enabled=dtype is torch.float16
    )
