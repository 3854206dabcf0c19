"""The state of one training: its steps, validations and checkpoints.

All randomness of an epoch comes from (seed, epoch), so a checkpoint needs no random state: a run
that resumes takes the very steps that an uninterrupted one takes, and on the CPU ends in the same
bits. Where several processes train together (`training.distributed`), each takes its fraction of
every batch, and ends in the same state.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inn_automl.core.errors import InputError, TrainingError
from inn_automl.evaluation.candidates import reconstruction_samples, use_channels_last
from inn_automl.evaluation.validator import Validator
from inn_automl.integral.conversion.channel_ranking import rank_channels
from inn_automl.integral.conversion.reconstruction import fit_width_deltas
from inn_automl.training.batches import BatchSampler
from inn_automl.training.checkpoint import (
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    prefixed,
    save_checkpoint,
    under,
)
from inn_automl.training.distributed import broadcast_tensors, broadcast_value, rank
from inn_automl.training.head import fit_head
from inn_automl.training.pace import Pace
from inn_automl.training.recipe import Recipe
from inn_automl.training.sandwich import Widths, reused_widths
from inn_automl.training.schedule import learning_rate_after, learning_rate_at
from inn_automl.training.step import SandwichStep

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.tasks import Task

_STEPS_BETWEEN_CHECKS = 50
_SKIPPED_FRACTION = 0.05
"""Of a warm-up by the clock: what is left of it is not worth an epoch of its own."""
_FORMAT = 5
_FULL = "full"


@dataclass(frozen=True)
class EpochReport:
    """Loss, validation and time of one epoch."""

    epoch: int
    """1-based."""
    epochs: int
    """Epochs of the whole training."""
    train_loss: float
    """Mean loss of the full width."""
    metric_values: dict[str, float]
    """Validation metric values of the "smallest", "middle" and "full" widths, with recalibrated
    batch norm; during warm-up of the "full" one alone.
    """
    score: float
    """Mean of the metric values, by which the best state is chosen, among those of all three
    widths where there are any.
    """
    seconds: float
    """Wall-clock time of this epoch with its validation."""
    progress: float = 0.0
    """Share of the whole training that is done after this epoch."""

    @property
    def is_warmup(self) -> bool:
        """True if the full width learned alone."""
        return list(self.metric_values) == [_FULL]


@dataclass(eq=False)
class TrainingRun:
    """State of one training.

    Attributes:
        network: that is trained.
        seed: of order, augmentation and random widths.
        fingerprint: of the dataset.
        batches: draws training samples.
        validator: scores the network after each epoch.
        step: takes the steps.
        history: reports of the epochs so far.
        best: tensors of the best state.
        best_score: score of the best state.
        validation_s: seconds that the latest validation took.
        epochs_done: whole epochs.
        pace: the clock that the schedule follows; None where it follows the steps.
        spent_s: seconds of training before this process, by the checkpoint.
    """

    network: IntegralNetwork
    recipe: Recipe
    seed: int
    fingerprint: str
    batches: BatchSampler
    validator: Validator
    step: SandwichStep
    history: list[EpochReport] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_score: float = -math.inf
    validation_s: float = 0.0
    epochs_done: int = 0
    pace: Pace | None = None
    spent_s: float = 0.0

    @classmethod
    def from_task(
        cls, network: IntegralNetwork, task: Task, recipe: Recipe, seed: int
    ) -> TrainingRun:
        """A training before its first step.

        Args:
            network: moved to the task's device, into the memory layout that is fast there, and
                given width deltas where the recipe has them.
        """
        network.to(task.device)
        if recipe.width_conditioned:
            network.add_width_deltas()
        use_channels_last(network, task.train.standardized(slice(0, 2)))
        batches = BatchSampler.from_recipe(task.train, recipe, task.dataset.num_classes)
        num_steps = recipe.epochs * batches.steps_per_epoch
        step = SandwichStep.from_recipe(network, task.objective, recipe, num_steps)
        validator = Validator.from_task(task, recipe.validation_samples)
        return cls(network, recipe, seed, task.dataset.fingerprint, batches, validator, step)

    @property
    def device(self) -> torch.device:
        """Device of the network and of all samples."""
        return next(self.network.parameters()).device

    @property
    def validated_widths(self) -> dict[str, Widths]:
        """Widths that are scored after each epoch, by name."""
        middle = {
            group.name: group.allowed[len(group.allowed) // 2] for group in self.network.groups
        }
        return {
            "smallest": self.network.smallest_widths,
            "middle": middle,
            _FULL: self.network.full_widths,
        }

    def epoch(self, epoch: int, deadline_s: float | None) -> bool:
        """Trains and validates one epoch; whether the deadline left time for all its steps."""
        started_at = time.monotonic()
        if self.recipe.head_samples and not self.history:
            fit_head(self.network, self.batches.samples, self.recipe.head_samples)
        is_warmup = self.is_warmup(epoch)
        if not is_warmup and self.history and self.history[-1].is_warmup:
            self.prepare_reduced_widths()
            self.best_score = -math.inf  # the best state is one of those to come
        train_loss, is_whole = self.steps(epoch, self.batches.steps_per_epoch, deadline_s)
        metric_values = self.validate([_FULL] if is_warmup else None)
        score = sum(metric_values.values()) / len(metric_values)
        # Of equals the later, which has seen lower learning rates.
        if score >= self.best_score or self.recipe.keeps_last:
            self.best_score = score
            self.best = {
                name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()
            }
        seconds = time.monotonic() - started_at
        progress = epoch / self.recipe.epochs if self.pace is None else self.pace.progress(0.0)
        epochs = self.recipe.epochs
        if self.pace is not None:
            epochs = max(epoch, round(epoch / progress)) if is_whole else epoch
        self.history.append(
            EpochReport(epoch, epochs, train_loss, metric_values, score, seconds, progress)
        )
        self.epochs_done += is_whole
        return is_whole

    def steps(
        self, epoch: int, num_steps: int, deadline_s: float | None = None
    ) -> tuple[float, bool]:
        """Takes `num_steps` steps of an epoch, or those that the deadline leaves time for; an
        epoch of warm-up that follows the clock ends with the warm-up.

        Returns:
            Their mean loss, and whether the deadline left time for all.
        """
        order_seed, width_seed, torch_seed = (
            np.random.SeedSequence((self.seed, epoch)).generate_state(3).tolist()
        )
        # for dropout and the like, which differ from sample to sample
        torch.manual_seed(torch_seed + rank())
        is_warmup = self.is_warmup(epoch)
        batches = self.batches.draw(order_seed, num_steps, is_paired=not is_warmup)
        drawn = self._random_widths(width_seed)
        total = torch.zeros((), device=self.device)
        first = (epoch - 1) * self.batches.steps_per_epoch
        last = self.recipe.epochs * self.batches.steps_per_epoch
        self.network.train()
        for step in range(num_steps):
            progress = None if self.pace is None else self.pace.progress(self.validation_s)
            if self.is_over(deadline_s) if progress is None else progress >= 1:
                return float(total) / max(1, step), False
            if progress is not None and is_warmup and progress >= self.recipe.warmup_fraction:
                return float(total) / max(1, step), True
            full, narrow = next(batches)
            widths = [] if is_warmup else next(drawn)
            if progress is None:
                learning_rate = learning_rate_at(self.recipe, first + step, last)
            else:
                learning_rate = learning_rate_after(self.recipe, progress)
            total += self.step.take(full, narrow, widths, learning_rate)
            is_checked = (
                self.device.type == "cpu"
                or step % _STEPS_BETWEEN_CHECKS == 0
                or step == num_steps - 1
            )
            if is_checked and not math.isfinite(float(total)):
                raise TrainingError(
                    f"training diverged: the loss is {float(total)} in epoch {epoch} at learning "
                    f"rate {learning_rate:.3g}; give a lower learning rate, such as "
                    f"{self.recipe.learning_rate / 3:.2g}."
                )
        return float(total) / num_steps, True

    def is_warmup(self, epoch: int) -> bool:
        """Whether the full width learns alone in the epoch that comes next."""
        if self.pace is None:
            return epoch <= self.recipe.num_warmup_epochs
        warmup = self.recipe.warmup_fraction
        return self.pace.progress(self.validation_s) < warmup * (1 - _SKIPPED_FRACTION)

    def _random_widths(self, seed: int) -> Iterator[list[Widths]]:
        """The reduced widths of each step: the smallest and a few random ones."""
        num_uses = 1 if self.step.pad_channels else self.recipe.num_width_uses
        drawn = reused_widths(self.network, np.random.default_rng(seed), num_uses)
        while True:
            yield [
                self.network.smallest_widths,
                *itertools.islice(drawn, self.recipe.num_random_widths),
            ]

    def is_over(self, deadline_s: float | None) -> bool:
        """True if no time is left for another step, by the clock of the first process."""
        if deadline_s is None:
            return False
        return bool(broadcast_value(time.monotonic() + self.validation_s >= deadline_s))

    def validate(self, names: Collection[str] | None = None) -> dict[str, float]:
        """Metric values at the three validated widths, or at those of them that are named."""
        started_at = time.monotonic()
        widths = self.validated_widths
        values = self.validator.values(
            self.network, {name: widths[name] for name in names or widths}
        )
        self.validation_s = time.monotonic() - started_at
        return values

    def prepare_reduced_widths(self) -> None:
        """Prepares a network that was trained at full width alone for training at reduced widths.

        Ranks its channels, the most important first, and fits the width deltas with which the
        smallest widths are nearest to the full one; the teacher and the optimizer's state follow.
        Too few samples to rank channels on leave all as it is.
        """
        self.network.eval()
        samples = reconstruction_samples(self.validator.recalibration)
        try:
            order = rank_channels(self.network, samples)
        except InputError:
            return
        order = {name: ranked.to(self.device) for name, ranked in order.items()}
        broadcast_tensors(order.values())  # rounding may put equals into another order elsewhere
        self.step.permute(order)
        if self.recipe.width_conditioned:
            fit_width_deltas(self.network, samples)
            broadcast_tensors(delta.data for delta in self.network.width_deltas)

    def finish(self) -> None:
        """Puts the best state into the network."""
        self.batches.close()
        if self.best is not None:
            self.network.load_state_dict(self.best)
        if self.history and self.history[-1].is_warmup:
            self.prepare_reduced_widths()  # there was no time to learn them
        self.network.to(memory_format=torch.contiguous_format)
        self.network.zero_grad(set_to_none=True)
        self.network.eval()

    def identity(self) -> dict[str, Any]:
        """The description that a checkpoint must agree on to be continued."""
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
            **prefixed("teacher", self.step.teacher.module.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.step.optimizer, self.step.parameters)),
        }
        state = {
            "identity": self.identity(),
            "best_score": self.best_score,
            "teacher_updates": self.step.teacher.num_updates,
            "validation_s": self.validation_s,
            "spent_s": self.spent_s if self.pace is None else self.pace.seconds,
            "scaler": self.step.scaler.state_dict(),
            "history": [dataclasses.asdict(report) for report in self.history],
        }
        save_checkpoint(path, tensors, state)

    def restore(self, path: Path) -> None:
        """Continues from a checkpoint.

        Raises:
            TrainingError: the checkpoint belongs to another training.
            CorruptFileError, StorageError: the checkpoint cannot be read.
        """
        tensors, state = load_checkpoint(path)
        own, saved = self.identity(), state["identity"]
        different = [key for key in own if own[key] != saved.get(key)]
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
        self.step.teacher.module.load_state_dict(under("teacher", tensors))
        self.step.teacher.num_updates = state["teacher_updates"]
        load_optimizer_tensors(
            self.step.optimizer, self.step.parameters, under("optimizer", tensors)
        )
        self.step.scaler.load_state_dict(state["scaler"])
        self.best_score, self.validation_s = state["best_score"], state["validation_s"]
        self.spent_s = state["spent_s"]
        self.history = [EpochReport(**report) for report in state["history"]]
        self.epochs_done = len(self.history)
