"""A device's front as the numbers that figures, images and tables show: percent (or decibels),
milliseconds, bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inn_automl.core.metric import Metric, get_metric
from inn_automl.core.result import Candidate, DeviceResult, FrontPoint

COLORS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777", "#0891b2", "#65a30d", "#dc2626")
"""One a device, in order; distinguishable with any of the common colour-vision deficiencies
for the first four.
"""

Range = tuple[float, float]


@dataclass(frozen=True)
class FrontSeries:
    """Data to draw of one device. Lists of the front run along its points, sorted by latency."""

    device: str
    percentile: str
    """The percentile of every latency here, as people write it: `p95`."""
    setting: str
    """Runtime, threads, batch size and latency bound in a few words."""
    points: tuple[FrontPoint, ...]
    latency_ms: tuple[float, ...]
    latency_ci_ms: tuple[tuple[float, float], ...]
    metric: Metric
    values: tuple[float, ...]
    """On the validation split, as the metric is shown: accuracy in percent."""
    test_values: tuple[float, ...]
    test_values_ci: tuple[tuple[float, float], ...]
    recommended: int | None
    """Index of the recommended point."""
    bound_ms: float | None
    ties: tuple[str, ...]
    """Letters of each point: two points with a letter in common cannot be told apart by the
    validation samples.
    """
    losses: tuple[float | None, ...]
    """Proper score on the validation split."""
    other_latency_ms: tuple[float, ...]
    """Latency of the candidates that are not on the front: measured where they were, else
    predicted.
    """
    other_values: tuple[float, ...]


def front_series(device: DeviceResult, candidates: Sequence[Candidate] = ()) -> FrontSeries:
    """Gathers what is drawn of `device`; `candidates` are all that was evaluated for it, the
    front's own included.
    """
    front = sorted(device.front, key=lambda point: point.latency_ms.at_percentile)
    on_front = {point_key(point) for point in front}
    others = [candidate for candidate in candidates if point_key(candidate) not in on_front]
    ids = [point.id for point in front]
    metric = get_metric(device.metric)
    percentile = device.budget.get("percentile", front[0].latency_ms.percentile if front else 95.0)
    return FrontSeries(
        device=device.name,
        percentile=f"p{percentile:g}",
        setting=_setting(device, f"p{percentile:g}"),
        points=tuple(front),
        latency_ms=tuple(point.latency_ms.at_percentile for point in front),
        latency_ci_ms=tuple(point.latency_ms.ci for point in front),
        metric=metric,
        values=tuple(metric.shown(point.metric_value) for point in front),
        test_values=tuple(metric.shown(point.test_metric_value) for point in front),
        test_values_ci=tuple(
            (
                metric.shown(point.test_metric_value_ci[0]),
                metric.shown(point.test_metric_value_ci[1]),
            )
            for point in front
        ),
        recommended=ids.index(device.recommended) if device.recommended in ids else None,
        bound_ms=device.budget.get("max_latency_ms"),
        ties=tie_letters(front),
        losses=tuple(point.loss for point in front),
        other_latency_ms=tuple(
            c.measured.at_percentile if c.measured else c.predicted_latency_ms for c in others
        ),
        other_values=tuple(metric.shown(c.metric_value) for c in others),
    )


def tie_letters(front: Sequence[FrontPoint]) -> tuple[str, ...]:
    """Letters by which points share a tie, as a compact letter display (H.-P. Piepho, 2004): one
    for each largest set of points that are all ties of each other.
    """
    ids = [point.id for point in front]
    tied = [{ids.index(name) for name in point.ties if name in ids} for point in front]
    tied = [{j for j in others if i in tied[j]} for i, others in enumerate(tied)]
    sets: list[set[int]] = []

    def extend(chosen: set[int], left: set[int], done: set[int]) -> None:  # Bron and Kerbosch, 1973
        if not left and not done and len(chosen) > 1:
            sets.append(chosen)
        for i in sorted(left):
            extend(chosen | {i}, left & tied[i], done & tied[i])
            left, done = left - {i}, done | {i}

    extend(set(), set(range(len(front))), set())
    sets.sort(key=sorted)
    return tuple(
        "".join(_letter(k) for k, members in enumerate(sets) if i in members)
        for i in range(len(front))
    )


def is_tied_with_faster(series: FrontSeries, index: int) -> bool:
    """Whether a point of the front cannot be told apart from a faster one."""
    letters = set(series.ties[index])
    return any(letters & set(earlier) for earlier in series.ties[:index])


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26)


def latency_range(all_series: Sequence[FrontSeries]) -> Range:
    """Milliseconds that a latency axis spans: the fronts with their intervals, and bounds that do
    not squeeze them.

    It starts at zero where the fronts span a factor of two and more, and close to them otherwise.
    """
    ends = [end for series in all_series for interval in series.latency_ci_ms for end in interval]
    ends += [latency for series in all_series for latency in series.latency_ms]
    if not ends:
        return 0.0, 1.0
    bounds = [
        s.bound_ms for s in all_series if s.bound_ms is not None and s.bound_ms <= 1.6 * max(ends)
    ]
    low, high = min(ends), max(ends + bounds)
    if low < high / 2 or low == high:
        return 0.0, 1.06 * high
    return low - 0.15 * (high - low), high + 0.1 * (high - low)


def metric_range(all_series: Sequence[FrontSeries]) -> Range:
    """Range of the axis of the metric: the fronts with their test intervals; worse candidates may
    fall below.
    """
    values = [value for series in all_series for value in (*series.values, *series.test_values)]
    values += [
        end for series in all_series for interval in series.test_values_ci for end in interval
    ]
    if not values:
        return 0.0, 100.0
    # a point of percent: less would show noise
    least = 100 * 10.0 ** -all_series[0].metric.decimals
    margin = 0.07 * max(max(values) - min(values), least)
    return min(values) - margin, max(values) + margin


def short_count(count: float) -> str:
    """`45300` as `45.3 k`."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.3g}"


def point_key(point: FrontPoint | Candidate) -> tuple[object, ...]:
    """Key that a front point and the candidate that it was made of have in common."""
    return point.precision, *sorted(point.widths.items())


def _setting(device: DeviceResult, percentile: str) -> str:
    budget = device.budget
    parts = [str(budget["runtime"])] if "runtime" in budget else []
    if threads := budget.get("threads"):
        parts.append(f"{threads} thread" + ("s" if threads != 1 else ""))
    if batch_size := budget.get("batch_size"):
        parts.append(f"batch {batch_size}")
    if bound := budget.get("max_latency_ms"):
        parts.append(f"{percentile} at most {bound:g} ms")
    return ", ".join(parts)
