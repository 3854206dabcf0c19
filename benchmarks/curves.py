"""Accuracy over the fraction of all channels: lines with bands, as several benchmarks draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from inn_automl.reporting.charts.style import data

BAND_OPACITY = 0.12
MARGIN = 0.03
"""Of the horizontal axis, on either side of the ratios."""


def curve_rows(
    label: str, ratios: Sequence[float], bounds: Sequence[tuple[float, float, float]]
) -> list[dict[str, Any]]:
    """The rows of one line with its band.

    Args:
        label: of the line, in the legend.
        ratios: fractions of all channels.
        bounds: low, middle and high at each ratio.
    """
    return [
        {"label": label, "ratio": ratio, "low": low, "middle": middle, "high": high}
        for ratio, (low, middle, high) in zip(ratios, bounds, strict=True)
    ]


def width_chart(
    rows: Sequence[dict[str, Any]],
    title: str,
    encodings: Sequence[Any],
    *,
    scale: alt.Scale,
    axis: alt.Axis,
) -> alt.LayerChart:
    """Draws lines, their points and their bands.

    Args:
        rows: of all lines, see `curve_rows`.
        title: of the panel.
        encodings: what tells lines apart, by the field `label`; the first one is the color.
        scale: of the vertical axis.
        axis: the vertical one.
    """
    ratios = sorted({row["ratio"] for row in rows})
    x = alt.X("ratio:Q", title="fraction of all channels")
    x = x.scale(domain=[min(ratios) - MARGIN, max(ratios) + MARGIN], nice=False)
    x = x.axis(values=ratios, labelExpr="datum.value", labelOverlap=False)
    y = alt.Y("middle:Q", title=None, scale=scale, axis=axis)
    base = alt.Chart(data(rows))
    band = base.mark_area(opacity=BAND_OPACITY, clip=True)
    return alt.layer(
        band.encode(x, alt.Y("low:Q", scale=scale, axis=axis), alt.Y2("high:Q"), encodings[0]),
        base.mark_line(strokeWidth=1.8, clip=True).encode(x, y, *encodings),
        base.mark_circle(size=35, opacity=1, clip=True).encode(x, y, encodings[0]),
    ).properties(title=alt.TitleParams(title, fontSize=12, fontWeight="normal"))
