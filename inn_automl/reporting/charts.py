"""Charts of a job as Vega-Lite specifications: fronts, cost model, layers, learning curves.

One chart serves twice: `inn_automl.reporting.figures` writes it as PNG and as an interactive page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.core.result import FrontPoint
from inn_automl.reporting.evidence import LayerSeries, ParitySeries
from inn_automl.reporting.placement import along_steps, free_spot
from inn_automl.reporting.series import (
    COLORS,
    FrontSeries,
    Range,
    latency_range,
    metric_range,
    short_count,
)

if TYPE_CHECKING:
    import altair as alt

    Layers = alt.LayerChart | alt.FacetChart

INK, FAINT, GRID, PALE = "#1f2937", "#6b7280", "#e5e7eb", "#f3f4f6"
RECOMMENDED = "#facc15"
STAR = (
    "M0,-1L0.235,-0.324L0.951,-0.309L0.38,0.124L0.588,0.809L0,0.4L-0.588,0.809L-0.38,0.124"
    "L-0.951,-0.309L-0.235,-0.324Z"
)
LABEL_SIZE = (0.34, 0.2)
"""Size of the recommended point's label with its margin, as fractions of a panel."""
MAX_WIDTHS_SHOWN = 24
"""Coupled groups that a tooltip lists: more would not fit on a screen."""
WIDTH, HEIGHT = 560, 330
"""Pixels of a single panel."""
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
        return _empty_chart(title, size)
    latencies = latency_range([series])
    label = series.metric.label
    names = {
        "front": f"front: validation {label} (whiskers: 95 % CI of the latency)",
        "test": f"test {label}, 95 % CI",
        "other": "other candidates",
    }
    axes = _front_axes(series.metric, f"latency, {series.percentile} (ms)", latencies, values)
    layers = [
        *_bound_layers(series, latencies),
        _other_layer(series, names["other"], color, axes),
        *_test_layers(series, names["test"], axes),
        *_front_layers(series, names["front"], color, latencies, axes),
        *_recommended_layers(series, color, latencies, values),
    ]
    scale = alt.Scale(domain=list(names.values()), range=[color, "#9ca3af", _tint(color)])
    legend = alt.Legend(
        orient="bottom", direction="vertical", title=None, labelLimit=420, symbolOpacity=1
    )
    keys = alt.Chart(_data([{"name": name} for name in names.values()])).mark_point(
        filled=True, size=0, opacity=0
    )
    layers.append(keys.encode(color=alt.Color("name:N", scale=scale, legend=legend)))
    return alt.layer(*layers).properties(title=title, width=size[0], height=size[1])


def front_panels(all_series: Sequence[FrontSeries], columns: int = 3) -> alt.ConcatChart:
    """Draws a panel for each device, all with the same axis of the metric."""
    import altair as alt

    size = (WIDTH, HEIGHT) if len(all_series) == 1 else (420, 330)
    values = metric_range(all_series)
    panels = [
        front_chart(series, COLORS[index % len(COLORS)], values=values, size=size)
        for index, series in enumerate(all_series)
    ]
    return alt.concat(*panels, columns=columns, spacing=30).resolve_scale(color="independent")


def fronts_chart(all_series: Sequence[FrontSeries]) -> Layers:
    """Draws all devices' fronts on the same axes.

    A click in the legend highlights a device; a checkbox shows the test values.
    """
    import altair as alt

    metric = all_series[0].metric if all_series else ACCURACY
    title = alt.TitleParams(f"{metric.label[0].upper()}{metric.label[1:]} against latency")
    if not any(series.points for series in all_series):
        return _empty_chart(title, (WIDTH, HEIGHT))
    latencies, values = latency_range(all_series), metric_range(all_series)
    percentiles = sorted({series.percentile for series in all_series})
    axes = _front_axes(metric, f"latency, {' / '.join(percentiles)} (ms)", latencies, values)
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
    rows = [row for series in all_series for row in _front_rows(series, latencies)]
    points = [row for row in rows if row["id"]]
    front = alt.Chart(_data(rows)).encode(axes["x"], axes["y"], color=color, opacity=opacity)
    marks = alt.Chart(_data(points)).encode(axes["x"], axes["y"], color=color, opacity=opacity)
    starred = [row for row in points if row["recommended"]]
    others = [row for series in all_series for row in _other_rows(series)]
    bounds = [
        {"device": s.device, "bound": s.bound_ms, "label": f"{s.device}: bound {s.bound_ms:g} ms"}
        for s in all_series
        if s.bound_ms is not None and s.bound_ms <= latencies[1]
    ]
    layers = [
        alt.Chart(_data(bounds), name="bound")
        .mark_rule(strokeDash=[4, 3], clip=True)
        .encode(x="bound:Q", color=color, opacity=opacity, tooltip="label:N"),
        alt.Chart(_data(others), name="other")
        .mark_circle(size=22, opacity=0.2, clip=True)
        .encode(axes["x"], axes["y"], color=color, tooltip=_OTHER_TOOLTIP),
        alt.Chart(_data(points), name="test")
        .mark_point(shape="diamond", size=45, filled=False)
        .encode(
            axes["x"],
            alt.Y("test:Q"),
            color=color,
            tooltip=_TOOLTIP,
            opacity=alt.condition(test, alt.value(0.8), alt.value(0.0)),
        )
        .add_params(test),
        front.mark_line(interpolate="step-after", strokeWidth=2.2),
        marks.mark_rule(strokeWidth=1.3).encode(x="latency_low:Q", x2="latency_high:Q"),
        alt.Chart(_data(points), name="front")
        .mark_circle(size=60, stroke="white", strokeWidth=0.8, opacity=1)
        .encode(axes["x"], axes["y"], color=color, opacity=opacity, tooltip=_TOOLTIP)
        .add_params(shown),
        alt.Chart(_data(starred), name="recommended")
        .mark_point(shape=STAR, size=220, fill=RECOMMENDED, strokeWidth=1.5, filled=True)
        .encode(axes["x"], axes["y"], stroke=alt.Stroke("device:N", legend=None), opacity=opacity)
        .encode(tooltip=_TOOLTIP),
    ]
    return alt.layer(*layers).properties(title=title, width=2 * WIDTH - 300, height=430)


