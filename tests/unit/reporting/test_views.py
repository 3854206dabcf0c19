from __future__ import annotations

import base64
import json
import zlib

from inn_automl.reporting import views


def test_view_is_an_envelope_that_the_ui_can_open() -> None:
    envelope = json.loads(views.front_view("Fronts", "tags.a = 'b'", created_at_ms=123))
    assert (envelope["name"], envelope["createdAt"]) == ("Fronts", 123)
    kind, packed = envelope["state"].split(";", 1)
    assert kind == "deflate"
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert state["searchFilter"] == "tags.a = 'b'"
    sections = {section["uuid"]: section for section in state["compareRunSections"]}
    chart = state["compareRunCharts"][0]
    assert sections[chart["metricSectionId"]]["display"] is True
    assert (chart["metricKey"], chart["xAxisKey"], chart["selectedXAxisMetricKey"]) == (
        "front/accuracy",
        "metric",
        "front/latency_ms",
    )
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(
        state["compareRunCharts"]
    )


def test_view_fits_an_experiment_tag_and_does_not_change_by_itself() -> None:
    view = views.front_view("Fronts", "x" * 500, created_at_ms=1)
    assert len(view) < 20_000
    assert view == views.front_view("Fronts", "x" * 500, created_at_ms=1)


def test_time_of_a_view_that_somebody_else_wrote() -> None:
    assert views.created_at_ms(views.front_view("a", "b", created_at_ms=77)) == 77
    assert [views.created_at_ms(text) for text in ("", "[]", "{}", "deflate;abc")] == [0, 0, 0, 0]


def test_link_leaves_the_filter_to_the_view() -> None:
    fragment = views.charts_fragment("7", "key")
    assert fragment.startswith("/#/experiments/7/runs?workflowType=machine_learning&")
    assert "viewStateShareKey=key" in fragment
    assert "searchFilter" not in fragment
