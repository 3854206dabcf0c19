"""The figures of docs/explanation/theory.md, drawn from the measurements of `theory`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from benchmarks.curves import curve_rows, width_chart
from inn_automl.reporting.charts.style import FAINT, data
from inn_automl.reporting.figures import write_png
from inn_automl.reporting.series import COLORS

ORDERS = ("as trained", "along a path")
SMALLEST = 8
"""Channels below which the errors of point samples leave the panel."""
NEGLIGIBLE = 1e-15
"""Errors of rounding alone, which show no order of convergence."""

Errors = Mapping[str, Mapping[Any, float]]
"""By name and number of points; the numbers are strings where they come from a JSON file."""


def write(found: Mapping[str, Any], ratios: Sequence[float], folder: Path) -> None:
    """Writes `theory-convergence.png`, `theory-aliasing.png` and
    `theory-accuracy-by-partition.png`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    convergence = convergence_chart(found["quadrature"], found["interpolation"])
    write_png(convergence, folder / "theory-convergence.png")
    write_png(aliasing_chart(found["aliasing"]), folder / "theory-aliasing.png")
    accuracy = accuracy_chart(found["accuracy"], ratios)
    write_png(accuracy, folder / "theory-accuracy-by-partition.png")


def convergence_chart(quadrature: Errors, interpolation: Errors) -> alt.HConcatChart:
    """Draws errors against the number of points on logarithmic axes, where an order is a slope."""
    return alt.hconcat(
        _errors_chart(quadrature, "error of an integral layer", "samples n"),
        _errors_chart(
            interpolation, "largest error of an interpolated function", "control points m"
        ),
        spacing=30,
    ).resolve_scale(color="independent")


def _errors_chart(errors: Errors, title: str, points: str) -> alt.Chart:
    rows = [
        {"name": name, "points": int(num), "error": error}
        for name, by_num in errors.items()
        for num, error in by_num.items()
        if error > NEGLIGIBLE
    ]
    ticks = [4, 8, 16, 32, 64, 128, 256]
    legend = alt.Legend(title=None, orient="bottom", columns=2, labelLimit=260)
    colors = alt.Scale(domain=list(errors), range=list(COLORS[: len(errors)]))
    domain = [min(ticks[0], *(row["points"] for row in rows)), 280]
    return (
        alt.Chart(data(rows), title=_panel_title(title))
        .mark_line(point=True, strokeWidth=1.8)
        .encode(
            alt.X("points:Q", title=points)
            .scale(type="log", domain=domain, nice=False)
            .axis(values=ticks, format="d", labelOverlap=False),
            alt.Y("error:Q", title=None, scale=alt.Scale(type="log")).axis(
                format=".0e", tickCount=8
            ),
            alt.Color("name:N", scale=colors, legend=legend),
        )
        .properties(width=400, height=300)
    )


def aliasing_chart(found: Mapping[str, Any]) -> alt.VConcatChart:
    """Draws a channel function in both orders with samples of it, and the error that a layer's
    output has at fewer samples.
    """
    functions = found["function"]
    largest = 1.1 * max(abs(value) for order in ORDERS for value in functions[order])
    panels = [_samples_chart(functions[order], order, largest) for order in ORDERS]
    return alt.vconcat(
        alt.hconcat(*panels, spacing=30), _output_error_chart(found["error"]), spacing=20
    ).resolve_scale(color="independent", strokeDash="independent")


