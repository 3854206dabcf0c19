"""Latency models of fresh measurements, of those of earlier jobs, and in a search's iterations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from inn_automl.core.errors import StorageError
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.precision import DEFAULT
from inn_automl.core.spec import DeviceBudget, SearchBudget
from inn_automl.data import load_dataset
from inn_automl.latency import cost_model
from inn_automl.latency.benchmark import LatencyMeasurement
from inn_automl.latency.config import THOROUGH, BenchmarkConfig
from inn_automl.latency.store import MeasurementCache
from inn_automl.models.architecture import Architecture
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.latency_model import (
    NUM_INITIAL_WIDTHS,
    NUM_REFERENCE_CONFIGURATIONS,
    LatencyModel,
)
from inn_automl.pipeline.profiling import NUM_CHECKED, profile_precision
from inn_automl.pipeline.width_timer import WidthTimer
from inn_automl.tasks import Task

from .conftest import RecordingProgress, job_spec, measure_by_size

DATASET = load_dataset("digits")
NETWORK = Architecture("mlp", DATASET.input_shape, DATASET.num_classes, 1.0, 3).network()


class FileOfParameters:
    """Exports files that are as large as real ones, without the seconds that a real template
    takes.
    """

    def export(self, module: nn.Module, path: Path, *, widths: Mapping[str, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(4 * NETWORK.costs(widths).params + 1000))


class BySize:
    """A machine that takes `factor` microseconds for a thousand bytes, give or take `noise`."""

    def __init__(self, factor: float = 1.0, noise: float = 0.0) -> None:
        self.factor, self.noise, self.calls = factor, noise, list[int]()
        self.reference_ms = 0.1

    def __call__(
        self,
        models: Mapping[str, Path],
        device: DeviceBudget,
        *,
        config: BenchmarkConfig = THOROUGH,
        on_progress: Any = None,
    ) -> dict[str, LatencyMeasurement]:
        self.calls.append(len(models))
        rng = np.random.default_rng(len(self.calls))
        found = measure_by_size(models, device)
        for name, one in found.items():
            scale = self.factor * float(np.exp(rng.normal(0, self.noise)))
            summary = one.summary.model_copy(
                update={"at_percentile": one.summary.at_percentile * scale}
            )
            environment = {**one.environment, "reference_ms": self.reference_ms}
            found[name] = LatencyMeasurement(summary, one.samples_ms, "", environment)
        return found


def profiled(
    folder: Path, measure: BySize, store: MeasurementCache | None = None, **search: int
) -> tuple[LatencyModel, list[str]]:
    progress = RecordingProgress()
    spec = job_spec()
    measured = {"max_measurements": SearchBudget().max_measurements, **search}
    limits = spec.budget.search.model_copy(update=measured)
    budget = spec.budget.model_copy(update={"search": limits})
    job = JobContext(
        spec.model_copy(update={"budget": budget}),
        folder,
        Task.from_dataset(DATASET),
        "mlp",
        LocalBackend(),
        measure,
        progress,
        measurement_cache=store,
    )
    timer = WidthTimer(
        job,
        NETWORK,
        spec.budget.devices[0],
        DEFAULT,
        lambda: FileOfParameters(),  # type: ignore[arg-type, return-value]
    )
    return profile_precision(timer), progress.notes


def some_widths(latency: LatencyModel, num: int) -> Sequence[dict[str, int]]:
    points = latency.space.sample(10 * num, np.random.default_rng(3))
    widths = [latency.space.from_key(point) for point in points.tolist()]
    return [one for one in widths if not latency.is_measured(one)][:num]


@pytest.fixture(autouse=True)
def one_kind_of_cost_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing among all kinds takes a second a fit, and is tested elsewhere."""
    monkeypatch.setattr(cost_model, "_KINDS", {"least squares": cost_model._KINDS["least squares"]})


@pytest.fixture
def store(tmp_path: Path) -> MeasurementCache:
    return MeasurementCache(ObjectStore(str(tmp_path / "measurement-cache")))


def test_iterations_are_saved_counted_and_fitted(tmp_path: Path) -> None:
    measure = BySize()
    latency, _ = profiled(tmp_path, measure)
    assert measure.calls == [NUM_INITIAL_WIDTHS] and (latency.num_left, latency.last_batch) == (
        24,
        -1,
    )
    widths = some_widths(latency, 5)
    latency.measure(3, widths)
    assert measure.calls == [NUM_INITIAL_WIDTHS, 5 + NUM_REFERENCE_CONFIGURATIONS]
    assert (latency.num_made, latency.num_left, latency.last_batch) == (5, 19, 3)
    rows = json.loads((tmp_path / "search" / "profiling-one-thread-iterations.json").read_text())[
        0
    ]["rows"]
    assert [one["widths"] for one in rows] == list(widths)
    assert [one.latency_ms for one in latency.predict(widths)] == [
        one["latency_ms"] for one in rows
    ]
    again, _ = profiled(tmp_path, measure)
    assert len(measure.calls) == 2
    assert again.reference_ms == latency.reference_ms > 0
    more = some_widths(latency, 9)
    assert again.predict(more) == latency.predict(more) and again.num_made == 5


