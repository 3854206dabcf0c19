from __future__ import annotations

import json
from typing import Any

import pytest

from inn_automl.core.errors import SpecError, UnknownNameError
from inn_automl.core.metric import TaskKind
from inn_automl.models import FAMILIES, build
from inn_automl.training.recipe import Recipe, default_recipe, recipe_space, trial_specs


def test_a_recipe_survives_json() -> None:
    recipe = Recipe(
        optimizer="adamw", learning_rate=3e-3, max_gradient_norm=None, epoch_samples=100
    )
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_an_unknown_key_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'learning_rat'.*'learning_rate'"):
        Recipe.from_dict({"learning_rat": 0.1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", "sdg"),
        ("schedule", "cosin"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", -1.0),
        ("momentum", 1.0),
        ("learning_rate_warmup_fraction", 1.0),
        ("label_smoothing", 1.0),
        ("batch_size", 1),
        ("epochs", 0),
        ("epoch_samples", 0),
        ("num_random_widths", -1),
        ("soft_target_label_fraction", 1.5),
        ("max_gradient_norm", 0.0),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"{key}|{value}"):
        Recipe(**{key: value})


@pytest.mark.parametrize(
    ("family", "task"), [(name, task) for name, of in FAMILIES.items() for task in of.tasks]
)
def test_candidates_start_with_the_default_and_stay_in_the_space(
    family: str, task: TaskKind
) -> None:
    candidates = trial_specs(family, 4_000, 6, seed=3, task=task)
    assert candidates == trial_specs(family, 4_000, 6, seed=3, task=task)
    assert candidates != trial_specs(family, 4_000, 6, seed=4, task=task)
    first = candidates[0]
    assert (first.recipe, first.width, first.depth) == (
        default_recipe(family, 4_000, task),
        1.0,
        FAMILIES[family].default_depth,
    )
    space = recipe_space(family, 4_000, task)
    assert len(candidates) == 6
    for candidate in candidates:
        assert space.learning_rates[0] <= candidate.recipe.learning_rate <= space.learning_rates[1]
        assert space.weight_decays[0] <= candidate.recipe.weight_decay <= space.weight_decays[1]
        shape = (1, 32) if FAMILIES[family].kinds == ("signal",) else (1, 8, 8)
        scale = 2 if task == "super-resolution" else None
        build(
            family, shape, 2, width=candidate.width, depth=candidate.depth, task=task, scale=scale
        )


def test_fewer_candidates_than_one_wave_are_the_first_of_more() -> None:
    assert trial_specs("mlp", 100, 2, seed=0) == trial_specs("mlp", 100, 5, seed=0)[:2]


def test_defaults_of_an_unknown_family_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="resnet"):
        default_recipe("resnets", 100)


def test_a_transformer_is_trained_by_adamw_in_small_batches() -> None:
    recipes = [default_recipe("vit", num_train) for num_train in (4_000, 50_000)]
    assert [(one.optimizer, one.batch_size) for one in recipes] == [("adamw", 32), ("adamw", 64)]
