"""The layers that front charts are made of, and their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inn_automl.core.metric import Metric
from inn_automl.core.result import FrontPoint
from inn_automl.reporting.charts.style import FAINT, INK, PALE, data
from inn_automl.reporting.placement import along_steps, free_spot
from inn_automl.reporting.series import (
    FrontSeries,
    Range,
    is_tied_with_faster,
    short_count,
)

if TYPE_CHECKING:
    import altair as alt

RECOMMENDED = "#facc15"
STAR = (
    "M0,-1L0.235,-0.324L0.951,-0.309L0.38,0.124L0.588,0.809L0,0.4L-0.588,0.809L-0.38,0.124"
    "L-0.951,-0.309L-0.235,-0.324Z"
)
LABEL_WIDTH, LABEL_HEIGHT, LABEL_MARGIN = 122, 50, 16
"""Pixels of the box that names the recommended point, and of the space around it."""
MAX_TIES_SHOWN = 4
"""Other points that a tooltip names."""
MAX_WIDTHS_SHOWN = 24
"""Coupled groups that a tooltip lists: more would not fit on a screen."""


def latency_title(series: FrontSeries) -> str:
    """Title of the axis of latency."""
    return f"latency, {series.percentile} (ms)"


def front_axes(metric: Metric, title: str, latencies: Range, values: Range) -> dict[str, Any]:
    import altair as alt

    x = alt.X("latency:Q", title=title, scale=alt.Scale(domain=list(latencies), nice=False))
    x = x.axis(tickCount=8, labelOverlap=True, labelFlush=False)
    y = alt.Y("value:Q", title=metric.axis, scale=alt.Scale(domain=list(values), nice=False))
    return {"x": x, "y": y}


TOOLTIP = [
    f"{field}:N"
    for field in ("point", "latency of runs", "validation", "on the test split", "cost", "widths")
]
OTHER_TOOLTIP = "text:N"


def front_rows(series: FrontSeries, latencies: Range) -> list[dict[str, Any]]:
    """One row a front point, and a last one without an id to where the step line ends."""
    rows: list[dict[str, Any]] = []
    for index, point in enumerate(series.points):
        low, high = series.latency_ci_ms[index]
        test_low, test_high = series.test_values_ci[index]
        rows.append(
            {
                "device": series.device,
                "id": point.id,
                "latency": series.latency_ms[index],
                "latency_low": low,
                "latency_high": high,
                "value": series.values[index],
                "test": series.test_values[index],
                "test_low": test_low,
                "test_high": test_high,
                "recommended": index == series.recommended,
                "tied": is_tied_with_faster(series, index),
                "best": max(series.values[: index + 1]),
                **tooltip(point, series),
            }
        )
    if rows:
        rows.append({**rows[-1], "id": "", "latency": max(latencies[1], rows[-1]["latency"])})
    return rows


def tooltip(point: FrontPoint, series: FrontSeries) -> dict[str, str]:
    """The evidence of a point, by the titles under which a tooltip shows it."""
    latency, metric = point.latency_ms, series.metric
    low, high = (metric.number(bound) for bound in point.test_metric_value_ci)
    widths = [f"{name} {size}" for name, size in point.widths.items()][:MAX_WIDTHS_SHOWN]
    if len(point.widths) > MAX_WIDTHS_SHOWN:
        widths.append(f"and {len(point.widths) - MAX_WIDTHS_SHOWN} more groups")
    return {
        "point": f"{series.device} · {point.id}",
        "latency of runs": f"{series.percentile} {latency.at_percentile:.4g} ms "
        f"(95 % CI {latency.ci[0]:.4g} to {latency.ci[1]:.4g}); p50 {latency.p50:.4g}, "
        f"p95 {latency.p95:.4g}, p99 {latency.p99:.4g} ms, {latency.num_samples} runs",
        "validation": f"{metric.label} {metric.text(point.metric_value)}"
        + (f"; a tie with {', '.join(point.ties[:MAX_TIES_SHOWN])}" if point.ties else "")
        + (f" and {len(point.ties) - MAX_TIES_SHOWN} more" if point.ties[MAX_TIES_SHOWN:] else ""),
        "on the test split": f"{metric.label} {metric.text(point.test_metric_value)} "
        f"(95 % CI {low} to {high})",
        "cost": f"{point.precision}, {short_count(point.params)} parameters, "
        f"{short_count(point.macs)} MACs, {short_count(point.size_bytes)}B",
        "widths": ", ".join(widths),
    }


def other_rows(series: FrontSeries) -> list[dict[str, Any]]:
    metric = series.metric
    return [
        {
            "device": series.device,
            "latency": latency,
            "value": value,
            "text": f"{value:.{metric.decimals}f} {metric.unit} at {latency:.3g} ms "
            "(predicted where not measured)",
        }
        for latency, value in zip(series.other_latency_ms, series.other_values, strict=True)
    ]


def other_layer(series: FrontSeries, name: str, color: str, axes: Mapping[str, Any]) -> alt.Chart:
    import altair as alt

    rows = [{**row, "name": name} for row in other_rows(series)]
    mark = alt.Chart(data(rows), name="other").mark_circle(
        size=22, opacity=0.2, color=color, clip=True
    )
    return mark.encode(axes["x"], axes["y"], tooltip=OTHER_TOOLTIP)


def test_layers(series: FrontSeries, name: str, axes: Mapping[str, Any]) -> list[alt.Chart]:
    import altair as alt

    points = [row for row in front_rows(series, (0.0, 0.0)) if row["id"]]
    rows = [{**row, "name": name} for row in points]
    base = alt.Chart(data(rows)).encode(axes["x"])
    diamonds = alt.Chart(data(rows), name="test").mark_point(
        shape="diamond", size=48, fill="white", stroke=FAINT, strokeWidth=1.2
    )
    return [
        base.mark_rule(color="#d1d5db", clip=True).encode(
            alt.Y("test_low:Q", title=series.metric.axis), y2="test_high:Q"
        ),
        diamonds.encode(axes["x"], alt.Y("test:Q"), tooltip=TOOLTIP),
    ]


def front_layers(
    series: FrontSeries, name: str, color: str, latencies: Range, axes: Mapping[str, Any]
) -> list[alt.Chart]:
    import altair as alt

    rows = [{**row, "name": name} for row in front_rows(series, latencies)]
    points = [row for row in rows if row["id"]]
    whiskers = alt.Chart(data(points)).mark_errorbar(
        ticks={"size": 7, "color": color}, rule={"color": color, "strokeWidth": 1.3}, clip=True
    )
    return [
        alt.Chart(data(rows))
        .mark_line(interpolate="step-after", strokeWidth=2.2, color=color, clip=True)
        .encode(axes["x"], alt.Y("best:Q", title=series.metric.axis)),
        whiskers.encode(
            alt.X("latency_low:Q", title=latency_title(series)),
            axes["y"],
            x2=alt.X2("latency_high:Q", title=None),
        ),
        alt.Chart(data(points), name="front")
        .mark_point(size=60, filled=True, opacity=1, strokeWidth=1.4)
        .encode(
            axes["x"],
            axes["y"],
            fill=alt.condition("datum.tied", alt.value("white"), alt.value(color)),
            stroke=alt.condition("datum.tied", alt.value(color), alt.value("white")),
            tooltip=TOOLTIP,
        ),
    ]


def bound_layers(series: FrontSeries, latencies: Range) -> list[alt.Chart]:
    import altair as alt

    bound, (start, end) = series.bound_ms, latencies
    if bound is None:
        return []
    text, x = f"{series.percentile} ≤ {bound:g} ms", bound
    layers = []
    if bound > end:
        text, x = f"bound {bound:g} ms →", end
    else:
        drawn = data([{"bound": bound, "end": end}])
        layers.append(alt.Chart(drawn).mark_rect(color=PALE).encode(x="bound:Q", x2="end:Q"))
        layers.append(
            alt.Chart(drawn, name="bound")
            .mark_rule(color=INK, strokeDash=[4, 3], strokeWidth=1.1)
            .encode(x="bound:Q")
        )
    is_right = x > (start + end) / 2
    label = alt.Chart(data([{"x": x, "text": text}])).mark_text(
        align="right" if is_right else "left", dx=-5 if is_right else 5, dy=-7, color=INK
    )
    # Low, where there are only candidates that others beat.
    return [*layers, label.encode(x="x:Q", y=alt.value("height"), text="text:N")]


def recommended_layers(
    series: FrontSeries, color: str, latencies: Range, values: Range, size: tuple[int, int]
) -> list[alt.Chart]:
    import altair as alt

    if series.recommended is None:
        return []
    row = front_rows(series, latencies)[series.recommended]
    point = series.points[series.recommended]
    x, y = _label_position(series, latencies, values, size)
    lines = [
        "recommended",
        f"{series.metric.brief(point.metric_value)} · {row['latency']:.3g} ms",
        f"{short_count(point.params)} parameters",
    ]
    label = {"latency": row["latency"], "value": row["value"], "x": x, "y": y, "lines": lines}
    base = alt.Chart(data([{**row, **label}])).encode(alt.X("latency:Q"), alt.Y("value:Q"))
    text = alt.Chart(data([label])).encode(alt.X("x:Q"), alt.Y("y:Q"))
    star = alt.Chart(data([row]), name="recommended").mark_point(
        shape=STAR, size=230, fill=RECOMMENDED, stroke=color, strokeWidth=1.3, opacity=1
    )
    return [
        base.mark_rule(color=color).encode(x2="x:Q", y2="y:Q"),
        text.mark_rect(
            width=LABEL_WIDTH, height=LABEL_HEIGHT, fill="white", stroke=color, cornerRadius=5
        ),
        text.mark_text(color=INK, lineHeight=13, baseline="middle", dy=-13).encode(text="lines:N"),
        star.encode(alt.X("latency:Q"), alt.Y("value:Q"), tooltip=TOOLTIP),
    ]


def _label_position(
    series: FrontSeries, latencies: Range, values: Range, size: tuple[int, int]
) -> tuple[float, float]:
    """Centre of the recommended point's label, in the units of the axes."""
    (left, right), (floor, ceiling) = latencies, values

    def fractions(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
        return [
            ((x - left) / (right - left), (y - floor) / (ceiling - floor))
            for x, y in zip(xs, ys, strict=True)
        ]

    front = fractions(series.latency_ms, series.values)
    obstacles = [(*spot, 3.0) for spot in along_steps([*front, (1.0, front[-1][1])])]
    obstacles += [(*spot, 2.0) for spot in fractions(series.latency_ms, series.test_values)]
    obstacles += [(*spot, 0.3) for spot in fractions(series.other_latency_ms, series.other_values)]
    obstacles += [(step / 20, 0.03, 2.0) for step in range(21)]
    label = (
        (LABEL_WIDTH + 2 * LABEL_MARGIN) / size[0],
        (LABEL_HEIGHT + 2 * LABEL_MARGIN) / size[1],
    )
    x, y = free_spot(label, front[series.recommended or 0], obstacles)
    return left + x * (right - left), floor + y * (ceiling - floor)
