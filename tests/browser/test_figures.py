"""The self-contained figure of a job, as a browser without internet draws it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from inn_automl.reporting.charts import front_chart, fronts_chart
from inn_automl.reporting.page import write_html
from inn_automl.reporting.series import front_series
from tests.unit.reporting.job_samples import make_job

pytestmark = pytest.mark.browser

NUM_POINTS = "(name) => document.querySelectorAll(`.${name}_marks path`).length"
OPACITY = """
() => Math.max(...[...document.querySelectorAll('.test_marks path')].map(
    mark => Number(getComputedStyle(mark).opacity)))
"""


def test_every_point_of_every_front_is_drawn(page: Page, tmp_path: Path) -> None:
    result, candidates, _ = make_job()
    chart = fronts_chart([front_series(d, candidates[d.name]) for d in result.devices])
    page.goto(write_html(chart, tmp_path / "fronts.html").as_uri())
    page.wait_for_selector(".front_marks path")
    num_points = sum(len(device.front) for device in result.devices)
    assert page.evaluate(NUM_POINTS, "front") == num_points
    assert page.evaluate(NUM_POINTS, "test") == num_points
    assert page.evaluate(NUM_POINTS, "recommended") == len(result.devices)
    assert page.evaluate(NUM_POINTS, "other") > 300
    assert page.locator(".bound_marks line").count() == len(result.devices)
    assert page.evaluate(OPACITY) == 0
    page.get_by_role("checkbox").check()
    page.wait_for_function(f"({OPACITY})() > 0.5")


def test_pointing_at_a_point_tells_its_evidence(page: Page, tmp_path: Path) -> None:
    result, _, _ = make_job()
    device = result.devices[0]
    page.goto(write_html(front_chart(front_series(device)), tmp_path / "front.html").as_uri())
    star = page.locator(".recommended_marks path")
    star.wait_for()
    box = star.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    chosen = next(point for point in device.front if point.id == device.recommended)
    text = tooltip.text_content() or ""
    assert chosen.id in text
    assert f"stem {chosen.widths['stem']}" in text
    assert f"{chosen.latency_ms.at_percentile:.4g} ms" in text
