from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inn_automl.search.space import SearchSpace
from inn_automl.search.surrogate import MAX_OBSERVATIONS, AccuracySurrogate
from tests.unit.search.search_samples import GROUPS, accuracy_of

SPACE = SearchSpace(GROUPS)


def sample(num, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    points = SPACE.sample(num, rng)
    accuracy = np.array([accuracy_of(SPACE.from_key(point)) for point in points])
    return points, accuracy + noise * rng.standard_normal(num)


def strength(accuracy):
    return -np.log(1 - accuracy)


def test_it_predicts_widths_it_has_not_seen_and_knows_how_well():
    surrogate = AccuracySurrogate(*sample(60, 0, noise=0.003))
    points, accuracy = sample(200, 1)
    mean, std = surrogate.predict(points)
    assert np.corrcoef(mean, strength(accuracy))[0, 1] > 0.97
    error = (mean - strength(accuracy)) / std
    assert 0.4 < np.sqrt(np.mean(error**2)) < 2.0
    near, _ = surrogate.predict(sample(60, 0)[0])
    assert std.mean() > surrogate.predict(sample(60, 0)[0])[1].mean()
    assert (
        np.abs(near - strength(sample(60, 0)[1])).mean() < np.abs(mean - strength(accuracy)).mean()
    )


def test_noise_is_told_from_structure():
    points, accuracy = sample(60, 0)
    clean, noisy = (
        AccuracySurrogate(points, accuracy),
        AccuracySurrogate(*sample(60, 0, noise=0.02)),
    )
    assert noisy.predict(points)[1].mean() > 2 * clean.predict(points)[1].mean()


def test_believing_sharpens_and_leaves_the_mean():
    points, accuracy = sample(30, 0)
    surrogate = AccuracySurrogate(points, accuracy)
    others = sample(50, 1)[0]
    mean, std = surrogate.predict(others)
    surrogate.believe(others[:1])
    mean_after, std_after = surrogate.predict(others)
    np.testing.assert_allclose(mean_after, mean, atol=1e-6)
    assert std_after[0] < 0.8 * std[0]
    assert (std_after <= std + 1e-9).all()


@settings(max_examples=20)
@given(st.integers(1, 4), st.floats(0, 1))
def test_any_accuracies_can_be_learned_from(num, accuracy):
    points = SPACE.sample(num, np.random.default_rng(0))
    mean, std = AccuracySurrogate(points, np.full(num, accuracy)).predict(points)
    assert np.isfinite(mean).all() and np.isfinite(std).all()
    np.testing.assert_allclose(-np.expm1(-mean), accuracy, atol=0.01)


def test_more_observations_than_it_keeps():
    points, accuracy = sample(MAX_OBSERVATIONS + 50, 0)
    mean, _ = AccuracySurrogate(points, accuracy).predict(points)
    assert np.corrcoef(mean, strength(accuracy))[0, 1] > 0.99
