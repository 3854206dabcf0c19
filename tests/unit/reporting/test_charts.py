from __future__ import annotations

import pytest

from inn_automl.reporting.charts import (
    front_chart,
    front_panels,
    fronts_chart,
    learning_curves_chart,
)
from inn_automl.reporting.charts.front_layers import MAX_WIDTHS_SHOWN
from inn_automl.reporting.charts.fronts import TEST_SWITCH
from inn_automl.reporting.series import front_series
from tests.unit.reporting.drawn import mark, marks, rows
from tests.unit.reporting.job_samples import make_job


def test_front_is_a_step_line_with_the_intervals_as_whiskers() -> None:
    result, candidates, _ = make_job()
    device = result.devices[0]
    chart = front_chart(front_series(device, candidates[device.name]))
    (line,) = [m for m in marks(chart) if m["mark"].get("interpolate") == "step-after"]
    points = rows(chart, "front")
    assert [row["value"] for row in line["rows"]] == [
        *(row["value"] for row in points),
        points[-1]["value"],
    ]
    for row, point in zip(points, device.front, strict=True):
        assert row["value"] == 100 * point.metric_value
        assert row["latency"] == point.latency_ms.at_percentile
        assert (row["latency_low"], row["latency_high"]) == pytest.approx(point.latency_ms.ci)
    test = rows(chart, "test")[0]
    assert test["test_low"] == pytest.approx(100 * device.front[0].test_metric_value_ci[0])
    assert len(rows(chart, "other")) == len(candidates[device.name]) - len(device.front)
    assert [row["bound"] for row in rows(chart, "bound")] == [1.2]


def test_recommended_point_is_marked_only_where_there_is_one() -> None:
    device = make_job()[0].devices[0]
    (star,) = rows(front_chart(front_series(device)), "recommended")
    chosen = next(point for point in device.front if point.id == device.recommended)
    assert star["latency"] == chosen.latency_ms.at_percentile
    assert star["value"] == 100 * chosen.metric_value
    none = front_chart(front_series(device.model_copy(update={"recommended": None})))
    assert "recommended" not in [m.get("name") for m in marks(none)]


def test_tooltip_tells_widths_costs_and_evidence() -> None:
    device = make_job()[0].devices[0]
    point = device.front[3]
    chart = front_chart(front_series(device))
    row = rows(chart, "front")[3]
    shown = [field["field"] for field in mark(chart, "front")["encoding"]["tooltip"]]
    text = "\n".join(row[field] for field in shown)
    for part in (
        point.id,
        f"stage2 {point.widths['stage2']}",
        "parameters",
        "MACs",
        "2000 runs",
        "p99",
    ):
        assert part in text
    wide = point.model_copy(
        update={"widths": {f"group{i}": i + 1 for i in range(MAX_WIDTHS_SHOWN + 5)}}
    )
    chart = front_chart(front_series(device.model_copy(update={"front": [wide]})))
    widths = rows(chart, "front")[0]["widths"]
    assert "and 5 more groups" in widths
    assert f"group{MAX_WIDTHS_SHOWN} " not in widths


def test_all_devices_share_one_chart_in_colors_of_their_own() -> None:
    result, candidates, _ = make_job()
    all_series = [front_series(d, candidates[d.name]) for d in result.devices]
    chart = fronts_chart(all_series)
    color = mark(chart, "front")["encoding"]["color"]["scale"]
    assert color["domain"] == [device.name for device in result.devices]
    assert len(set(color["range"])) == len(result.devices)
    for name, expected in (("front", [len(d.front) for d in result.devices]), ("bound", [1, 1])):
        drawn = [row["device"] for row in rows(chart, name)]
        assert [drawn.count(device.name) for device in result.devices] == expected
    (switch,) = [p for p in chart.to_dict()["params"] if p["name"] == TEST_SWITCH]
    assert switch["value"] is False


def test_panels_share_the_axis_of_the_metric() -> None:
    result, _, _ = make_job()
    chart = front_panels([front_series(device) for device in result.devices])
    domains = [
        m["encoding"]["y"]["scale"]["domain"]
        for m in marks(chart)
        if (m.get("name") or "").startswith("front")
    ]
    assert len(domains) == len(result.devices)
    assert all(domain == domains[0] for domain in domains)


def test_a_bound_far_beyond_the_front_does_not_squeeze_it() -> None:
    result, _, _ = make_job(devices={"fast": {"threads": 1, "max_latency_ms": 500.0}})
    slowest = max(point.latency_ms.ci[1] for point in result.devices[0].front)
    front = mark(front_chart(front_series(result.devices[0])), "front")
    assert front["encoding"]["x"]["scale"]["domain"][1] < 2 * slowest


def test_learning_curves_hold_every_width_and_the_loss() -> None:
    _, _, history = make_job(num_candidates=10)
    values, losses = (m["rows"] for m in marks(learning_curves_chart(history)))
    assert len(losses) == len(history)
    assert {row["width"] for row in values} == {"smallest", "middle", "full"}
    assert [row["value"] for row in values if row["width"] == "full"] == [
        100 * entry["metric_values"]["full"] for entry in history
    ]
