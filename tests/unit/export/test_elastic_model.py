"""A model that switches its point while it serves."""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from inn_automl.core.errors import CorruptFileError, InputError, UnknownNameError
from inn_automl.export import extract_bundle
from inn_automl.serving import ElasticModel, model, sessions
from inn_automl.serving.choice import STEP_UP_FRACTION
from inn_automl.serving.observations import FEWEST, NUM_RECENT

from .conftest import POINTS, Front
from .networks import SHAPE

FAST, MIDDLE, SLOW = POINTS
SAMPLE = np.zeros((1, *SHAPE), np.float32)


@pytest.fixture
def elastic(front: Front) -> ElasticModel:
    return ElasticModel(front.elastic, device="laptop")


class Clock:
    """A machine that takes a multiple of the evidence for every run of whatever point serves."""

    def __init__(self, elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slowdown, self._elastic, self._now = 1.0, elastic, 0.0
        self._is_end = False
        monkeypatch.setattr(model, "perf_counter", self)

    def __call__(self) -> float:
        if self._is_end:
            self._now += 1e-3 * self.slowdown * self._elastic.point.latency["laptop"].p95
        self._is_end = not self._is_end
        return self._now


def run_and_settle(elastic: ElasticModel, num_runs: int) -> None:
    """Runs, each after the check that the one before may have asked for."""
    for _ in range(num_runs):
        elastic.run(SAMPLE)
        if elastic._checking is not None:
            elastic._checking.result(30)


def test_outputs_are_those_of_the_bundles(
    elastic: ElasticModel, front: Front, tmp_path: Path
) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (5, *SHAPE)).astype(np.float32)
    seen = []
    for name, bundle in front.bundles.items():
        extract_bundle(bundle, tmp_path / name)
        session = onnxruntime.InferenceSession(
            tmp_path / name / "model.onnx", providers=["CPUExecutionProvider"]
        )
        elastic.set_point(name)
        for samples in (batch, batch[:1]):
            (expected,) = session.run(None, {"input": samples})
            np.testing.assert_allclose(
                elastic.run(samples), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
            )
        np.testing.assert_array_equal(elastic.run(batch.astype(np.uint8)), elastic.run(batch))
        seen.append(elastic.run(batch))
    assert not any(np.allclose(first, second) for first, second in pairwise(seen))


def test_points_are_those_of_the_device(front: Front) -> None:
    elastic = ElasticModel(front.elastic, device="laptop", threads=2)
    assert [point.id for point in elastic.points] == [FAST, MIDDLE, SLOW]
    assert elastic.point.id == FAST  # nothing was asked for yet
    assert [point.id for point in ElasticModel(front.elastic, device="phone").points] == [FAST]


@pytest.mark.parametrize(
    ("target_ms", "percentile", "expected", "keeps", "expected_ms"),
    [
        (100, None, SLOW, True, 4.4),
        (4.4, None, SLOW, True, 4.4),
        (4.39, None, MIDDLE, True, 2.2),
        (1.1, 95, FAST, True, 1.1),
        (1.09, 95, FAST, False, 1.1),
        (4.4, 99, MIDDLE, True, 4.4),
        (3.6, 50, SLOW, True, 3.52),
    ],
)
def test_the_most_accurate_point_that_keeps_the_target_serves(
    elastic: ElasticModel,
    target_ms: float,
    percentile: float | None,
    expected: str,
    keeps: bool,
    expected_ms: float,
) -> None:
    """The upper end of the confidence interval decides: 1.1 times the measured latency here."""
    choice = elastic.set_latency(target_ms, percentile)
    assert choice == elastic.choice
    assert (choice.point.id, choice.keeps_target) == (expected, keeps)
    assert choice.expected_ms == pytest.approx(expected_ms)
    assert elastic.point == choice.point
    assert str(choice).startswith(
        expected if keeps else "No point keeps 1.09 ms; the fastest, aaaaaaaaaaaa"
    )


