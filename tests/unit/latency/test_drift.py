from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inn_automl.core.costs import LayerCost
from inn_automl.latency import drift
from inn_automl.latency.profile import LatencyProfile, ProfileFiles
from inn_automl.latency.records import LatencyRow, ProfilingIteration
from inn_automl.latency.store import CachedMeasurement, MachineFingerprint


def row(width: int, latency_ms: float, reference_ms: float | None = 0.1) -> LatencyRow:
    return LatencyRow({"conv": width}, latency_ms, 4 * width, reference_ms)


INITIAL = (row(8, 1.0), row(16, 2.0), row(32, 4.0))


def an_iteration(batch: int, factor: float, reference_ms: float | None = 0.1) -> ProfilingIteration:
    return ProfilingIteration(batch, (row(24 + batch, 3.0, reference_ms),), factor)


def milliseconds(rows: list[LatencyRow]) -> list[float]:
    return [one.latency_ms for one in rows]


def test_the_factor_of_a_round_is_the_median_over_its_references() -> None:
    now = [replace(one, latency_ms=1.5 * one.latency_ms) for one in INITIAL]
    now[0] = replace(now[0], latency_ms=90.0)
    assert drift.measured_factor(now, INITIAL) == 1.5


def test_of_two_speeds_that_are_as_frequent_the_slower_one_counts() -> None:
    assert drift.speed_factor([]) == 1.0
    assert drift.speed_factor([an_iteration(0, 1.5)]) == 1.5
    assert drift.speed_factor([an_iteration(0, 0.5)]) == 1.0
    assert (
        drift.speed_factor([an_iteration(0, 1.5), an_iteration(1, 1.5), an_iteration(2, 1.0)])
        == 1.5
    )


def test_all_rows_are_put_on_the_scale_of_the_usual_speed() -> None:
    rows = drift.to_reference(INITIAL, [an_iteration(0, 2.0), an_iteration(1, 2.0)])
    assert milliseconds(rows) == [2.0, 4.0, 8.0, 6.0, 6.0]
    assert milliseconds(drift.to_reference(INITIAL, [])) == [1.0, 2.0, 4.0]


def test_a_repeated_design_replaces_the_first_one() -> None:
    repeated = (row(8, 1.3), row(16, 3.0), row(32, 6.4))
    iterations = [an_iteration(0, 1.0), replace(an_iteration(1, 1.0), repeated=repeated)]
    rows = drift.to_reference(INITIAL, iterations)
    assert milliseconds(rows) == pytest.approx([1.3, 3.0, 6.4, 4.5, 4.5])
    assert drift.reference_ms(INITIAL, iterations) == 0.1


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        ([0.13], False),  # one iteration tells nothing
        ([0.1, 0.13], False),
        ([0.1, 0.13, 0.13], True),
        ([0.07, 0.13], True),
        ([None, None], False),
    ],
)
def test_another_clock_regime_is_seen_in_most_iterations(
    references: list[float | None], expected: bool
) -> None:
    iterations = [an_iteration(i, 1.0, ms) for i, ms in enumerate(references)]
    assert drift.is_other_clock_regime(INITIAL, iterations, max_drift=0.1) is expected
    if iterations:
        again = [replace(iterations[0], repeated=INITIAL), *iterations[1:]]
        assert not drift.is_other_clock_regime(INITIAL, again, max_drift=0.1)


def test_a_device_that_knows_no_reference_has_one_regime() -> None:
    initial = [row(8, 1.0, None)]
    iterations = [an_iteration(0, 1.0, 0.5), an_iteration(1, 1.0, 0.5)]
    assert not drift.is_other_clock_regime(initial, iterations, max_drift=0.1)
    assert drift.reference_ms(initial, []) == 0.0


def test_profiles_survive_their_files_and_are_taken_over_at_the_usual_speed(
    tmp_path: Path,
) -> None:
    layer = LayerCost("conv", "conv", 1, 2, 3, 4, 5, 6)
    profile = LatencyProfile(
        INITIAL,
        (an_iteration(0, 2.0), an_iteration(1, 2.0)),
        (CachedMeasurement((layer,), 1.0),),
        MachineFingerprint(cpu_model="x"),
    )
    files, later = ProfileFiles(tmp_path, "laptop"), ProfileFiles(tmp_path / "later", "laptop")
    assert not files.exists()
    files.write_initial(profile)
    files.write_iterations(profile)
    assert files.exists() and files.read() == profile
    later.reuse(files)
    taken = later.read()
    assert list(taken.initial) == profile.rows and taken.iterations == ()
    assert taken.cached == (CachedMeasurement((layer,), 2.0),)
    assert taken.machine == profile.machine
