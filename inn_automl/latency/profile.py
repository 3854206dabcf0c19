"""Everything that is known of a device's latency, as one record and as files.

FOLDER/profiling-KEY.json              rows of the initial design
FOLDER/profiling-KEY-cached.json       the machine, and measurements of earlier jobs that are used
FOLDER/profiling-KEY-iterations.json   iterations of active learning, during the search

KEY is the name of the device, followed by `+PRECISION` where that is not fp32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from inn_automl.core.storage import read_json, write_json
from inn_automl.latency import drift
from inn_automl.latency.records import ITERATIONS, ROWS, LatencyRow, ProfilingIteration
from inn_automl.latency.store import (
    CachedMeasurement,
    MachineFingerprint,
    measurements_from_json,
    measurements_to_json,
)


@dataclass(frozen=True)
class LatencyProfile:
    """All measurements of one device in one precision."""

    initial: tuple[LatencyRow, ...]
    """The initial design."""
    iterations: tuple[ProfilingIteration, ...] = ()
    cached: tuple[CachedMeasurement, ...] = ()
    """Measurements of earlier jobs, on the scale of the initial design."""
    machine: MachineFingerprint | None = None
    """Fingerprint of the machine; None in a profile of a job that did not know it."""

    @property
    def rows(self) -> list[LatencyRow]:
        """This job's measurements, corrected to the reference speed of the device."""
        return drift.to_reference(self.initial, self.iterations)

    @property
    def cached_at_reference(self) -> list[CachedMeasurement]:
        """Measurements of earlier jobs, corrected to the reference speed of the device.

        None are left once the device was profiled again: they belong to another clock regime.
        """
        if drift.repeated_design(self.iterations):
            return []
        factor = drift.speed_factor(self.iterations)
        return [replace(one, latency_ms=factor * one.latency_ms) for one in self.cached]

    @property
    def reference_ms(self) -> float:
        """Median latency of the reference model in these measurements; 0 if not known."""
        return drift.reference_ms(self.initial, self.iterations)

    @property
    def num_in_search(self) -> int:
        """Widths that were measured during the search."""
        return sum(len(iteration.rows) for iteration in self.iterations)

    @property
    def last_batch(self) -> int:
        """Number of finished batches at the latest iteration; -1 before the first."""
        return self.iterations[-1].batch if self.iterations else -1

    def with_iteration(self, iteration: ProfilingIteration) -> LatencyProfile:
        """The profile with another iteration."""
        return replace(self, iterations=(*self.iterations, iteration))

    def with_repeated(self, rows: tuple[LatencyRow, ...]) -> LatencyProfile:
        """The profile with the initial design measured again after the latest iteration."""
        *earlier, last = self.iterations
        return replace(self, iterations=(*earlier, replace(last, repeated=rows)))


@dataclass(frozen=True)
class ProfileFiles:
    """The files of a profile.

    Args:
        folder: where they are.
        key: names device and precision.
    """

    folder: Path
    key: str

    def exists(self) -> bool:
        """Return whether the initial design was measured."""
        return self._path().exists()

    def read(self) -> LatencyProfile:
        """Reads what was written.

        Raises:
            StorageError: the files cannot be read.
        """
        cached = read_json(self._path("-cached")) if self._path("-cached").exists() else {}
        machine = cached.get("machine")
        path = self._path("-iterations")
        iterations = read_json(path) if path.exists() else []
        return LatencyProfile(
            initial=ROWS.validate_python(read_json(self._path())),
            iterations=ITERATIONS.validate_python(iterations),
            cached=tuple(measurements_from_json(cached.get("measurements", {}))),
            machine=None if machine is None else MachineFingerprint(**machine),
        )

    def write_initial(self, profile: LatencyProfile) -> None:
        """Writes all but the iterations; the initial design last, as it marks the profile whole.

        Raises:
            StorageError: the files cannot be written.
        """
        cached = {
            "machine": None if profile.machine is None else profile.machine.to_dict(),
            "measurements": measurements_to_json(profile.cached),
        }
        write_json(self._path("-cached"), cached)
        write_json(self._path(), ROWS.dump_python(profile.initial, mode="json"))

    def write_iterations(self, profile: LatencyProfile) -> None:
        """Writes the iterations.

        Raises:
            StorageError: the file cannot be written.
        """
        write_json(
            self._path("-iterations"), ITERATIONS.dump_python(profile.iterations, mode="json")
        )

    def reuse(self, parent: ProfileFiles) -> None:
        """Takes over a parent job's profile; its corrected rows become the initial design.

        Raises:
            StorageError: the files cannot be read or written.
        """
        profile = parent.read()
        self.write_initial(
            LatencyProfile(
                initial=tuple(profile.rows),
                cached=tuple(profile.cached_at_reference),
                machine=profile.machine,
            )
        )

    def _path(self, ending: str = "") -> Path:
        return self.folder / f"profiling-{self.key}{ending}.json"
