from __future__ import annotations

from dataclasses import replace

import pytest

from inn_automl.core.result import DeviceResult
from inn_automl.reporting.series import front_series, latency_range, metric_range, short_count
from tests.unit.reporting.job_samples import make_job


@pytest.fixture(scope="module")
def device() -> DeviceResult:
    result, _, _ = make_job()
    return result.devices[0]


def test_series_runs_along_the_front_by_latency_in_percent(device: DeviceResult) -> None:
    shuffled = device.model_copy(update={"front": device.front[::-1]})
    series = front_series(shuffled)
    assert list(series.latency_ms) == sorted(
        point.latency_ms.at_percentile for point in device.front
    )
    assert series.values == tuple(100 * point.metric_value for point in series.points)
    assert series.points[series.recommended].id == device.recommended
    assert series.bound_ms == 1.2
    assert series.percentile == "p95"
    assert series.setting == "onnxruntime-cpu, 1 thread, batch 1, p95 at most 1.2 ms"


def test_other_candidates_leave_out_the_front_and_prefer_measured_latency(
    device: DeviceResult,
) -> None:
    _, candidates, _ = make_job()
    some = candidates[device.name]
    series = front_series(device, some)
    assert len(series.other_latency_ms) == len(some) - len(device.front)

    beaten = next(c for c in some if c.measured is None)
    measured = beaten.model_copy(update={"measured": device.front[0].latency_ms})
    assert front_series(device, [measured]).other_latency_ms == (
        device.front[0].latency_ms.at_percentile,
    )
    assert front_series(device, [beaten]).other_latency_ms == (beaten.predicted_latency_ms,)


def test_a_device_without_bounds_or_points_is_no_error(device: DeviceResult) -> None:
    bare = device.model_copy(update={"front": [], "recommended": None, "budget": {}})
    series = front_series(bare)
    assert (series.points, series.recommended, series.bound_ms, series.setting) == (
        (),
        None,
        None,
        "",
    )


def test_latency_axis_starts_at_zero_only_if_the_front_is_wide(device: DeviceResult) -> None:
    wide = front_series(device)
    assert latency_range([wide])[0] == 0
    narrow = replace(
        wide, latency_ms=(1.0, 1.2), latency_ci_ms=((0.95, 1.05), (1.1, 1.3)), bound_ms=None
    )
    start, end = latency_range([narrow])
    assert 0.85 < start < 0.95
    assert 1.3 < end < 1.4
    assert latency_range([replace(narrow, bound_ms=1.8)])[1] > 1.8
    assert latency_range([replace(narrow, bound_ms=5.0)]) == (start, end)


def test_axes_of_a_front_without_width_or_points(device: DeviceResult) -> None:
    one = replace(
        front_series(device), latency_ms=(2.0,), latency_ci_ms=((2.0, 2.0),), bound_ms=None
    )
    assert latency_range([one]) == (0.0, 2.12)
    empty = front_series(device.model_copy(update={"front": []}))
    assert latency_range([empty])[0] < latency_range([empty])[1]
    assert metric_range([empty]) == (0.0, 100.0)


def test_accuracy_axis_holds_test_intervals(device: DeviceResult) -> None:
    low, high = metric_range([front_series(device)])
    assert all(
        low < 100 * end < high for point in device.front for end in point.test_metric_value_ci
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (45_300, "45.3 k"), (1_234_567, "1.23 M"), (2.5e9, "2.5 G")],
)
def test_short_count(count: float, text: str) -> None:
    assert short_count(count) == text