def parity_chart(series: ParitySeries) -> Layers:
    """Draws predicted against measured latency, both axes logarithmic, with the line of equality."""
    import altair as alt

    title = alt.TitleParams(f"{series.device}: predicted latency", subtitle=series.summary)
    if series.range is None:
        return _empty_chart(title, (380, 360), "nothing was measured")
    low, high = series.range
    within = 1 + series.median_relative
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    axis: dict[str, Any] = {
        "axis": alt.Axis(format="~g", tickCount=6, labelOverlap=True),
        "scale": scale,
    }
    x = alt.X("measured:Q", title=f"measured latency, {series.percentile} (ms)", **axis)
    y = alt.Y("predicted:Q", title=f"predicted latency, {series.percentile} (ms)", **axis)
    ends = [
        {"measured": end, "predicted": end, "low": end / within, "high": end * within}
        for end in (low, high)
    ]
    kinds = {"held-out widths of the initial design": series.held_out}
    kinds["finalists of the search"] = series.finalists
    rows = [
        {"kind": kind, "measured": measured, "predicted": predicted}
        for kind, pairs in kinds.items()
        for measured, predicted in pairs
    ]
    scale_of_kinds = alt.Scale(domain=list(kinds), range=list(COLORS[:2]))
    legend = alt.Legend(orient="bottom", title=None, direction="vertical", labelLimit=300)
    return (
        alt.layer(
            alt.Chart(_data(ends))
            .mark_area(color=GRID, clip=True)
            .encode(x, alt.Y("low:Q", scale=scale), y2="high:Q"),
            alt.Chart(_data(ends)).mark_line(color=INK, strokeDash=[4, 3]).encode(x, y),
            alt.Chart(_data(rows), name="pairs")
            .mark_circle(size=45, opacity=0.9, stroke="white", strokeWidth=0.6)
            .encode(
                x,
                y,
                color=alt.Color("kind:N", scale=scale_of_kinds, legend=legend),
                tooltip=[
                    "kind:N",
                    alt.Tooltip("measured:Q", format=".4g", title="measured (ms)"),
                    alt.Tooltip("predicted:Q", format=".4g", title="predicted (ms)"),
                ],
            ),
        )
        .properties(title=title, width=380, height=360)
        .resolve_scale(color="independent")
    )


def layers_chart(series: LayerSeries) -> Layers:
    """Draws the latency of each layer of the recommended model in milliseconds, first on top."""
    import altair as alt

    rows = [
        {"layer": name, "ms": ms, "percent": f"{100 * fraction:.1f} %"}
        for name, ms, fraction in zip(series.names, series.ms, series.shares, strict=True)
    ]
    y = alt.Y("layer:N", sort=list(series.names), title=None)
    y = y.axis(labelLimit=220, grid=False)
    x = alt.X("ms:Q", title="latency, p50 (ms)", scale=alt.Scale(domainMax=1.13 * max(series.ms)))
    base = alt.Chart(_data(rows)).encode(y=y, x=x, tooltip=["layer:N", "ms:Q", "percent:N"])
    subtitle = f"recommended point {series.point}; the runtime's own accounting, scaled to the measured p50"
    return alt.layer(
        base.mark_bar(color=COLORS[0]),
        base.mark_text(align="left", dx=4, color=INK).encode(text="percent:N"),
    ).properties(
        title=alt.TitleParams(f"{series.device}: latency by layer", subtitle=subtitle),
        width=420,
        height={"step": 19},
    )