def _samples_chart(values: Sequence[float], order: str, largest: float) -> alt.LayerChart:
    """The weights of one output by channel, and two ways to sample a quarter as many."""
    num, few = len(values), len(values) // 4
    names = [f"{num} channels", f"{few} point samples", f"{few} cell averages"]
    places = [i * (num - 1) / (few - 1) for i in range(few)]
    cells = [statistics.fmean(values[4 * i : 4 * i + 4]) for i in range(few)]
    drawn = (
        list(enumerate(values)),
        [(place, _linear(values, place)) for place in places],
        # One last time, so that the last step is as long as the others.
        [(4 * i - 0.5, cell) for i, cell in enumerate([*cells, cells[-1]])],
    )
    rows = [
        [{"name": name, "channel": channel, "weight": weight} for channel, weight in pairs]
        for name, pairs in zip(names, drawn, strict=True)
    ]
    color = alt.Color(
        "name:N",
        scale=alt.Scale(domain=names, range=[FAINT, COLORS[1], COLORS[0]]),
        legend=alt.Legend(title=None, orient="top", symbolType="stroke"),
    )
    x = alt.X("channel:Q", scale=alt.Scale(domain=[-1, num], nice=False))
    y = alt.Y("weight:Q", title=None, scale=alt.Scale(domain=[-largest, largest], nice=False))
    channels, points, averages = (alt.Chart(data(one)).encode(x, y, color) for one in rows)
    return alt.layer(
        channels.mark_line(strokeWidth=1, point=alt.OverlayMarkDef(size=12)),
        points.mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=35)),
        averages.mark_line(strokeWidth=1.8, interpolate="step-after"),
        title=_panel_title(f"weights of one output, channels {order}"),
    ).properties(width=400, height=230)


def _output_error_chart(errors: Errors) -> alt.Chart:
    """The relative error of a layer's output: a color a kind of samples, dashes an order."""
    colors = {"point samples": COLORS[1], "cell averages": COLORS[0]}
    dashes = {ORDERS[0]: [5, 3], ORDERS[1]: [1, 0]}
    kinds = {name: name.split(", ") for name in errors}
    labels = {name: f"{kind}, channels {order}" for name, (kind, order) in kinds.items()}
    rows = [
        {"label": labels[name], "samples": int(num), "error": error}
        for name, by_num in errors.items()
        for num, error in by_num.items()
        if int(num) >= SMALLEST
    ]
    domain = list(labels.values())
    legend = alt.Legend(
        title=None, orient="top-right", labelLimit=300, symbolType="stroke", symbolSize=400
    )
    color = alt.Scale(domain=domain, range=[colors[kind] for kind, _ in kinds.values()])
    dash = alt.Scale(domain=domain, range=[dashes[order] for _, order in kinds.values()])
    return (
        alt.Chart(data(rows), title=_panel_title("relative error of the layer's output"))
        .mark_line(strokeWidth=1.8, point=True)
        .encode(
            alt.X("samples:Q", title="channels n that it is sampled at")
            .scale(zero=False, nice=False, padding=12)
            .axis(tickCount=8),
            alt.Y("error:Q", title=None),
            alt.Color("label:N", scale=color, legend=legend),
            alt.StrokeDash("label:N", scale=dash, legend=legend),
        )
        .properties(width=865, height=230)
    )


def _linear(values: Sequence[float], place: float) -> float:
    left = min(int(place), len(values) - 2)
    return values[left] + (place - left) * (values[left + 1] - values[left])


def accuracy_chart(runs: Sequence[Mapping[str, Any]], ratios: Sequence[float]) -> alt.LayerChart:
    """Draws the mean over seeds, with the range of seeds as a band."""
    names, rows = list(dict.fromkeys(run["partition"] for run in runs)), []
    for name in names:
        by_seed = [run["accuracy"] for run in runs if run["partition"] == name]
        bounds = [(min(one), statistics.fmean(one), max(one)) for one in zip(*by_seed, strict=True)]
        rows += curve_rows(name, ratios, bounds)
    color = alt.Color(
        "label:N",
        scale=alt.Scale(domain=names, range=list(COLORS[: len(names)])),
        legend=alt.Legend(
            title=None,
            orient="bottom-right",
            labelLimit=400,
            symbolType="stroke",
            symbolOpacity=1,
            symbolStrokeWidth=2,
        ),
    )
    return width_chart(
        rows,
        "test accuracy (%), one network a partition",
        [color],
        scale=alt.Scale(zero=False),
        axis=alt.Axis(),
    ).properties(width=620, height=330)


def _panel_title(text: str) -> alt.TitleParams:
    return alt.TitleParams(text, fontSize=12, fontWeight="normal")
