"""Recipes of training: their settings, a default for each family, and the candidates that a search
of recipes tries.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inn_automl.core.errors import SpecError, UnknownNameError
from inn_automl.core.metric import TaskKind
from inn_automl.models import get_family
from inn_automl.models.zoo import is_zoo_name

_HEAD_SAMPLES = 1_024
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "onecycle")


@dataclass(frozen=True)
class Recipe:
    """All that training depends on besides network, data and seed."""

    optimizer: str = "sgd"
    """Either "sgd" (with Nesterov momentum) or "adamw"."""
    learning_rate: float = 0.2
    """Highest learning rate of the schedule."""
    first_layer_rate: float = 1.0
    """Learning rate of the first layer as a share of that of the last; those between are
    geometric. Below 1 for pretrained networks, whose first layers know what images are made of.
    """
    head_samples: int = 0
    """Training samples that the last linear layer is fitted to before the others move; 0 for not at
    all.
    """
    weight_decay: float = 5e-4
    """Of weights; biases and normalization have none."""
    momentum: float = 0.9
    """Momentum of SGD, first beta of AdamW."""
    schedule: str = "cosine"
    """A short warm-up, then a "cosine" to zero; or "onecycle": a cosine up over 30 % of the steps,
    then down.
    """
    learning_rate_warmup_fraction: float = 0.05
    """Share of the steps that the cosine schedule warms up for."""
    label_smoothing: float = 0.0
    batch_size: int = 64
    epochs: int = 20
    epoch_samples: int | None = None
    """Training samples in an epoch; None for all. Less where not even one whole epoch fits into
    the budget; more, in whole passes, where validation after each would take too large a share.
    """
    augment: bool = True
    """Whether samples are varied at random: by `transforms`, or without any as the objective finds
    safe.
    """
    transforms: tuple[str, ...] = ()
    """Of `core.augmentation.TRANSFORMS`, what varies each image."""
    width_conditioned: bool = True
    """True if weights are functions of the width, too (`IntegralNetwork.add_width_deltas`)."""
    warmup_fraction: float = 0.5
    """Fraction of the epochs, the first ones, in which the full width learns alone; then its
    channels are put in order, and width deltas fitted to it. Saves time in classification; in
    regression the error is larger."""
    num_random_widths: int = 2
    """Random widths in each step after that, besides the full and the smallest."""
    num_width_uses: int = 4
    """Number of uses of random widths, in turn with others, before new ones are drawn. A CPU
    compiles kernels for every new shape, which took 15 to 50 % of a step when each step drew new
    widths. A network that takes zero padding (`IntegralNetwork.supports_zero_padding`) draws new
    widths in each step."""
    soft_target_label_fraction: float = 0.3
    """Share of the labels in the targets of reduced widths; the rest is the full width's output."""
    teacher_window: float = 1 / 15
    """Share of all steps over which the full width is averaged to teach the reduced widths; 0 for
    its present state.
    """
    max_gradient_norm: float | None = 5.0
    """Gradients are clipped to this norm; None for no clipping."""
    is_timed: bool = False
    """Whether warm-up and learning rate follow the share of the time that has passed, so that the
    schedule ends at the deadline; otherwise they follow the steps, and the same seed gives the same
    network.
    """
    folds: int = 0
    """Above 1: a trial is scored by cross-validation over its training and validation samples, and
    its network learns from all of them (see `training.folds`).
    """
    keeps_last: bool = False
    """Whether the last state is the result, not the one with the best score."""
    validation_samples: int | None = None
    """Validation samples that epochs are scored on, a random part; None for up to 2,000."""
    mixed_precision: bool = True
    """bfloat16 (or float16 with scaled gradients) on a GPU that has it; the CPU always computes in
    float32.
    """

    def __post_init__(self) -> None:
        for what, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise UnknownNameError(what, value, known)
        self._require("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0")
        self._require("first_layer_rate", 0 < self.first_layer_rate <= 1, "above 0, at most 1")
        self._require("folds", self.folds == 0 or self.folds >= 2, "0, or 2 or more")
        self._require("head_samples", self.head_samples >= 0, "0 or more")
        self._require("weight_decay", 0 <= self.weight_decay < math.inf, "a number from 0 up")
        self._require("momentum", 0 <= self.momentum < 1, "a number from 0 to below 1")
        self._require(
            "learning_rate_warmup_fraction",
            0 <= self.learning_rate_warmup_fraction < 1,
            "a number from 0 to below 1",
        )
        self._require(
            "label_smoothing", 0 <= self.label_smoothing < 1, "a number from 0 to below 1"
        )
        self._require("batch_size", self.batch_size >= 2, "at least 2")
        self._require("epochs", self.epochs >= 1, "at least 1")
        self._require(
            "epoch_samples",
            self.epoch_samples is None or self.epoch_samples >= 1,
            "at least 1, or None",
        )
        self._require(
            "warmup_fraction", 0 <= self.warmup_fraction < 1, "a number from 0 to below 1"
        )
        self._require("num_random_widths", self.num_random_widths >= 0, "0 or more")
        self._require("num_width_uses", self.num_width_uses >= 1, "at least 1")
        self._require(
            "soft_target_label_fraction",
            0 <= self.soft_target_label_fraction <= 1,
            "a number from 0 to 1",
        )
        self._require("teacher_window", 0 <= self.teacher_window <= 1, "a number from 0 to 1")
        self._require(
            "max_gradient_norm",
            self.max_gradient_norm is None or self.max_gradient_norm > 0,
            "above 0, or None",
        )

    def _require(self, name: str, fits: bool, allowed: str) -> None:
        if not fits:
            raise SpecError(f"recipe, {name} = {getattr(self, name)!r}: give {allowed}.")

    @property
    def num_warmup_epochs(self) -> int:
        """Epochs in which the full width learns alone."""
        return int(self.warmup_fraction * self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {**dataclasses.asdict(self), "transforms": list(self.transforms)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Reads `to_dict`'s output.

        Raises:
            UnknownNameError: a key that a recipe does not have.
            SpecError: a value that does not fit.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise UnknownNameError("key of a recipe", key, known)
        return cls(**{**values, "transforms": tuple(values.get("transforms", ()))})


@dataclass(frozen=True)
class TrialSpec:
    """A network of a family with the recipe to train it by."""

    recipe: Recipe
    width: float
    depth: int


@dataclass(frozen=True)
class RecipeSpace:
    """Settings that a search of training candidates varies around a recipe: logarithmic ranges, and
    equally likely choices.
    """

    base: Recipe
    learning_rates: tuple[float, float]
    weight_decays: tuple[float, float]
    widths: tuple[float, ...]
    depths: tuple[int, ...]

    def sample(self, rng: np.random.Generator) -> TrialSpec:
        """A random candidate."""
        recipe = dataclasses.replace(
            self.base,
            learning_rate=_log_uniform(rng, *self.learning_rates),
            weight_decay=_log_uniform(rng, *self.weight_decays),
        )
        return TrialSpec(recipe, float(rng.choice(self.widths)), int(rng.choice(self.depths)))


def default_recipe(family: str, num_train: int, task: TaskKind = "classification") -> Recipe:
    """A recipe that serves a family well without any search.

    Args:
        num_train: training samples. Small data needs small batches, because it is the number of
            steps that counts.

    Raises:
        UnknownNameError: no such family.
    """
    get_family(family)
    batch_size = 64 if num_train < 20_000 else 128
    if task == "super-resolution":
        # Every pixel is a target, so few images make a batch; without normalization SGD would need
        # a tiny rate.
        return Recipe(
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=1e-5,
            batch_size=16,
            warmup_fraction=0.0,
            soft_target_label_fraction=0.5,
        )
    if family == "vit":  # learns in more steps than convolutions do, and not from plain SGD
        return Recipe(
            optimizer="adamw",
            learning_rate=4e-3,
            weight_decay=0.05,
            learning_rate_warmup_fraction=0.1,
            batch_size=batch_size // 2,
            epochs=40,
        )
    if is_zoo_name(family):  # whatever its layers are, AdamW trains it
        return Recipe(
            optimizer="adamw",
            learning_rate=2e-3,
            weight_decay=0.05,
            learning_rate_warmup_fraction=0.1,
            label_smoothing=0.1 if task == "classification" else 0.0,
            batch_size=batch_size // 2,
            width_conditioned=False,
            warmup_fraction=0.0 if task == "regression" else 0.5,
            num_random_widths=1,
        )
    if task == "regression":
        return Recipe(batch_size=batch_size, learning_rate=0.05, warmup_fraction=0.0)
    return Recipe(batch_size=batch_size, learning_rate=0.05 if family == "mlp" else 0.2)


def pretrained_recipe(base: Recipe, num_train: int, task: TaskKind = "classification") -> Recipe:
    """The recipe of a network that starts from pretrained weights.

    The full width learns alone for most of the time, from a head that is fitted to its features.
    Without it the full width lost 10 points of accuracy in a few hundred steps, and half of the
    multiply-accumulates gained 2: no channel of a pretrained network has learned to do without the
    others, so that reduced widths take far more steps than the full one.

    Args:
        base: a recipe for the same data from nothing, whose augmentation is kept.
        num_train: training samples.
    """
    return dataclasses.replace(
        base,
        optimizer="adamw",
        learning_rate=1e-3,
        first_layer_rate=0.3,
        head_samples=min(num_train, _HEAD_SAMPLES),
        weight_decay=0.05,
        schedule="cosine",
        learning_rate_warmup_fraction=0.05,
        label_smoothing=0.1 if task == "classification" else 0.0,
        batch_size=32 if num_train < 20_000 else 64,
        width_conditioned=False,
        warmup_fraction=0.6,
        num_random_widths=1,
    )


def recipe_space(family: str, num_train: int, task: TaskKind = "classification") -> RecipeSpace:
    """The candidates worth training for a family: around its defaults, in widths and depths that
    it lists.

    Raises:
        UnknownNameError: no such family.
    """
    chosen = get_family(family)
    base = default_recipe(family, num_train, task)
    position = chosen.depths.index(chosen.default_depth)
    return RecipeSpace(
        base,
        learning_rates=(base.learning_rate / 3, base.learning_rate * 3),
        weight_decays=(base.weight_decay / 5, base.weight_decay * 5),
        widths=chosen.width_multipliers,
        depths=chosen.depths[max(0, position - 1) : position + 2],
    )


def trial_specs(
    family: str,
    num_train: int,
    num_candidates: int,
    *,
    seed: int,
    task: TaskKind = "classification",
) -> list[TrialSpec]:
    """The family's default first, then random ones from its space; the same for the same seed.

    Raises:
        UnknownNameError: no such family.
    """
    space = recipe_space(family, num_train, task)
    rng = np.random.default_rng(seed)
    default = TrialSpec(space.base, 1.0, get_family(family).default_depth)
    return [default, *(space.sample(rng) for _ in range(num_candidates - 1))][:num_candidates]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))
