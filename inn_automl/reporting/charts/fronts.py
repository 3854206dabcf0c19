"""Charts of fronts: one device, a panel for each, all on the same axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from inn_automl.core.metric import ACCURACY
from inn_automl.reporting.charts.front_layers import (
    OTHER_TOOLTIP,
    RECOMMENDED,
    STAR,
    TOOLTIP,
    bound_layers,
    front_axes,
    front_layers,
    front_rows,
    latency_title,
    other_layer,
    other_rows,
    recommended_layers,
    test_layers,
)
from inn_automl.reporting.charts.style import FAINT, data, empty_chart
from inn_automl.reporting.series import (
    COLORS,
    FrontSeries,
    Range,
    is_tied_with_faster,
    latency_range,
    metric_range,
)

if TYPE_CHECKING:
    import altair as alt

    from inn_automl.reporting.charts.style import Layers

WIDTH, HEIGHT = 560, 330
"""Pixels of a single panel."""
RING = "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0ZM0.65,0A0.65,0.65,0,1,0,-0.65,0A0.65,0.65,0,1,0,0.65,0Z"
"""The outline of a hollow circle, whose inside is left out."""
TEST_SWITCH = "show_test"
"""Name of the checkbox that shows the test values of a chart of several devices."""


def front_chart(
    series: FrontSeries,
    color: str = COLORS[0],
    *,
    values: Range | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Layers:
    """Draws one device's front: the metric against measured latency in milliseconds.

    The step line is the best value at each latency. Whiskers are 95 % confidence intervals: of the
    latency on the front, of the test value on the hollow diamonds. Small dots are candidates that
    are not on the front.

    Args:
        series: the device.
        color: of its front.
        values: the range of the metric's axis; None for that of the series.
        size: width and height in pixels.
    """
    import altair as alt

    values = values or metric_range([series])
    title = alt.TitleParams(series.device, subtitle=series.setting)
    if not series.points:
        return empty_chart(title, size)
    latencies = latency_range([series])
    label = series.metric.label
    names = {
        "front": f"front: validation {label} (whiskers: 95 % CI of the latency)",
        "tied": "not surely better than a faster point",
        "test": f"test {label}, 95 % CI",
    }
    if series.other_values:
        names["other"] = "other candidates"
    axes = front_axes(series.metric, latency_title(series), latencies, values)
    layers = [
        *bound_layers(series, latencies),
        other_layer(series, "other candidates", color, axes),
        *test_layers(series, names["test"], axes),
        *front_layers(series, names["front"], color, latencies, axes),
        *recommended_layers(series, color, latencies, values, size),
    ]
    if not any(is_tied_with_faster(series, index) for index in range(len(series.points))):
        del names["tied"]
    layers.append(_legend_layer(names, color))
    return alt.layer(*layers).properties(title=title, width=size[0], height=size[1])


def _legend_layer(kinds: Mapping[str, str], color: str) -> alt.Chart:
    """An invisible layer that gives the marks of a front their legend."""
    import altair as alt

    known = {
        "front": (color, "circle"),
        "tied": (color, RING),
        "test": (FAINT, "diamond"),
        "other": (_tint(color), "circle"),
    }
    names = list(kinds.values())
    colors, shapes = [known[kind][0] for kind in kinds], [known[kind][1] for kind in kinds]
    legend = alt.Legend(
        orient="bottom", direction="vertical", title=None, labelLimit=420, symbolOpacity=1
    )
    keys = alt.Chart(data([{"name": name} for name in names])).mark_point(
        filled=True, size=0, opacity=0
    )
    return keys.encode(
        color=alt.Color("name:N", scale=alt.Scale(domain=names, range=colors), legend=legend),
        shape=alt.Shape("name:N", scale=alt.Scale(domain=names, range=shapes), legend=legend),
    )


def front_panels(all_series: Sequence[FrontSeries], columns: int = 3) -> alt.ConcatChart:
    """Draws a panel for each device, all with the same axis of the metric."""
    import altair as alt

    size = (WIDTH, HEIGHT) if len(all_series) == 1 else (420, 330)
    values = metric_range(all_series)
    panels = [
        front_chart(series, COLORS[index % len(COLORS)], values=values, size=size)
        for index, series in enumerate(all_series)
    ]
    return alt.concat(*panels, columns=columns, spacing=30).resolve_scale(
        color="independent", shape="independent"
    )


def fronts_chart(all_series: Sequence[FrontSeries]) -> Layers:
    """Draws all devices' fronts on the same axes.

    A click in the legend highlights a device; a checkbox shows the test values.
    """
    import altair as alt

    metric = all_series[0].metric if all_series else ACCURACY
    title = alt.TitleParams(f"{metric.label[0].upper()}{metric.label[1:]} against latency")
    if not any(series.points for series in all_series):
        return empty_chart(title, (WIDTH, HEIGHT))
    latencies, values = latency_range(all_series), metric_range(all_series)
    percentiles = sorted({series.percentile for series in all_series})
    axes = front_axes(metric, f"latency, {' / '.join(percentiles)} (ms)", latencies, values)
    shown = alt.selection_point(name="device", fields=["device"], bind="legend")
    checkbox = alt.binding_checkbox(name=f"test {metric.label} ")
    test = alt.param(name=TEST_SWITCH, bind=checkbox, value=False)
    domain = [series.device for series in all_series]
    colors = [COLORS[index % len(COLORS)] for index in range(len(domain))]
    color = alt.Color(
        "device:N",
        scale=alt.Scale(domain=domain, range=colors),
        legend=alt.Legend(orient="bottom", title=None, labelLimit=300),
    )
    opacity = alt.condition(shown, alt.value(1.0), alt.value(0.12))
    rows = [row for series in all_series for row in front_rows(series, latencies)]
    points = [row for row in rows if row["id"]]
    front = alt.Chart(data(rows)).encode(axes["x"], axes["y"], color=color, opacity=opacity)
    marks = alt.Chart(data(points)).encode(axes["x"], axes["y"], color=color, opacity=opacity)
    starred = [row for row in points if row["recommended"]]
    others = [row for series in all_series for row in other_rows(series)]
    layers = [
        alt.Chart(data(_bounds(all_series, latencies)), name="bound")
        .mark_rule(strokeDash=[4, 3], clip=True)
        .encode(x="bound:Q", color=color, opacity=opacity, tooltip="label:N"),
        alt.Chart(data(others), name="other")
        .mark_circle(size=22, opacity=0.2, clip=True)
        .encode(axes["x"], axes["y"], color=color, tooltip=OTHER_TOOLTIP),
        alt.Chart(data(points), name="test")
        .mark_point(shape="diamond", size=45, filled=False)
        .encode(
            axes["x"],
            alt.Y("test:Q"),
            color=color,
            tooltip=TOOLTIP,
            opacity=alt.condition(test, alt.value(0.8), alt.value(0.0)),
        )
        .add_params(test),
        front.mark_line(interpolate="step-after", strokeWidth=2.2).encode(alt.Y("best:Q")),
        marks.mark_rule(strokeWidth=1.3).encode(x="latency_low:Q", x2="latency_high:Q"),
        alt.Chart(data(points), name="front")
        .mark_circle(size=60, stroke="white", strokeWidth=0.8, opacity=1)
        .encode(axes["x"], axes["y"], color=color, opacity=opacity, tooltip=TOOLTIP)
        .add_params(shown),
        alt.Chart(data(starred), name="recommended")
        .mark_point(shape=STAR, size=220, fill=RECOMMENDED, strokeWidth=1.5, filled=True)
        .encode(axes["x"], axes["y"], stroke=alt.Stroke("device:N", legend=None), opacity=opacity)
        .encode(tooltip=TOOLTIP),
    ]
    return alt.layer(*layers).properties(title=title, width=2 * WIDTH - 300, height=430)


def _bounds(all_series: Sequence[FrontSeries], latencies: Range) -> list[dict[str, object]]:
    """One row a latency bound that lies on the axis."""
    return [
        {"device": s.device, "bound": s.bound_ms, "label": f"{s.device}: bound {s.bound_ms:g} ms"}
        for s in all_series
        if s.bound_ms is not None and s.bound_ms <= latencies[1]
    ]


def _tint(color: str) -> str:
    """A lighter shade of `#rrggbb`."""
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{int(255 - 0.35 * (255 - channel)):02x}" for channel in channels)
