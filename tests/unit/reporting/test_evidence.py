from __future__ import annotations

import re
from pathlib import Path

import pytest

from inn_automl.core.result import LayerTime
from inn_automl.reporting.evidence import MAX_LAYERS, OTHERS, layer_series, parity_series
from inn_automl.reporting.evidence_images import FINALIST, HELD_OUT, write_layers, write_parity
from inn_automl.reporting.figures import front_figure
from inn_automl.reporting.page import layers_figure, parity_figure, write_page
from tests.unit.reporting.job_samples import make_job
from tests.unit.reporting.test_images import num_pixels


def test_parity_shows_what_was_held_out_and_what_was_measured_afterwards(tmp_path: Path) -> None:
    result, candidates, _ = make_job()
    device = result.devices[0]
    series = parity_series(device, candidates[device.name])
    assert series.held_out == device.predictor_error.held_out_ms
    assert len(series.held_out) == 36
    assert len(series.finalists) == len(device.front)
    low, high = series.range
    assert all(
        low < value < high for pair in (*series.held_out, *series.finalists) for value in pair
    )
    assert "median error 3.1 %" in series.summary
    path = write_parity(series, tmp_path / "parity.png")
    assert num_pixels(path, HELD_OUT) > 300
    assert num_pixels(path, FINALIST) > 100
    line, held_out, finalists = parity_figure(series).data
    assert line.x == line.y
    assert list(zip(held_out.x, held_out.y, strict=True)) == list(series.held_out)
    assert list(zip(finalists.x, finalists.y, strict=True)) == list(series.finalists)


def test_layers_share_the_measured_latency_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    device = make_job()[0].devices[0]
    series = layer_series(device)
    assert series.names[:2] == ("stem.0", "stem")
    point = next(point for point in device.front if point.id == device.recommended)
    assert sum(series.ms) == pytest.approx(point.latency_ms.p50)
    assert num_pixels(write_layers(series, tmp_path / "layers.png"), HELD_OUT) > 5000
    assert layers_figure(series).data[0].y == series.names


def test_of_a_deep_network_the_slowest_layers_are_named() -> None:
    device = make_job(num_candidates=20)[0].devices[0]
    layers = [LayerTime(name=f"body.{i}", share=(i + 1) / 5050) for i in range(100)]
    series = layer_series(device.model_copy(update={"layers": layers}))
    assert series.names == (*(str(i) for i in range(100 - MAX_LAYERS, 100)), OTHERS)
    assert sum(series.shares) == pytest.approx(1.0)


def test_without_a_recommendation_there_are_no_layers() -> None:
    device = make_job(num_candidates=20)[0].devices[0]
    assert layer_series(device.model_copy(update={"recommended": None})) is None
    assert layer_series(device.model_copy(update={"layers": []})) is None


def test_one_page_has_all_devices_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    result, candidates, _ = make_job(num_candidates=30)
    fronts = {device.name: front_figure(device) for device in result.devices}
    html = write_page(result, fronts, candidates, tmp_path / "devices.html").read_text(
        encoding="utf-8"
    )
    for device in result.devices:
        assert f"<h2>{device.name}</h2><p>{device.recommendation}</p>" in html
    assert html.count("Plotly.newPlot(") >= 3 * len(result.devices)
    assert not re.search(r"<(script|link)[^>]+(src|href)=", html)
    # its own title is untouched
    assert fronts[result.devices[0].name].layout.title.text.startswith("laptop-1-thread")
