"""Measurements that come from elsewhere: only their samples are believed."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from inn_automl.core.errors import MeasurementError
from inn_automl.latency.benchmark import LatencyMeasurement
from inn_automl.latency.config import QUICK, THOROUGH, BenchmarkConfig
from inn_automl.latency.measurement import PeakMemory, read_measurements
from inn_automl.latency.statistics import summarize

SAMPLES = {
    "small": [[[1.0, 1.1], [1.2]], [[1.05], [1.0, 1.3, 1.1]]],
    "large": [[[2.0, 2.1]], [[2.2, 2.3], []]],
    "other": [[[3.0]], [[3.5, 3.6]]],
}
MEMORY = {"small": PeakMemory(50_000_000, 60_000_000)}


def measurements() -> dict[str, LatencyMeasurement]:
    return {
        name: LatencyMeasurement(
            summary,
            SAMPLES[name],
            "" if name == "small" else "busy",
            {"cpu": "test"},
            MEMORY.get(name),
        )
        for name, summary in summarize(SAMPLES, 95.0).items()
    }


def as_json() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(
        json.dumps({name: one.to_dict() for name, one in measurements().items()})
    )
    return value


def test_measurements_survive_json() -> None:
    assert read_measurements(as_json(), 95.0) == measurements()


def test_one_measurement_is_that_of_its_samples() -> None:
    value = as_json()["small"]
    found = LatencyMeasurement.from_dict(value)
    assert found.summary == summarize({"model": SAMPLES["small"]}, 95.0)["model"]
    assert found.samples_ms == SAMPLES["small"]


def test_a_summary_from_elsewhere_is_not_believed() -> None:
    value = as_json()
    value["small"]["summary"] = {"p50": 0.001}
    assert read_measurements(value, 95.0)["small"].summary == measurements()["small"].summary
    at_median = read_measurements(value, 50.0)["small"].summary
    assert at_median.percentile == 50.0
    assert at_median.at_percentile == at_median.p50


@pytest.mark.parametrize("ms", [0, -1.0, math.nan, math.inf, True, "1.0", None, [1.0]])
def test_what_is_no_latency_is_refused(ms: object) -> None:
    value = as_json()
    value["large"]["samples_ms"][1][0][1] = ms
    with pytest.raises(MeasurementError, match="'large', process 2"):
        read_measurements(value, 95.0)


@pytest.mark.parametrize("number", [0, -1, 1.5, math.nan, True, "1", None, [1], 10**30])
@pytest.mark.parametrize("key", ["idle_bytes", "peak_bytes"])
def test_what_is_no_number_of_bytes_is_refused(key: str, number: object) -> None:
    value = as_json()
    value["small"]["memory"][key] = number
    with pytest.raises(MeasurementError, match=r"memory of model 'small'.*no number of bytes"):
        read_measurements(value, 95.0)


@pytest.mark.parametrize("memory", [1, "1", [1, 2], {"idle_bytes": 5, "peak_bytes": 5}])
def test_what_is_no_memory_is_refused(memory: object) -> None:
    value = as_json()
    value["large"]["memory"] = memory
    with pytest.raises(MeasurementError, match="memory of model 'large'"):
        read_measurements(value, 95.0)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (None, "two processes"),
        ([[[1.0]]], "two processes"),
        ([[[1.0]], [[]]], "no runs"),
        ([[[1.0]], [1.0]], "lists of"),
        ([[[1.0]], "12"], "lists of"),
        ([[[1.0]]] * 3, "2, 3 processes"),
    ],
)
def test_other_nesting_is_refused(samples: object, message: str) -> None:
    value = as_json()
    value["small"]["samples_ms"] = copy.deepcopy(samples)
    with pytest.raises(MeasurementError, match=message):
        read_measurements(value, 95.0)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("diagnostic", 1), ("environment", None), ("environment", "fast"), ("environment", [1])],
)
def test_other_types_are_refused(key: str, wrong: object) -> None:
    value = as_json()
    value["small"][key] = wrong
    with pytest.raises(MeasurementError, match=f"{key} of model 'small'"):
        read_measurements(value, 95.0)


@pytest.mark.parametrize("value", [None, [], "x", {"model": None}, {"model": []}])
def test_what_is_no_measurement_is_refused(value: object) -> None:
    with pytest.raises(MeasurementError, match="mapping"):
        read_measurements(value, 95.0)


@pytest.mark.parametrize("percentile", [None, 0, 100, "95", True, math.nan])
def test_percentile_of_a_single_measurement_is_checked(percentile: object) -> None:
    with pytest.raises(MeasurementError, match="percentile"):
        LatencyMeasurement.from_dict({**as_json()["small"], "percentile": percentile})


@pytest.mark.parametrize("config", [QUICK, THOROUGH, BenchmarkConfig(seed=3)])
def test_configs_survive_json(config: BenchmarkConfig) -> None:
    assert BenchmarkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "value",
    [
        {"min_procesess": 3},
        {"min_processes": 1},
        {"min_processes": 2.5},
        {"max_s": math.inf},
        {"block_s": -1},
        {"seed": True},
        {"min_s": "2"},
        [],
    ],
)
def test_configs_that_are_invalid_are_refused(value: object) -> None:
    with pytest.raises(MeasurementError, match="benchmark config"):
        BenchmarkConfig.from_dict(value)
