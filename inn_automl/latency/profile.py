"""Everything that is known of a device's latency, as one record and as files.

FOLDER/profiling-KEY.json          rows of the initial design
FOLDER/profiling-KEY-cached.json   the machine, and measurements of earlier jobs that are used, too
FOLDER/profiling-KEY-rounds.json   rounds that were measured during the search

KEY is the name of the device, followed by `+PRECISION` where that is not fp32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from inn_automl.core.storage import read_json, write_json
from inn_automl.latency import drift
from inn_automl.latency.records import ROUNDS, ROWS, LatencyRow, ProfilingRound
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
    rounds: tuple[ProfilingRound, ...] = ()
    cached: tuple[CachedMeasurement, ...] = ()
    """Measurements of earlier jobs, on the scale of the initial design."""
    machine: MachineFingerprint | None = None
    """Fingerprint of the machine; None in a profile of a job that did not know it."""

    @property
    def rows(self) -> list[LatencyRow]:
        """This job's measurements, corrected to the reference speed of the device."""
        return drift.to_reference(self.initial, self.rounds)

    @property
    def cached_at_reference(self) -> list[CachedMeasurement]:
        """Measurements of earlier jobs, corrected to the reference speed of the device.

        None are left once the device was profiled again: they belong to another clock regime.
        """
        if drift.repeated_design(self.rounds):
            return []
        factor = drift.speed_factor(self.rounds)
        return [replace(one, latency_ms=factor * one.latency_ms) for one in self.cached]

    @property
    def reference_ms(self) -> float:
        """Median latency of the reference model in these measurements; 0 if not known."""
        return drift.reference_ms(self.initial, self.rounds)

    @property
    def num_in_search(self) -> int:
        """Widths that were measured during the search."""
        return sum(len(one.rows) for one in self.rounds)

    @property
    def last_batch(self) -> int:
        """Number of finished batches at the latest round; -1 before the first."""
        return self.rounds[-1].batch if self.rounds else -1

    def with_round(self, one: ProfilingRound) -> LatencyProfile:
        """The profile with another round."""
        return replace(self, rounds=(*self.rounds, one))

    def with_repeated(self, rows: tuple[LatencyRow, ...]) -> LatencyProfile:
        """The profile with the initial design measured again after the latest round."""
        *earlier, last = self.rounds
        return replace(self, rounds=(*earlier, replace(last, repeated=rows)))


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
        rounds = read_json(self._path("-rounds")) if self._path("-rounds").exists() else []
        return LatencyProfile(
            initial=ROWS.validate_python(read_json(self._path())),
            rounds=ROUNDS.validate_python(rounds),
            cached=tuple(measurements_from_json(cached.get("measurements", {}))),
            machine=None if machine is None else MachineFingerprint(**machine),
        )

    def write_initial(self, profile: LatencyProfile) -> None:
        """Writes all but the rounds; the initial design last, because it marks the profile whole.

        Raises:
            StorageError: the files cannot be written.
        """
        cached = {
            "machine": None if profile.machine is None else profile.machine.to_dict(),
            "measurements": measurements_to_json(profile.cached),
        }
        write_json(self._path("-cached"), cached)
        write_json(self._path(), ROWS.dump_python(profile.initial, mode="json"))

    def write_rounds(self, profile: LatencyProfile) -> None:
        """Writes the rounds.

        Raises:
            StorageError: the file cannot be written.
        """
        write_json(self._path("-rounds"), ROUNDS.dump_python(profile.rounds, mode="json"))

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
