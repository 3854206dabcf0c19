from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.training.recipe import SCHEDULES, Recipe
from inn_automl.training.schedule import learning_rate_at


@given(schedule=st.sampled_from(SCHEDULES), num_steps=st.integers(1, 400), warmup=st.floats(0, 0.5))
def test_rates_rise_once_then_fall_and_stay_in_bounds(
    schedule: str, num_steps: int, warmup: float
) -> None:
    recipe = Recipe(schedule=schedule, learning_rate=0.2, learning_rate_warmup_fraction=warmup)
    rates = [learning_rate_at(recipe, step, num_steps) for step in range(num_steps)]
    assert all(0 < rate <= 0.2 + 1e-12 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(0.2)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_long_training_ends_near_zero(schedule: str) -> None:
    assert learning_rate_at(Recipe(schedule=schedule, learning_rate=1.0), 999, 1000) < 1e-4


def test_one_cycle_starts_at_a_twenty_fifth() -> None:
    recipe = Recipe(schedule="onecycle", learning_rate=1.0)
    assert learning_rate_at(recipe, 0, 10_000) == pytest.approx(0.04, rel=1e-3)
    assert learning_rate_at(recipe, 3_000, 10_000) == 1.0


def test_the_cosine_is_half_down_at_half_time() -> None:
    recipe = Recipe(learning_rate=1.0, learning_rate_warmup_fraction=0.0)
    assert learning_rate_at(recipe, 500, 1000) == pytest.approx(0.5)
