"""Learning rate as a pure function of the step, so that a resumed run needs no schedule state."""

from __future__ import annotations

import math

from inn_automl.training.recipe import Recipe

ONECYCLE_RISE = 0.3
ONECYCLE_START = 0.04
"""One-cycle begins at 1/25 of the highest rate (Smith and Topin, "Super-Convergence", 2018;
torch's default too).
"""
_PARTS = 1_000_000


def learning_rate_at(recipe: Recipe, step: int, num_steps: int) -> float:
    """Learning rate of a step.

    Args:
        step: 0-based.
        num_steps: steps of the whole training.
    """
    rise = ONECYCLE_RISE if recipe.schedule == "onecycle" else recipe.learning_rate_warmup_fraction
    num_rising = round(rise * num_steps)
    if step < num_rising:
        fraction = (step + 1) / (num_rising + 1)
        if recipe.schedule == "onecycle":
            fraction = ONECYCLE_START + (1 - ONECYCLE_START) * _cosine_fall(1 - fraction)
        return recipe.learning_rate * fraction
    return recipe.learning_rate * _cosine_fall((step - num_rising) / max(1, num_steps - num_rising))


def learning_rate_after(recipe: Recipe, progress: float) -> float:
    """Learning rate at a share of the training, from 0 to 1."""
    return learning_rate_at(recipe, int(progress * _PARTS), _PARTS)


def _cosine_fall(progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
