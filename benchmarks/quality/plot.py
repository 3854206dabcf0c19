"""The figure of a report: test accuracy over the fraction of all channels, one panel a task, one
line an arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from benchmarks.curves import curve_rows, width_chart
from benchmarks.intervals import mean_interval
from benchmarks.quality.arms import ARMS, OURS, RATIOS
from inn_automl.reporting.charts.style import FAINT, INK
from inn_automl.reporting.figures import write_png
from inn_automl.reporting.series import COLORS

SOLID, DASHED, DOTTED = [1, 0], [6, 3], [2, 2]
# A color a kind of method, a stroke an arm.
STYLES = {
    "ours": (COLORS[0], SOLID),
    "converted": (COLORS[0], DASHED),
    "usnet": (COLORS[1], SOLID),
    "usnet-by-layer": (COLORS[1], DASHED),
    "separate": (INK, SOLID),
    "paper": (COLORS[3], DOTTED),
    "paper-x4": (COLORS[3], DASHED),
    "torchintegral": (COLORS[3], SOLID),
    "pruned": (COLORS[2], DOTTED),
    "pruned-tuned": (COLORS[2], SOLID),
    "torch-pruning": (COLORS[2], DASHED),
}
TICKS = (10, 30, 50, 70, 80, 90, 95, 97, 98, 99, 99.5)
FINE_TICKS = (60, 75, 85, 88, 92, 94, 96)
HIGHEST = 99.9
"""%; the axis is logarithmic in the fraction of errors, which has no place for 0."""

Curves = Mapping[str, Sequence[Sequence[float]]]
"""By arm and seed: test accuracy in % at each of `RATIOS`."""


def draw(by_task: Mapping[str, Curves], path: Path) -> Path:
    """Writes the PNG: means of seeds, with their 95 % intervals as bands; returns `path`."""
    found = {arm for curves in by_task.values() for arm in curves}
    encodings = arm_encodings([arm for arm in ARMS if arm in found], min(len(by_task), 3))
    panels = [task_chart(task, curves, encodings) for task, curves in by_task.items()]
    chart = alt.concat(*panels, columns=min(len(panels), 3), spacing=24)
    return write_png(chart.resolve_scale(color="shared", strokeDash="shared"), path)


def arm_encodings(arms: Sequence[str], columns: int) -> list[Any]:
    """Color, dashes and width of each arm's line, with one legend for all panels."""
    styles = [STYLES.get(arm, (FAINT, SOLID)) for arm in arms]
    legend = alt.Legend(
        title=None,
        orient="bottom",
        columns=2 * columns + 1,
        symbolType="stroke",
        symbolSize=500,
        symbolOpacity=1,
        symbolStrokeWidth=2,
    )
    colors = alt.Scale(domain=arms, range=[color for color, _ in styles])
    dashes = alt.Scale(domain=arms, range=[dash for _, dash in styles])
    return [
        alt.Color("label:N", scale=colors, legend=legend),
        alt.StrokeDash("label:N", scale=dashes, legend=legend),
        # The size of a line is its width.
        alt.SizeValue(condition={"test": f"datum.label == '{OURS}'", "value": 2.8}, value=1.5),
    ]


def task_chart(task: str, curves: Curves, encodings: Sequence[Any]) -> alt.LayerChart:
    """Draws one task; the vertical axis is logarithmic in errors."""
    rows = []
    for arm, seeds in curves.items():
        intervals = [mean_interval([seed[i] for seed in seeds]) for i in range(len(RATIOS))]
        bounds = [(_error(one.low), _error(one.mean), _error(one.high)) for one in intervals]
        rows += curve_rows(arm, RATIOS, bounds)
    # By the means: the interval of two seeds would leave no room for anything else.
    means = [row["middle"] for row in rows]
    most, least = min(100.0, 1.2 * max(means)), max(100 - HIGHEST, 0.6 * min(means))
    ticks = [tick for tick in TICKS if least <= 100 - tick <= most]
    if len(ticks) < 4:
        ticks += [tick for tick in FINE_TICKS if least <= 100 - tick <= most]
    scale = alt.Scale(type="log", domain=[least, most], reverse=True, nice=False)
    axis = alt.Axis(
        values=[100 - tick for tick in ticks],
        labelExpr="format(100 - datum.value, '~r')",
        labelOverlap=False,
    )
    chart = width_chart(rows, f"{task}: test accuracy (%)", encodings, scale=scale, axis=axis)
    return chart.properties(width=330, height=250)


def _error(accuracy: float) -> float:
    """Errors in %, with a place on a logarithmic axis."""
    return min(100.0, max(100 - HIGHEST, 100 - accuracy))
