"""Charts of the evidence behind a front: cost model, layers, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.reporting.charts.style import GRID, INK, data, empty_chart
from inn_automl.reporting.evidence import LayerSeries, ParitySeries
from inn_automl.reporting.series import COLORS

if TYPE_CHECKING:
    import altair as alt

    from inn_automl.reporting.charts.style import Layers


def parity_chart(series: ParitySeries) -> Layers:
    """Draws predicted against measured latency on logarithmic axes, with the line of equality."""
    import altair as alt

    title = alt.TitleParams(f"{series.device}: predicted latency", subtitle=series.summary)
    if series.range is None:
        return empty_chart(title, (380, 360), "nothing was measured")
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
            alt.Chart(data(ends))
            .mark_area(color=GRID, clip=True)
            .encode(x, alt.Y("low:Q", scale=scale), y2="high:Q"),
            alt.Chart(data(ends)).mark_line(color=INK, strokeDash=[4, 3]).encode(x, y),
            alt.Chart(data(rows), name="pairs")
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
        for name, ms, fraction in zip(series.names, series.ms, series.fractions, strict=True)
    ]
    y = alt.Y("layer:N", sort=list(series.names), title=None)
    y = y.axis(labelLimit=220, grid=False)
    x = alt.X("ms:Q", title="latency, p50 (ms)", scale=alt.Scale(domainMax=1.13 * max(series.ms)))
    base = alt.Chart(data(rows)).encode(y=y, x=x, tooltip=["layer:N", "ms:Q", "percent:N"])
    subtitle = (
        f"recommended point {series.point}; the runtime's own accounting, scaled to the "
        f"measured p50"
    )
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
        history: one mapping an epoch, with `epoch` (1-based), `train_loss` and `metric_values`
            (by name of widths; an epoch may lack some).
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
        alt.Chart(data(values))
        .mark_line(strokeWidth=2, point=point)
        .encode(epoch, alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)), color)
        .properties(title=f"validation {metric.axis}", width=330, height=240)
    )
    right = (
        alt.Chart(data(losses))
        .mark_line(strokeWidth=2, color=INK, point=point)
        .encode(epoch, alt.Y("loss:Q", title=None, scale=alt.Scale(zero=False)))
        .properties(title="training loss", width=330, height=240)
    )
    return alt.hconcat(left, right)