def learning_curves_chart(
    history: Sequence[Mapping[str, Any]], metric: Metric = ACCURACY
) -> alt.HConcatChart:
    """Draws the validation metric of each width and the training loss by epoch.

    Args:
        history: one mapping an epoch, with `epoch` (1-based), `train_loss` and `metric_values` (by
            name of widths; an epoch may lack some).
        metric: of the values under `metric_values`.
    """
    import altair as alt

    names = list(history[-1]["metric_values"]) if history else []
    values = [
        {"epoch": entry["epoch"], "width": name, "value": metric.shown(value)}
        for entry in history
        for name, value in entry["metric_values"].items()
    ]
    last = {name: metric.shown(history[-1]["metric_values"][name]) for name in names}
    labels = [f"{name} {value:.1f}" for name, value in last.items()]
    for row in values:
        row["label"] = labels[names.index(row["width"])] if row["width"] in names else row["width"]
    losses = [{"epoch": entry["epoch"], "loss": entry["train_loss"]} for entry in history]
    epoch = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d"))
    epoch = epoch.scale(zero=False, nice=False)
    color = alt.Color(
        "label:N",
        scale=alt.Scale(domain=labels, range=list(COLORS[: len(labels)])),
        legend=alt.Legend(title=None, orient="right", symbolType="stroke"),
    )
    point = {"filled": True, "size": 30} if len(history) == 1 else False
    left = (
        alt.Chart(_data(values))
        .mark_line(strokeWidth=2, point=point)
        .encode(epoch, alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)), color)
        .properties(title=f"validation {metric.axis}", width=330, height=240)
    )
    right = (
        alt.Chart(_data(losses))
        .mark_line(strokeWidth=2, color=INK, point=point)
        .encode(epoch, alt.Y("loss:Q", title=None, scale=alt.Scale(zero=False)))
        .properties(title="training loss", width=330, height=240)
    )
    return alt.hconcat(left, right)


def styled(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """The chart with the fonts, grids and colors that all charts share."""
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    return (
        chart.configure(font=font, background="white", padding=12)
        .configure_view(stroke=None)
        .configure_axis(
            gridColor=GRID,
            domainColor="#9ca3af",
            tickColor="#9ca3af",
            labelColor=FAINT,
            titleColor=INK,
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=12,
        )
        .configure_title(
            anchor="start",
            color=INK,
            fontSize=15,
            subtitleColor=FAINT,
            subtitleFontSize=11,
            offset=10,
        )
        .configure_legend(labelColor=INK, labelFontSize=11)
    )


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    import altair as alt

    return alt.InlineData(values=list(rows))


def _empty_chart(
    title: alt.TitleParams, size: tuple[int, int], text: str = "no candidate was measured"
) -> Layers:
    import altair as alt

    label = alt.Chart(_data([{"text": text}])).mark_text(fontSize=15, color=FAINT)
    return alt.layer(label.encode(text="text:N")).properties(
        title=title, width=size[0], height=size[1]
    )


def _front_axes(metric: Metric, title: str, latencies: Range, values: Range) -> dict[str, Any]:
    import altair as alt

    x = alt.X("latency:Q", title=title, scale=alt.Scale(domain=list(latencies), nice=False))
    y = alt.Y("value:Q", title=metric.axis, scale=alt.Scale(domain=list(values), nice=False))
    return {"x": x, "y": y}


_TOOLTIP = [
    f"{field}:N"
    for field in ("point", "latency of runs", "validation", "on the test split", "cost", "widths")
]
_OTHER_TOOLTIP = "text:N"


def _front_rows(series: FrontSeries, latencies: Range) -> list[dict[str, Any]]:
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
        "validation": f"{metric.label} {metric.text(point.metric_value)}",
        "on the test split": f"{metric.label} {metric.text(point.test_metric_value)} "
        f"(95 % CI {low} to {high})",
        "cost": f"{point.precision}, {short_count(point.params)} parameters, "
        f"{short_count(point.macs)} MACs, {short_count(point.size_bytes)}B",
        "widths": ", ".join(widths),
    }


def _other_rows(series: FrontSeries) -> list[dict[str, Any]]:
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


def _other_layer(series: FrontSeries, name: str, color: str, axes: Mapping[str, Any]) -> alt.Chart:
    import altair as alt

    rows = [{**row, "name": name} for row in _other_rows(series)]
    mark = alt.Chart(_data(rows), name="other").mark_circle(
        size=22, opacity=0.2, color=color, clip=True
    )
    return mark.encode(axes["x"], axes["y"], tooltip=_OTHER_TOOLTIP)


