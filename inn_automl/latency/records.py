"""Records of the latencies that a device's cost model is fitted on; each is one JSON value."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter


@dataclass(frozen=True)
class LatencyRow:
    """One network that was measured in this job."""

    widths: dict[str, int]
    latency_ms: float
    """At the device's percentile."""
    size_bytes: int
    """Size of the ONNX file."""
    reference_ms: float | None
    """Median latency of the reference model beside it; None where it is not known."""

    @property
    def key(self) -> tuple[int, ...]:
        """The widths as a point of the search space."""
        return tuple(self.widths.values())


@dataclass(frozen=True)
class ProfilingIteration:
    """Widths that were measured together while the search was running."""

    batch: int
    """Batches of evaluations that were finished before the iteration."""
    rows: tuple[LatencyRow, ...]
    """Rows with latencies as if measured together with the initial design."""
    speed_factor: float
    """Latency of the reference configurations in this iteration, relative to the initial design."""
    repeated: tuple[LatencyRow, ...] = ()
    """The initial design, measured again after this iteration in another clock regime."""


ROWS = TypeAdapter(tuple[LatencyRow, ...])
ITERATIONS = TypeAdapter(tuple[ProfilingIteration, ...])