def test_iterations_are_corrected_to_the_speed_that_the_machine_mostly_has(tmp_path: Path) -> None:
    measure = BySize(factor=1.5)
    latency, _ = profiled(tmp_path, measure)
    widths, *others = (some_widths(latency, 20)[i : i + 5] for i in range(0, 20, 5))
    slow = [one.latency_ms for one in latency.predict(others[-1])]
    expected = [one.latency_ms / 1.5 for one in latency.predict(widths)]
    measure.factor = 1.0
    latency.measure(0, widths)
    assert [one.latency_ms for one in latency.predict(widths)] == pytest.approx(
        [1.5 * ms for ms in expected], rel=0.05
    )
    latency.measure(1, others[0])  # the initial design is in the minority now
    assert [one.latency_ms for one in latency.predict(widths)] == pytest.approx(expected, rel=0.05)
    measure.factor = 3.0
    latency.measure(2, others[1])
    # Speed factors are 1.0, 0.67, 0.67 and 2.0: of the two in the middle the slower
    # one.
    assert [one.latency_ms for one in latency.predict(others[-1])] == pytest.approx(slow, rel=0.05)


def test_a_device_that_is_mostly_at_another_speed_is_profiled_again(tmp_path: Path) -> None:
    measure = BySize()
    latency, notes = profiled(tmp_path, measure)
    first, second, third, others = (some_widths(latency, 20)[i : i + 5] for i in range(0, 20, 5))
    expected = [1.5 * one.latency_ms for one in latency.predict(others)]
    latency.measure(0, first)
    measure.factor, measure.reference_ms = 1.5, 0.13
    latency.measure(1, second)
    # one of two iterations may be an exception
    assert measure.calls == [NUM_INITIAL_WIDTHS, 8, 8] and not notes
    latency.measure(2, third)
    assert measure.calls[3:] == [8, NUM_INITIAL_WIDTHS] and "profiled again" in notes[0]
    assert [one.latency_ms for one in latency.predict(others)] == pytest.approx(expected, rel=0.05)
    assert latency.reference_ms == 0.13 and (latency.num_made, latency.num_left) == (15, 9)
    again, _ = profiled(tmp_path, measure)
    assert again.predict(others) == latency.predict(others)
    latency.measure(3, others)
    assert len(measure.calls) == 6 and len(notes) == 1  # once is enough


def test_a_later_job_starts_from_what_an_earlier_one_measured(
    tmp_path: Path, store: MeasurementCache
) -> None:
    first, later, slower = BySize(), BySize(), BySize(1.4)
    latency, _ = profiled(tmp_path / "first", first, store)
    latency.measure(0, some_widths(latency, 8))
    latency.save_measurements()
    assert first.calls == [NUM_INITIAL_WIDTHS, 8 + NUM_REFERENCE_CONFIGURATIONS]
    one, notes = profiled(tmp_path / "later", later, store)
    assert (
        later.calls == [NUM_CHECKED]
        and "measurements of earlier jobs are used (8 fresh" in notes[0]
    )
    assert "of earlier jobs" in one.describe()
    widths = some_widths(one, 20)
    expected = [p.latency_ms for p in latency.predict(widths)]
    assert [p.latency_ms for p in one.predict(widths)] == pytest.approx(expected, rel=0.05)
    other, notes = profiled(tmp_path / "slower", slower, store)
    assert slower.calls == [NUM_CHECKED] and "rescaled" in notes[0] and "1.40 times" in notes[0]
    assert [p.latency_ms for p in other.predict(widths)] == pytest.approx(
        [1.4 * ms for ms in expected], rel=0.05
    )
    # Resumed, a job does not look into the store again, which others have changed.
    assert profiled(tmp_path / "later", later, store)[0].predict(widths) == one.predict(widths)
    assert later.calls == [NUM_CHECKED]


def test_a_machine_that_has_changed_is_profiled_again(
    tmp_path: Path, store: MeasurementCache
) -> None:
    profiled(tmp_path / "first", BySize(), store)
    changed = BySize(factor=5.0)
    latency, notes = profiled(tmp_path / "changed", changed, store)
    assert (
        changed.calls
        == [NUM_CHECKED, NUM_INITIAL_WIDTHS - NUM_CHECKED + NUM_REFERENCE_CONFIGURATIONS]
        and "dropped" in notes[0]
    )
    assert "of earlier jobs" not in latency.describe()
    third = BySize(factor=5.0)
    assert "are used (" in profiled(tmp_path / "third", third, store)[1][0]


def test_a_store_that_fails_costs_a_note_and_no_more(tmp_path: Path) -> None:
    class Failing(MeasurementCache):
        def _read(self, architecture: Mapping[str, Any]) -> Any:
            raise StorageError("no route to the bucket")

    measure = BySize()
    _, notes = profiled(tmp_path, measure, Failing(ObjectStore(str(tmp_path / "away"))))
    assert measure.calls == [NUM_INITIAL_WIDTHS]
    assert [note for note in notes if "no route to the bucket" in note] == notes[:2]


def test_an_unreliable_cost_model_measures_more_and_says_so(tmp_path: Path) -> None:
    latency, notes = profiled(tmp_path, BySize(noise=0.6), max_measurements=40)
    assert latency.errors.median_relative > 0.1
    assert latency.num_left == 2 * 40 - 24  # 60 % of the 40 are measured before the search
    assert "is not reliable (its median error is" in notes[0] and "up to 80 widths" in notes[0]
    assert "in 90 % of cases within" in latency.describe()


def test_measurements_are_limited(tmp_path: Path) -> None:
    measure = BySize()
    latency, _ = profiled(tmp_path, measure, max_measurements=20)
    assert measure.calls == [12] and latency.num_left == 8
