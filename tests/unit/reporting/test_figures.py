from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inn_automl.reporting.figures import (
    MAX_WIDTHS_SHOWN,
    front_figure,
    fronts_figure,
    write_figures,
    write_html,
)
from tests.unit.reporting.job_samples import make_job


def trace(figure: Any, name: str, group: str | None = None) -> Any:
    found = [t for t in figure.data if t.name == name and group in (None, t.legendgroup)]
    assert len(found) == 1
    return found[0]


def test_front_is_a_step_line_with_the_intervals_as_whiskers() -> None:
    result, candidates, _ = make_job()
    device = result.devices[0]
    figure = front_figure(device, candidates[device.name])
    line = trace(figure, "front (validation accuracy)")
    assert line.line.shape == "hv"
    assert list(line.y) == [100 * point.accuracy for point in device.front]
    for index, point in enumerate(device.front):
        latency, (low, high) = point.latency_ms.at_percentile, point.latency_ms.ci
        assert line.x[index] + line.error_x.array[index] == pytest.approx(high)
        assert line.x[index] - line.error_x.arrayminus[index] == pytest.approx(low)
        assert line.x[index] == latency
    test = trace(figure, "test accuracy")
    assert test.y[0] - test.error_y.arrayminus[0] == pytest.approx(
        100 * device.front[0].test_accuracy_ci[0]
    )
    assert len(trace(figure, "other candidates").x) == len(candidates[device.name]) - len(
        device.front
    )
    assert [shape.x0 for shape in figure.layout.shapes] == [1.2]


def test_recommended_point_is_marked_only_where_there_is_one() -> None:
    result, _, _ = make_job()
    device = result.devices[0]
    star = trace(front_figure(device), "recommended")
    chosen = next(point for point in device.front if point.id == device.recommended)
    assert (star.x, star.y) == ((chosen.latency_ms.at_percentile,), (100 * chosen.accuracy,))
    none = device.model_copy(update={"recommended": None})
    assert "recommended" not in [t.name for t in front_figure(none).data]


def test_hover_tells_widths_costs_and_evidence() -> None:
    result, _, _ = make_job()
    device = result.devices[0]
    point = device.front[3]
    text = trace(front_figure(device), "front (validation accuracy)").hovertext[3]
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
    text = front_figure(device.model_copy(update={"front": [wide]})).data[2].hovertext[0]
    assert "and 5 more groups" in text
    assert f"group{MAX_WIDTHS_SHOWN}" not in text


def test_all_devices_share_one_figure_in_colors_of_their_own() -> None:
    result, candidates, _ = make_job()
    figure = fronts_figure(result, candidates)
    lines = [trace(figure, "front (validation accuracy)", device.name) for device in result.devices]
    assert len({line.line.color for line in lines}) == len(result.devices)
    assert len(figure.layout.shapes) == len(result.devices)


def test_a_bound_far_beyond_the_front_does_not_squeeze_it() -> None:
    result, _, _ = make_job(devices={"fast": {"threads": 1, "max_latency_ms": 500.0}})
    slowest = max(point.latency_ms.ci[1] for point in result.devices[0].front)
    assert front_figure(result.devices[0]).layout.xaxis.range[1] < 2 * slowest


def test_html_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    result, _, _ = make_job()
    path = write_html(fronts_figure(result), tmp_path / "deep" / "fronts.html")
    html = path.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link)[^>]+(src|href)=", html)
    assert [p.name for p in path.parent.iterdir()] == ["fronts.html"]


def test_all_figures_of_a_job(tmp_path: Path) -> None:
    result, candidates, history = make_job(num_candidates=30, num_points=5)
    write_figures(result, tmp_path, candidates, history)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "devices.html",
        "fronts.html",
        "fronts.png",
        "learning_curves.png",
        *(
            f"laptop-1-thread/{name}"
            for name in ("front.html", "front.png", "layers.png", "parity.png")
        ),
        *(
            f"laptop-2-threads/{name}"
            for name in ("front.html", "front.png", "layers.png", "parity.png")
        ),
    }


def test_a_job_that_measured_nothing_still_has_figures(tmp_path: Path) -> None:
    result, _, _ = make_job(num_candidates=10)
    empty = [
        device.model_copy(update={"front": [], "recommended": None}) for device in result.devices
    ]
    write_figures(result.model_copy(update={"devices": empty}), tmp_path)
    assert "no candidate was measured" in (tmp_path / "fronts.html").read_text(encoding="utf-8")
    assert not (tmp_path / "learning_curves.png").exists()
