"""All devices of a job on one HTML page: front, predictor and layers of each, and what it was
measured on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.result import Candidate, DeviceResult, JobResult, metric_of
from inn_automl.core.storage import write_atomically
from inn_automl.reporting.evidence import LayerSeries, ParitySeries, layer_series, parity_series
from inn_automl.reporting.series import COLORS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = """
body { font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1f2937; margin: 24px; }
h2 { margin: 36px 0 4px; } p { margin: 4px 0; max-width: 75em; } .faint { color: #6b7280; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 16px; }
.row > div { min-width: 0; overflow: hidden; }
"""
# A figure takes the width that its place has when it is drawn, before those beside it are there.
_FIT = "<script>window.addEventListener('load', () => window.dispatchEvent(new Event('resize')))</script>"
_FACTS = (
    "cpu_model",
    "gpu",
    "num_cores",
    "runtime",
    "runtime_version",
    "threads",
    "batch_size",
    "governor",
    "turbo",
)
"""Of the environment, in the order in which a page tells them."""


def write_page(
    result: JobResult,
    fronts: Mapping[str, Figure],
    candidates: Mapping[str, Sequence[Candidate]],
    path: Path,
) -> Path:
    """Writes the page, which needs no internet (about 5 MB); returns `path`.

    Args:
        fronts: each device's front, by the device's name.
        candidates: all that was evaluated for each device, by its name.
    """
    from plotly.offline import get_plotlyjs

    sections = [
        _section(device, fronts[device.name], candidates.get(device.name, ()))
        for device in result.devices
    ]
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Devices</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body><h1>Devices</h1>"
        f"{''.join(sections)}{_FIT}</body></html>"
    )
    write_atomically(path, html.encode())
    return path


def parity_figure(series: ParitySeries) -> Figure:
    """Predicted against measured latency, both axes logarithmic, with the line of equality."""
    from plotly.graph_objects import Figure, Scatter

    low, high = series.range or (0.1, 1.0)
    figure = Figure(layout=_layout("Predicted against measured latency"))
    line = {"color": "#1f2937", "width": 1.2, "dash": "dash"}
    figure.add_trace(
        Scatter(x=[low, high], y=[low, high], mode="lines", line=line, name="predicted = measured")
    )
    for pairs, symbol, color, name in (
        (series.held_out, "circle", COLORS[0], "held-out widths of the calibration"),
        (series.finalists, "diamond", COLORS[1], "finalists of the search"),
    ):
        marker = {
            "symbol": symbol,
            "color": color,
            "size": 8,
            "line": {"color": "white", "width": 0.6},
        }
        figure.add_trace(
            Scatter(
                x=[measured for measured, _ in pairs],
                y=[predicted for _, predicted in pairs],
                mode="markers",
                marker=marker,
                name=name,
                hovertemplate="measured %{x:.4g} ms, predicted %{y:.4g} ms<extra></extra>",
            )
        )
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    ends = [math.log10(low), math.log10(high)]
    axis = {
        **_AXIS,
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
        "range": ends,
    }
    figure.update_xaxes(**axis, title=f"measured latency, {series.percentile} (ms)")
    figure.update_yaxes(**axis, title=f"predicted latency, {series.percentile} (ms)")
    return figure


def layers_figure(series: LayerSeries) -> Figure:
    """What each layer of the recommended model takes, the first on top."""
    from plotly.graph_objects import Bar, Figure

    figure = Figure(layout=_layout(f"Latency by layer of the recommended point {series.point}"))
    figure.add_trace(
        Bar(
            x=series.ms,
            y=series.names,
            orientation="h",
            marker={"color": COLORS[0]},
            text=[f"{100 * share:.1f} %" for share in series.shares],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.4g} ms<extra></extra>",
        )
    )
    figure.update_xaxes(**_AXIS, title="latency, p50 (ms)", range=[0, 1.15 * max(series.ms)])
    figure.update_yaxes(autorange="reversed", automargin=True, dtick=1, tickfont={"size": 11})
    figure.update_layout(showlegend=False)
    return figure


_AXIS: dict[str, Any] = {
    "gridcolor": "#e5e7eb",
    "zeroline": False,
    "linecolor": "#9ca3af",
    "showline": True,
}


def _layout(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "x": 0.02, "font": {"size": 14}},
        "template": "plotly_white",
        "font": {
            "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
            "size": 13,
            "color": "#1f2937",
        },
        "legend": {"orientation": "h", "y": -0.2},
        "margin": {"l": 70, "r": 40, "t": 50, "b": 60},
    }


def _section(device: DeviceResult, front: Figure, candidates: Sequence[Candidate]) -> str:
    from plotly.graph_objects import Figure

    parity = parity_series(device, candidates)
    label = metric_of([device]).label
    front = Figure(front).update_layout(
        **_layout(f"{label[0].upper()}{label[1:]} against measured latency")
    )
    figures = [front, *([parity_figure(parity)] if parity else [])]
    layers = layer_series(device)
    if layers is not None:
        figures.append(layers_figure(layers))
    drawn = "".join(
        f"<div>{figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG, default_height=_HEIGHT)}</div>"
        for figure in figures
    )
    facts = [
        f"{key.replace('_', ' ')} {device.environment[key]}"
        for key in _FACTS
        if device.environment.get(key)
    ]
    return (
        f"<h2>{escape(device.name)}</h2><p>{escape(device.recommendation)}</p>"
        f'<p class="faint">{escape(", ".join(facts))}</p>'
        f'<p class="faint">{f"Latency predictor, {escape(parity.summary)}" if parity else ""}</p>'
        f'<div class="row">{drawn}</div>'
    )


_CONFIG, _HEIGHT = {"displaylogo": False, "responsive": True}, "460px"
