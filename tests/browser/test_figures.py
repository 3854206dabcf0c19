"""The self-contained figure of a job, as a browser without internet draws it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from inn_automl.reporting.figures import front_figure, fronts_figure, write_html
from tests.unit.reporting.job_samples import make_job

pytestmark = pytest.mark.browser

POINTS_BY_TRACE = """
() => Object.fromEntries([...document.querySelectorAll('.js-plotly-plot .scatterlayer .trace')].map(
    trace => [trace.__data__[0].trace.legendgroup + '/' + trace.__data__[0].trace.name,
              trace.querySelectorAll('path.point').length]))
"""


def test_every_point_of_every_front_is_drawn(page: Page, tmp_path: Path) -> None:
    result, candidates, _ = make_job()
    page.goto(write_html(fronts_figure(result, candidates), tmp_path / "fronts.html").as_uri())
    page.wait_for_selector(".js-plotly-plot .scatterlayer .trace")
    drawn = page.evaluate(POINTS_BY_TRACE)
    for device in result.devices:
        assert drawn[f"{device.name}/front (validation accuracy)"] == len(device.front)
        assert drawn[f"{device.name}/recommended"] == 1
        assert drawn[f"{device.name}/other candidates"] > 150
        assert f"{device.name}/test accuracy" not in drawn
    assert page.locator(".shapelayer path").count() == len(result.devices)
    # The legend lays its switch over the text.
    page.get_by_text("test accuracy").first.click(force=True)
    page.wait_for_function(f"Object.keys(({POINTS_BY_TRACE})()).length === {len(drawn) + 1}")


def test_pointing_at_a_point_tells_its_evidence(page: Page, tmp_path: Path) -> None:
    result, _, _ = make_job()
    device = result.devices[0]
    page.goto(write_html(front_figure(device), tmp_path / "front.html").as_uri())
    star = page.locator(".scatterlayer .trace").last.locator("path.point")
    star.wait_for()
    box = star.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = page.locator(".hoverlayer .hovertext")
    hover.wait_for()
    chosen = next(point for point in device.front if point.id == device.recommended)
    text = hover.text_content() or ""
    assert chosen.id in text
    assert f"stem {chosen.widths['stem']}" in text
    assert f"{chosen.latency_ms.at_percentile:.4g} ms" in text
