"""Chart of the classes of a model on the test split: its confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inn_automl.core.class_table import ClassTable
from inn_automl.reporting.charts.style import INK, PALE, data
from inn_automl.reporting.series import COLORS

if TYPE_CHECKING:
    import altair as alt

    from inn_automl.reporting.charts.style import Layers

MAX_COUNTS = 20
"""Classes whose cells have room for numbers."""
SIDE, LEAST_CELL = 360, 9
"""Pixels of the matrix where few classes share it, and of a cell at least."""


def confusion_chart(table: ClassTable, device: str, point: str) -> Layers:
    """Draws which classes a model takes for which: rows are classes, and their cells are shaded by
    the fraction of the row.

    Args:
        table: with a confusion matrix.
        device: that recommends the model.
        point: id of the model.
    """
    import altair as alt

    names = [one.name for one in table.classes]
    rows = [
        {
            "true": f"{i} {names[i]}",
            "predicted": f"{j} {names[j]}",
            "count": count,
            "fraction": count / max(1, sum(counts)),
            "text": str(count) if count else "",
            "share": f"{100 * count / max(1, sum(counts)):.1f} % of {names[i]}",
        }
        for i, counts in enumerate(table.confusion)
        for j, count in enumerate(counts)
    ]
    side = max(SIDE, LEAST_CELL * len(names))
    # Classes may share a name's beginning, so that cells are told by number and shown by name.
    label = alt.Axis(
        labelExpr="slice(datum.label, indexof(datum.label, ' ') + 1)",
        labelLimit=140,
        labelOverlap=False,
        grid=False,
        ticks=False,
        domain=False,
    )
    order_x = [f"{j} {name}" for j, name in enumerate(names)]
    x = alt.X("predicted:N", sort=order_x, title="predicted class").axis(label)
    y = alt.Y("true:N", sort=order_x, title="class").axis(label)
    color = alt.Color(
        "fraction:Q",
        scale=alt.Scale(domain=[0, 1], range=[PALE, COLORS[0]]),
        legend=alt.Legend(
            title="of the class", titleFontWeight="normal", format="%", gradientLength=140
        ),
    )
    base = alt.Chart(data(rows)).encode(x, y)
    tooltip = ["true:N", "predicted:N", "count:Q", "share:N"]
    layers: list[alt.Chart] = [
        base.mark_rect(stroke="white", strokeWidth=1).encode(color=color, tooltip=tooltip)
    ]
    if len(names) <= MAX_COUNTS:
        ink = alt.condition("datum.fraction > 0.5", alt.value("white"), alt.value(INK))
        layers.append(base.mark_text(fontSize=11).encode(text="text:N", color=ink))
    num = sum(one.support for one in table.classes)
    title = alt.TitleParams(
        f"{device}: classes", subtitle=f"recommended point {point}, {num} samples of the test split"
    )
    return alt.layer(*layers).properties(title=title, width=side, height=side)
