from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from inn_automl.core.errors import CorruptFileError, MeasurementError
from inn_automl.core.result import CostModelErrors
from inn_automl.latency import cost_model
from inn_automl.latency.cost_model import CostModel, reliability_problem
from inn_automl.latency.features import latency_features
from tests.unit.latency.costs import conv_layers


def sample(num, *, noise=0.0, seed=0):
    """Features and latencies of a device that computes 16 channels at a time, and ragged ones at
    half the speed.
    """
    rng = np.random.default_rng(seed)
    features, latency_ms = [], []
    for widths in rng.integers(8, 65, size=(num, 3)):
        layers = conv_layers([int(w) for w in widths])
        time = 0.01
        for layer in layers:
            whole = math.ceil(layer.out_channels / 16) * 16 / layer.out_channels
            ragged = layer.in_channels >= 16 and layer.in_channels % 4 != 0
            time += 1e-8 * layer.macs * (2 if ragged else whole) + 2e-7 * layer.input_elements
        features.append(latency_features(layers))
        latency_ms.append(time * math.exp(noise * rng.standard_normal()))
    return np.stack(features), np.array(latency_ms)


@pytest.fixture(scope="module")
def fitted():
    features, latency_ms = sample(60, noise=0.01)
    return CostModel().fit(features[:36], latency_ms[:36])


@pytest.fixture(scope="module")
def held_out():
    features, latency_ms = sample(60, noise=0.01)
    return features[36:], latency_ms[36:]


def test_predicts_widths_that_were_not_measured(fitted, held_out):
    features, latency_ms = held_out
    predicted = fitted.predict(features)
    assert predicted.shape == (24,)
    assert np.median(np.abs(predicted / latency_ms - 1)) < 0.05
    assert spearmanr(predicted, latency_ms).statistic > 0.95


def test_reports_the_error_on_held_out_widths(fitted, held_out):
    features, latency_ms = held_out
    error = fitted.errors
    actual = np.median(np.abs(fitted.predict(features) / latency_ms - 1))
    assert 0 < error.median_relative <= error.p90_relative
    assert error.median_relative < 5 * actual
    assert error.spearman > 0.9
    assert (error.num_fitted, error.num_held_out) == (28, 36)


def test_error_is_not_that_of_a_fit_to_noise():
    """Where latency does not follow from the features at all, the error says so."""
    features, _ = sample(20)
    latency_ms = np.exp(np.random.default_rng(3).normal(0, 0.5, 20))
    error = CostModel().fit(features, latency_ms).errors
    assert error.median_relative > 0.2
    assert abs(error.spearman) < 0.6


def test_intervals_hold(fitted, held_out):
    features, latency_ms = held_out
    low, high = fitted.predict_interval(features)
    assert ((low < fitted.predict(features)) & (fitted.predict(features) < high)).all()
    assert np.mean((low <= latency_ms) & (latency_ms <= high)) >= 0.75
    assert np.mean(latency_ms <= fitted.predict(features) * fitted.margin()) >= 0.75
    assert 1 <= fitted.margin(0.5) <= fitted.margin(0.9) <= fitted.margin(0.99)


def test_round_trip():
    features, latency_ms = sample(12, noise=0.05)
    fitted = CostModel().fit(features, latency_ms)
    again = CostModel.from_json(fitted.to_json())
    np.testing.assert_array_equal(again.predict(features), fitted.predict(features))
    assert again.errors == fitted.errors
    assert again.kind == fitted.kind


@pytest.mark.parametrize("kind", cost_model._KINDS)
def test_every_kind_is_scale_free(kind):
    """The same device at a thousandth of the speed is predicted a thousand times slower."""
    features, latency_ms = sample(24)
    fit = cost_model._KINDS[kind]
    slow, fast = fit(features, 1000 * latency_ms)(features), fit(features, latency_ms)(features)
    np.testing.assert_allclose(slow, 1000 * fast, rtol=1e-4)


@settings(max_examples=3, deadline=None)
@given(st.integers(3, 8), st.integers(0, 1000))
def test_few_samples_are_enough_to_go_on(num, seed):
    features, latency_ms = sample(num, seed=seed)
    predicted = CostModel().fit(features, latency_ms)
    assert (predicted.predict(features) > 0).all()
    assert math.isfinite(predicted.errors.spearman)


def test_device_on_which_all_are_equal():
    features, _ = sample(6)
    fitted = CostModel().fit(features, np.full(6, 2.0))
    np.testing.assert_allclose(fitted.predict(features), 2.0, rtol=0.05)
    assert fitted.errors.spearman == 0.0


@pytest.mark.parametrize(
    ("features", "latency_ms", "message"),
    [
        ([[1.0]] * 2, [1.0] * 2, "from 2 measured widths: measure at least 3"),
        ([[1.0]] * 4, [1.0] * 3, r"\(4, 1\) and latencies \(3,\) do not fit"),
        ([1.0] * 4, [1.0] * 4, r"features \(4,\)"),
        ([[1.0]] * 4, [1.0, 2.0, 3.0, math.nan], "must be finite"),
        ([[1.0]] * 4, [1.0, 2.0, 3.0, 0.0], "must be finite"),
        ([[-1.0]] * 4, [1.0] * 4, "not negative"),
    ],
)
def test_samples_that_cannot_be_fitted(features, latency_ms, message):
    with pytest.raises(MeasurementError, match=message):
        CostModel().fit(features, latency_ms)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps({"features": [[1], "x"], "latency_ms": [1, 2]}), "null"]
)
def test_text_that_holds_no_samples(text):
    with pytest.raises(CorruptFileError, match="profile the device again"):
        CostModel.from_json(text)


def test_features_of_another_network(fitted):
    with pytest.raises(ValueError, match="features must be"):
        fitted.predict(np.ones((2, 3)))


def test_more_samples_are_fitted_as_the_first_were() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 5, (60, 6))
    y = x @ [1, 2, 0, 0.5, 0, 1] * np.exp(rng.normal(0, 0.02, 60))
    first = CostModel().fit(x[:30], y[:30])
    more = first.with_more(x, y)
    assert more.kind == first.kind and more.errors.num_held_out == 60
    assert np.median(np.abs(more.predict(x) / y - 1)) < 0.03
    assert (first.with_more(x, y).predict(x) == more.predict(x)).all()
    low, high = more.errors.interval
    assert 0.85 < low < 1 < high < 1.15


def test_a_cost_model_is_unreliable_for_its_error_or_its_order() -> None:
    fine = CostModelErrors(
        median_relative=0.05, p90_relative=0.1, spearman=0.95, num_fitted=28, num_held_out=36
    )
    assert reliability_problem(fine) is None
    assert "12.0%" in reliability_problem(fine.model_copy(update={"median_relative": 0.12}))
    assert "0.850" in reliability_problem(fine.model_copy(update={"spearman": 0.85}))
