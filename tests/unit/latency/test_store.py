from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from inn_automl.core.costs import LayerCost
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.spec import DeviceBudget
from inn_automl.latency import store as store_module
from inn_automl.latency.features import latency_features
from inn_automl.latency.store import (
    CachedMeasurement,
    MachineFingerprint,
    MeasurementCache,
    cache_key,
    verify,
)

LAPTOP = DeviceBudget(name="laptop")
HERE = MachineFingerprint(cpu_model="x", runtime_version="1")


def layers(*channels, macs=10):
    return tuple(
        LayerCost(
            name=f"conv{index}",
            kind="conv",
            macs=macs * a * b,
            params=a * b,
            in_channels=a,
            out_channels=b,
            input_elements=4 * a,
            output_elements=4 * b,
        )
        for index, (a, b) in enumerate(pairwise(channels))
    )


def rows(num, latency_ms=1.0):
    return [CachedMeasurement(layers(3, 8 + i, 16), latency_ms + i / 100) for i in range(num)]


@pytest.fixture
def store(tmp_path):
    return MeasurementCache(ObjectStore(str(tmp_path / "measurement-cache")))


ARCHITECTURE = cache_key(LAPTOP, "convnet", (3, 8, 8), layers(3, 8, 16))


def test_what_is_saved_is_loaded_on_the_same_machine_only(store):
    assert not store.contains(ARCHITECTURE) and store.load(ARCHITECTURE, HERE) == []
    store.save(ARCHITECTURE, HERE, rows(5))
    elsewhere = replace(HERE, cpu_model="y")
    store.save(ARCHITECTURE, elsewhere, rows(2, 7.0))
    assert store.contains(ARCHITECTURE)
    assert store.load(ARCHITECTURE, HERE) == rows(5) and store.load(
        ARCHITECTURE, elsewhere
    ) == rows(2, 7.0)
    assert store.load(ARCHITECTURE, replace(HERE, cpu_model="z")) == []
    known = store.load(ARCHITECTURE, HERE)[3]
    assert (latency_features(known.layers) == latency_features(layers(3, 11, 16))).all()


def test_architectures_differ_by_settings_and_layers_but_not_by_channels():
    wide = cache_key(LAPTOP, "convnet", (3, 8, 8), layers(3, 64, 128))
    assert wide == ARCHITECTURE
    for other in (
        cache_key(replace_device(threads=2), "convnet", (3, 8, 8), layers(3, 8, 16)),
        cache_key(replace_device(percentile=50), "convnet", (3, 8, 8), layers(3, 8, 16)),
        cache_key(LAPTOP, "resnet", (3, 8, 8), layers(3, 8, 16)),
        cache_key(LAPTOP, "convnet", (3, 8, 8), layers(3, 8, 16, 16)),
    ):
        assert other != ARCHITECTURE


def replace_device(**settings):
    return LAPTOP.model_copy(update=settings)


def test_a_machine_is_recognized_by_what_changes_latency():
    environment = {
        "cpu_model": "x",
        "runtime_version": "1.2",
        "started_at": "now",
        "contended_fraction": 0.1,
    }
    found = MachineFingerprint.from_environment(LAPTOP, environment)
    assert found == MachineFingerprint(cpu_model="x", runtime_version="1.2")
    assert MachineFingerprint(**json.loads(json.dumps(found.to_dict()))) == found


def test_newer_rows_replace_those_of_the_same_layers(store):
    store.save(ARCHITECTURE, HERE, rows(5))
    store.save(ARCHITECTURE, HERE, rows(3, 2.0), cached=store.load(ARCHITECTURE, HERE))
    assert sorted(one.latency_ms for one in store.load(ARCHITECTURE, HERE)) == [
        1.03,
        1.04,
        2.0,
        2.01,
        2.02,
    ]
    store.save(ARCHITECTURE, HERE, rows(1, 3.0))  # the earlier ones were dropped
    assert [one.latency_ms for one in store.load(ARCHITECTURE, HERE)] == [3.0]


def test_it_stays_small_and_spread(store, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_ROWS", 10)
    monkeypatch.setattr(store_module, "MAX_MACHINES", 2)
    monkeypatch.setattr(store_module, "MAX_FILES", 3)
    store.save(ARCHITECTURE, HERE, rows(100))
    widths = [one.layers[0].out_channels for one in store.load(ARCHITECTURE, HERE)]
    assert len(widths) == 10 and min(widths) < 20 and max(widths) == 107
    assert max(np.diff(sorted(widths)) / sorted(widths)[:-1]) < 1.0
    for name in "abc":
        store.save(ARCHITECTURE, MachineFingerprint(cpu_model=name), rows(1))
    assert store.load(ARCHITECTURE, HERE) == [] and store.load(
        ARCHITECTURE, MachineFingerprint(cpu_model="c")
    )
    for depth in range(3, 10):
        store.save(cache_key(LAPTOP, "mlp", (3,), layers(*[4] * depth)), HERE, rows(1))
    assert len(store._files.files()) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"machines": [{"machine": {}, "measurements": {"rows": [[-1, []]]}}]}',
        '{"machines": 3}',
    ],
)
def test_a_file_that_cannot_be_understood_counts_as_missing(store, text):
    store.save(ARCHITECTURE, HERE, rows(5))
    (name,) = store._files.files()
    store._files.write(name, text.encode())
    assert store.load(ARCHITECTURE, HERE) == []
    store.save(ARCHITECTURE, HERE, rows(5))
    assert json.loads(store._files.read(name))["key"]["model"] == "convnet"


def test_fresh_measurements_confirm_rescale_or_drop():
    predicted = np.linspace(1, 3, 8)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.02, 8))
    same, slower = verify(predicted * noise, predicted), verify(1.3 * predicted * noise, predicted)
    assert same.scale == 1.0 and "are used (" in same.sentence
    assert slower.scale == pytest.approx(1.3, abs=0.03) and "rescaled" in slower.sentence
    assert "1.3" in slower.sentence
    for fresh in (3 * predicted, predicted[::-1], predicted / 3):
        dropped = verify(fresh, predicted)
        assert dropped.scale is None and "dropped" in dropped.sentence


def test_known_rows_are_values():
    one = CachedMeasurement(layers(3, 8), 1.0)
    assert replace(one, latency_ms=2.0).layers is one.layers
