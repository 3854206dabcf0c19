from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.latency.features import latency_features
from tests.unit.latency.costs import conv_layers

CHANNELS = st.integers(1, 300)


@given(st.lists(CHANNELS, min_size=3, max_size=3), st.lists(CHANNELS, min_size=3, max_size=3))
def test_same_features_for_all_widths(first, second):
    a, b = latency_features(conv_layers(first)), latency_features(conv_layers(second))
    assert a.shape == b.shape
    assert a.dtype == np.float64
    assert (a >= 0).all()
    assert np.isfinite(a).all()


def test_sums_follow_the_layers():
    one = len(latency_features(conv_layers([8])))
    two, three = (len(latency_features(conv_layers([8] * num))) for num in (2, 3))
    per_layer = three - two
    assert two - one == per_layer
    features = latency_features(conv_layers([24, 33, 16]))
    layers = features[: 3 * per_layer].reshape(3, per_layer)
    np.testing.assert_array_equal(features[3 * per_layer : 4 * per_layer], layers.sum(axis=0))


def test_ragged_channels_stand_out():
    """33 channels differ from 32 in kind, 36 in amount only."""
    whole, ragged, multiple = (latency_features(conv_layers([width, 32])) for width in (32, 33, 36))
    assert ((ragged > 0) & (whole == 0)).sum() > ((multiple > 0) & (whole == 0)).sum()
    assert ((whole > 0) & (ragged == 0)).any()
