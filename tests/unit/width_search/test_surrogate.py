from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inn_automl.width_search.space import SearchSpace
from inn_automl.width_search.surrogate import MAX_OBSERVATIONS, MetricSurrogate
from tests.unit.width_search.search_samples import GROUPS, accuracy_of

SPACE = SearchSpace(GROUPS)


def sample(num, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    points = SPACE.sample(num, rng)
    metric_value = np.array([accuracy_of(SPACE.from_key(point)) for point in points])
    return points, metric_value + noise * rng.standard_normal(num)


def transform(metric_value):
    return -np.log(1 - metric_value)


def test_it_predicts_widths_it_has_not_seen_and_knows_how_well():
    surrogate = MetricSurrogate(*sample(60, 0, noise=0.003))
    points, metric_value = sample(200, 1)
    mean, std = surrogate.predict(points)
    assert np.corrcoef(mean, transform(metric_value))[0, 1] > 0.97
    error = (mean - transform(metric_value)) / std
    assert 0.4 < np.sqrt(np.mean(error**2)) < 2.0
    near, _ = surrogate.predict(sample(60, 0)[0])
    assert std.mean() > surrogate.predict(sample(60, 0)[0])[1].mean()
    assert (
        np.abs(near - transform(sample(60, 0)[1])).mean()
        < np.abs(mean - transform(metric_value)).mean()
    )


def test_noise_is_told_from_structure():
    points, metric_value = sample(60, 0)
    clean, noisy = (
        MetricSurrogate(points, metric_value),
        MetricSurrogate(*sample(60, 0, noise=0.02)),
    )
    assert noisy.predict(points)[1].mean() > 2 * clean.predict(points)[1].mean()


def test_believing_sharpens_and_leaves_the_mean():
    points, metric_value = sample(30, 0)
    surrogate = MetricSurrogate(points, metric_value)
    others = sample(50, 1)[0]
    mean, std = surrogate.predict(others)
    surrogate.fantasize(others[:1])
    mean_after, std_after = surrogate.predict(others)
    np.testing.assert_allclose(mean_after, mean, atol=1e-6)
    assert std_after[0] < 0.8 * std[0]
    assert (std_after <= std + 1e-9).all()


@settings(max_examples=20)
@given(st.integers(1, 4), st.floats(0, 1))
def test_any_accuracies_can_be_learned_from(num, metric_value):
    points = SPACE.sample(num, np.random.default_rng(0))
    mean, std = MetricSurrogate(points, np.full(num, metric_value)).predict(points)
    assert np.isfinite(mean).all() and np.isfinite(std).all()
    np.testing.assert_allclose(-np.expm1(-mean), metric_value, atol=0.01)


def test_more_observations_than_it_keeps():
    points, metric_value = sample(MAX_OBSERVATIONS + 50, 0)
    mean, _ = MetricSurrogate(points, metric_value).predict(points)
    assert np.corrcoef(mean, transform(metric_value))[0, 1] > 0.99