def test_a_point_set_by_hand_ends_the_target(elastic: ElasticModel) -> None:
    elastic.set_latency(100)
    assert elastic.set_point(MIDDLE).id == elastic.point.id == MIDDLE
    assert elastic.choice is None


def test_observed_latencies_are_those_of_runs_as_measured(elastic: ElasticModel) -> None:
    assert elastic.observed == {}
    for _ in range(3):
        elastic.run(SAMPLE)
    elastic.run(np.repeat(SAMPLE, 2, axis=0))  # the evidence is of batches of one
    elastic.set_point(SLOW)
    elastic.run(SAMPLE)
    found = elastic.observed
    assert {name: one.num_runs for name, one in found.items()} == {FAST: 3, SLOW: 1}
    assert 0 < found[FAST].p50 <= found[FAST].p95 <= found[FAST].p99


def test_few_runs_tell_no_slowdown(elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(elastic, monkeypatch)
    clock.slowdown = 3.0
    for _ in range(FEWEST - 1):
        elastic.run(SAMPLE)
    assert elastic.slowdown() == 1.0
    elastic.run(SAMPLE)
    assert elastic.slowdown() == pytest.approx(3.0)
    # relative to the evidence at that percentile
    assert elastic.slowdown(99) == pytest.approx(1.5)
    assert elastic.set_latency(4.4).point.id == SLOW  # not asked to adapt
    assert elastic.set_latency(4.4, adapt=True).point.id == FAST
    assert elastic.set_latency(6.7, adapt=True).point.id == MIDDLE
    assert elastic.choice is not None and elastic.choice.slowdown == pytest.approx(3.0)


def test_the_target_holds_when_the_machine_becomes_slow_and_fast_again(
    elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(elastic, monkeypatch)
    assert elastic.set_latency(5.0, adapt=True).point.id == SLOW
    run_and_settle(elastic, NUM_RECENT)
    assert elastic.point.id == SLOW
    clock.slowdown = 2.0
    run_and_settle(elastic, NUM_RECENT)
    assert elastic.point.id == MIDDLE
    assert elastic.choice is not None and elastic.choice.keeps_target
    clock.slowdown = 8.0
    run_and_settle(elastic, NUM_RECENT)
    assert elastic.point.id == FAST
    assert elastic.choice is not None and not elastic.choice.keeps_target
    clock.slowdown = 1.0
    run_and_settle(elastic, NUM_RECENT + model.CHECK_EVERY)
    assert elastic.point.id == SLOW


def test_a_slower_point_takes_over_with_room_to_spare_only(
    elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(elastic, monkeypatch)
    clock.slowdown = 2.0
    run_and_settle(elastic, NUM_RECENT)
    assert elastic.set_latency(4.4 * 1.05, adapt=True).point.id == MIDDLE
    clock.slowdown = 1.0
    run_and_settle(elastic, NUM_RECENT + model.CHECK_EVERY)
    assert elastic.point.id == MIDDLE  # SLOW would keep the target, but not 0.9 of it
    clock.slowdown = 0.99 * STEP_UP_FRACTION * 1.05
    run_and_settle(elastic, NUM_RECENT + model.CHECK_EVERY)
    assert elastic.point.id == SLOW


@pytest.mark.parametrize("max_bytes", [0, sessions.MAX_BYTES])
def test_no_run_is_lost_or_mixed_up_while_points_change(front: Front, max_bytes: int) -> None:
    elastic = ElasticModel(front.elastic, device="laptop", max_bytes=max_bytes)
    batch = np.random.default_rng(1).integers(0, 256, (1, *SHAPE)).astype(np.float32)
    expected = [ElasticModel(front.elastic, device="laptop") for _ in POINTS]
    logits = [
        one.set_point(name) and one.run(batch) for one, name in zip(expected, POINTS, strict=True)
    ]
    stop, served, wrong = threading.Event(), [0, 0], []

    def serve(thread: int) -> None:
        while not stop.is_set():
            found = elastic.run(batch)
            served[thread] += 1
            if not any(np.array_equal(found, one) for one in logits):
                wrong.append(found)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for name in [*POINTS] * 10:
        elastic.set_point(name)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not wrong and all(served)


def test_a_switch_does_not_hold_up_runs(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    elastic = ElasticModel(front.elastic, device="laptop", max_bytes=0)
    making, go_on = threading.Event(), threading.Event()
    make = sessions.Sessions._make

    def slowly(self: sessions.Sessions, point: object) -> object:
        making.set()
        assert go_on.wait(30)
        return make(self, point)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions.Sessions, "_make", slowly)
    switch = threading.Thread(target=elastic.set_point, args=(SLOW,))
    switch.start()
    assert making.wait(30)
    elastic.run(SAMPLE)
    assert elastic.point.id == FAST
    go_on.set()
    switch.join(30)
    assert elastic.point.id == SLOW


def test_sessions_are_made_ahead_as_far_as_memory_allows(front: Front) -> None:
    def kept(elastic: ElasticModel) -> list[str]:
        return list(elastic._sessions._cache)

    # the last one serves
    assert kept(ElasticModel(front.elastic, device="laptop")) == [MIDDLE, SLOW, FAST]
    two = ElasticModel(front.elastic, device="laptop", max_bytes=int(2.5 * 2**20))
    assert kept(two) == [MIDDLE, FAST]
    first = two._serving
    two.set_point(SLOW)
    assert kept(two) == [FAST, SLOW]
    two.set_point(FAST)
    assert two._serving is first
    none = ElasticModel(front.elastic, device="laptop", max_bytes=0)
    assert kept(none) == [FAST]
    none.set_point(SLOW)
    assert kept(none) == [SLOW]


def test_bad_input_is_told(front: Front, elastic: ElasticModel) -> None:
    with pytest.raises(InputError, match=r"several devices.*laptop, phone"):
        ElasticModel(front.elastic)
    with pytest.raises(UnknownNameError, match="did you mean 'laptop'"):
        ElasticModel(front.elastic, device="labtop")
    with pytest.raises(InputError, match="threads = 0"):
        ElasticModel(front.elastic, device="laptop", threads=0)
    with pytest.raises(
        UnknownNameError,
        match="unknown point 'aaaaaaaaaaab' in device 'laptop': did you mean 'aaaaaaaaaaaa'",
    ):
        elastic.set_point("aaaaaaaaaaab")
    for wrong in (0, -1.0, float("nan"), float("inf"), True, "8"):
        with pytest.raises(InputError, match="give a positive number of milliseconds"):
            elastic.set_latency(wrong)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"percentile 90\.0 was not measured: give one of 50, 95, 99"
    ):
        elastic.set_latency(1.0, 90)
    for shape in (SHAPE, (0, *SHAPE), (1, 2, 8, 9), ()):
        with pytest.raises(InputError, match=r"give \(N, 2, 8, 8\)"):
            elastic.run(np.zeros(shape))
    with pytest.raises(InputError, match="not an array of numbers"):
        elastic.run(np.array(["a"]))
    assert elastic.point.id == FAST and elastic.choice is None


def test_a_graph_that_cannot_be_run_is_told(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    elastic = ElasticModel(front.elastic, device="laptop", max_bytes=0)
    monkeypatch.setitem(elastic._sessions._file.graphs, SLOW, b"\xff")
    with pytest.raises(
        CorruptFileError,
        match=f"point {SLOW} .* cannot be run in ONNX Runtime {onnxruntime.__version__}",
    ):
        elastic.set_latency(100)
    assert elastic.point.id == FAST
    elastic.run(SAMPLE)


def test_the_base_install_runs_it(front: Front) -> None:
    code = f"""
import sys
for name in ("torch", "onnx", "onnx_ir", "safetensors", "scipy"):
    sys.modules[name] = None
import numpy as np
from inn_automl.serving import ElasticModel
model = ElasticModel({str(front.elastic)!r}, device="laptop")
model.set_latency(2.5)
print(model.point.id, model.run(np.zeros((1, *{SHAPE}), np.float32)).shape)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stdout.split(" ", 1) == [MIDDLE, "(1, 3)\n"], ended.stderr