def _test_layers(series: FrontSeries, name: str, axes: Mapping[str, Any]) -> list[alt.Chart]:
    import altair as alt

    points = [row for row in _front_rows(series, (0.0, 0.0)) if row["id"]]
    rows = [{**row, "name": name} for row in points]
    base = alt.Chart(_data(rows)).encode(axes["x"])
    diamonds = alt.Chart(_data(rows), name="test").mark_point(
        shape="diamond", size=32, fill="white", stroke=FAINT, strokeWidth=0.9
    )
    return [
        base.mark_rule(color="#d1d5db", clip=True).encode(
            alt.Y("test_low:Q", title=series.metric.axis), y2="test_high:Q"
        ),
        diamonds.encode(axes["x"], alt.Y("test:Q"), tooltip=_TOOLTIP),
    ]


def _front_layers(
    series: FrontSeries, name: str, color: str, latencies: Range, axes: Mapping[str, Any]
) -> list[alt.Chart]:
    import altair as alt

    rows = [{**row, "name": name} for row in _front_rows(series, latencies)]
    points = [row for row in rows if row["id"]]
    whiskers = alt.Chart(_data(points)).mark_rule(strokeWidth=1.3, color=color, clip=True)
    return [
        alt.Chart(_data(rows))
        .mark_line(interpolate="step-after", strokeWidth=2.2, color=color, clip=True)
        .encode(axes["x"], axes["y"]),
        whiskers.encode(alt.X("latency_low:Q"), axes["y"], x2="latency_high:Q"),
        alt.Chart(_data(points), name="front")
        .mark_circle(size=60, color=color, opacity=1, stroke="white", strokeWidth=0.8)
        .encode(axes["x"], axes["y"], tooltip=_TOOLTIP),
    ]


def _bound_layers(series: FrontSeries, latencies: Range) -> list[alt.Chart]:
    import altair as alt

    bound, (start, end) = series.bound_ms, latencies
    if bound is None:
        return []
    text, x = f"{series.percentile} ≤ {bound:g} ms", bound
    layers = []
    if bound > end:
        text, x = f"bound {bound:g} ms →", end
    else:
        data = _data([{"bound": bound, "end": end}])
        layers.append(alt.Chart(data).mark_rect(color=PALE).encode(x="bound:Q", x2="end:Q"))
        layers.append(
            alt.Chart(data, name="bound")
            .mark_rule(color=INK, strokeDash=[4, 3], strokeWidth=1.1)
            .encode(x="bound:Q")
        )
    is_right = x > (start + end) / 2
    label = alt.Chart(_data([{"x": x, "text": text}])).mark_text(
        align="right" if is_right else "left", dx=-5 if is_right else 5, dy=-7, color=INK
    )
    # Low, where there are only candidates that others beat.
    return [*layers, label.encode(x="x:Q", y=alt.value("height"), text="text:N")]


def _recommended_layers(
    series: FrontSeries, color: str, latencies: Range, values: Range
) -> list[alt.Chart]:
    import altair as alt

    if series.recommended is None:
        return []
    row = _front_rows(series, latencies)[series.recommended]
    point = series.points[series.recommended]
    x, y = _label_position(series, latencies, values)
    lines = [
        "recommended",
        f"{series.metric.brief(point.metric_value)} · {row['latency']:.3g} ms",
        f"{short_count(point.params)} parameters",
    ]
    label = {"latency": row["latency"], "value": row["value"], "x": x, "y": y, "lines": lines}
    base = alt.Chart(_data([{**row, **label}])).encode(alt.X("latency:Q"), alt.Y("value:Q"))
    text = alt.Chart(_data([label])).encode(alt.X("x:Q"), alt.Y("y:Q"))
    star = alt.Chart(_data([row]), name="recommended").mark_point(
        shape=STAR, size=230, fill=RECOMMENDED, stroke=color, strokeWidth=1.3, opacity=1
    )
    return [
        base.mark_rule(color=color).encode(x2="x:Q", y2="y:Q"),
        text.mark_rect(width=118, height=48, fill="white", stroke=color, cornerRadius=5),
        text.mark_text(color=INK, lineHeight=13, baseline="middle", dy=-13).encode(text="lines:N"),
        star.encode(alt.X("latency:Q"), alt.Y("value:Q"), tooltip=_TOOLTIP),
    ]


def _label_position(series: FrontSeries, latencies: Range, values: Range) -> tuple[float, float]:
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
    x, y = free_spot(LABEL_SIZE, front[series.recommended or 0], obstacles)
    return left + x * (right - left), floor + y * (ceiling - floor)


def _tint(color: str) -> str:
    """A lighter shade of `#rrggbb`."""
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{int(255 - 0.35 * (255 - channel)):02x}" for channel in channels)
