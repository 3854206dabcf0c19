"""Evidence of a front as numbers to draw: errors of the cost model, and the time of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inn_automl.core.result import Candidate, DeviceResult
from inn_automl.reporting.series import Range

MAX_LAYERS = 24
"""Layers that a picture names: of a deeper network the slowest, and all others together."""

OTHERS = "other layers"


@dataclass(frozen=True)
class ParitySeries:
    """Measured against predicted latency on one device, in milliseconds."""

    device: str
    percentile: str
    held_out: tuple[tuple[float, float], ...]
    """Measured and predicted: profiled widths, each by a cost model that was fitted
    without it.
    """
    finalists: tuple[tuple[float, float], ...]
    """Measured and predicted: what the search chose, and was measured for the front afterwards."""
    median_relative: float
    """Relative error of the held-out widths."""
    p90_relative: float
    spearman: float

    @property
    def range(self) -> Range | None:
        """Smallest and largest value, with a margin for logarithmic axes."""
        values = [
            value for pair in (*self.held_out, *self.finalists) for value in pair if value > 0
        ]
        return (min(values) / 1.12, max(values) * 1.12) if values else None

    @property
    def summary(self) -> str:
        return (
            f"held out: median error {100 * self.median_relative:.1f} %, nine of ten within "
            f"{100 * self.p90_relative:.1f} %, rank correlation {self.spearman:.3f}"
        )


def parity_series(
    device: DeviceResult, candidates: Sequence[Candidate] = ()
) -> ParitySeries | None:
    """Gathers what is drawn of a device's cost model; None where the device could not be measured.

    Args:
        candidates: all that was evaluated for the device.
    """
    percentile = device.budget.get("percentile", 95.0)
    error = device.cost_model_errors
    if error is None:
        return None
    return ParitySeries(
        device=device.name,
        percentile=f"p{percentile:g}",
        held_out=error.held_out_ms,
        finalists=tuple(
            (c.measured.at_percentile, c.predicted_latency_ms) for c in candidates if c.measured
        ),
        median_relative=error.median_relative,
        p90_relative=error.p90_relative,
        spearman=error.spearman,
    )


@dataclass(frozen=True)
class LayerSeries:
    """Time of each layer of a device's recommended model, in the order in which the layers run."""

    device: str
    point: str
    """Id of the recommended point."""
    names: tuple[str, ...]
    fractions: tuple[float, ...]
    ms: tuple[float, ...]
    """`fractions` of the model's measured median latency."""


def layer_series(device: DeviceResult) -> LayerSeries | None:
    """Gathers what is drawn of a device's layers; None where nothing is known of them."""
    point = next((point for point in device.front if point.id == device.recommended), None)
    if point is None or not device.layers:
        return None
    slowest = sorted(device.layers, key=lambda layer: -layer.fraction)[:MAX_LAYERS]
    shown = [layer for layer in device.layers if layer in slowest]
    rows = [(layer.name.removeprefix("body."), layer.fraction) for layer in shown]
    if len(shown) < len(device.layers):
        rows.append((OTHERS, 1.0 - sum(layer.fraction for layer in shown)))
    return LayerSeries(
        device=device.name,
        point=point.id,
        names=tuple(name for name, _ in rows),
        fractions=tuple(fraction for _, fraction in rows),
        ms=tuple(fraction * point.latency_ms.p50 for _, fraction in rows),
    )
