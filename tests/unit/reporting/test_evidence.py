from __future__ import annotations

import re
from pathlib import Path

import pytest

from inn_automl.core.result import LayerTime
from inn_automl.reporting.charts import layers_chart, parity_chart
from inn_automl.reporting.evidence import MAX_LAYERS, OTHERS, layer_series, parity_series
from inn_automl.reporting.figures import write_png
from inn_automl.reporting.page import write_devices_page
from inn_automl.reporting.series import COLORS
from tests.unit.reporting.drawn import marks, num_pixels, rows
from tests.unit.reporting.job_samples import make_job


def test_parity_shows_what_was_held_out_and_what_was_measured_afterwards(tmp_path: Path) -> None:
    result, candidates, _ = make_job()
    device = result.devices[0]
    series = parity_series(device, candidates[device.name])
    assert series.held_out == device.cost_model_errors.held_out_ms
    assert len(series.held_out) == 36
    assert len(series.finalists) == len(device.front)
    low, high = series.range
    assert all(
        low < value < high for pair in (*series.held_out, *series.finalists) for value in pair
    )
    assert "median error 3.1 %" in series.summary
    chart = parity_chart(series)
    pairs = [(row["measured"], row["predicted"]) for row in rows(chart, "pairs")]
    assert pairs == [*series.held_out, *series.finalists]
    kinds = {row["kind"] for row in rows(chart, "pairs")}
    assert len(kinds) == 2
    assert write_png(chart, tmp_path / "parity.png").stat().st_size > 1000


def test_layers_share_the_measured_latency_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    device = make_job()[0].devices[0]
    series = layer_series(device)
    assert series.names[:2] == ("stem.0", "stem")
    point = next(point for point in device.front if point.id == device.recommended)
    assert sum(series.ms) == pytest.approx(point.latency_ms.p50)
    chart = layers_chart(series)
    assert num_pixels(write_png(chart, tmp_path / "layers.png"), COLORS[0]) > 5000
    bars, _ = marks(chart)
    assert bars["encoding"]["y"]["sort"] == list(series.names)
    assert [row["ms"] for row in bars["rows"]] == list(series.ms)


def test_of_a_deep_network_the_slowest_layers_are_named() -> None:
    device = make_job(num_candidates=20)[0].devices[0]
    layers = [LayerTime(name=f"body.{i}", fraction=(i + 1) / 5050) for i in range(100)]
    series = layer_series(device.model_copy(update={"layers": layers}))
    assert series.names == (*(str(i) for i in range(100 - MAX_LAYERS, 100)), OTHERS)
    assert sum(series.fractions) == pytest.approx(1.0)


def test_without_a_recommendation_there_are_no_layers() -> None:
    device = make_job(num_candidates=20)[0].devices[0]
    assert layer_series(device.model_copy(update={"recommended": None})) is None
    assert layer_series(device.model_copy(update={"layers": []})) is None


def test_one_page_has_all_devices_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    result, candidates, _ = make_job(num_candidates=30)
    html = write_devices_page(result, candidates, tmp_path / "devices.html").read_text(
        encoding="utf-8"
    )
    for device in result.devices:
        assert f"<h2>{device.name}</h2><p>{device.recommendation}</p>" in html
    num_charts = 3 * len(result.devices)
    assert f'<div id="chart-{num_charts - 1}">' in html
    assert f'<div id="chart-{num_charts}">' not in html
    assert not re.search(r"<(script|link)[^>]+(src|href)=", html)


def test_names_are_escaped_on_the_page(tmp_path: Path) -> None:
    result, _, _ = make_job(num_candidates=10)
    odd = result.devices[0].model_copy(update={"recommendation": "<b>a & b</b>"})
    job = result.model_copy(update={"devices": [odd]})
    html = write_devices_page(job, {}, tmp_path / "devices.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in html
    assert "<b>a" not in html
