from __future__ import annotations

import time

import pytest

from inn_automl.latency import timing
from inn_automl.latency.timing import (
    MAX_WAITED,
    TimedBlock,
    WaitClock,
    choose,
    interleave,
    median_reference_ns,
    repetition_drifts,
    time_block,
    warm_up,
)

BLOCK_NS = 100_000


class FakeWaiting(WaitClock):
    """Each block is disturbed if the next of `disturbed` says so."""

    def __init__(self, disturbed: list[bool] | None = None) -> None:
        self._disturbed = disturbed or []
        self._ns = 0
        self._num_read = 0

    def ns(self) -> int:
        self._num_read += 1
        ends_a_block = self._num_read % 2 == 0
        if ends_a_block and self._disturbed and self._disturbed.pop(0):
            self._ns += 10**9
        return self._ns


def turns(models, disturbed=None, **options):
    order = []
    arguments = {
        "num_blocks": 3,
        "min_s": 0.0,
        "max_s": 60.0,
        "seed": 0,
        "max_runs": 4,
        "block_ns": BLOCK_NS,
    }
    arguments["max_drift"] = 1e9
    blocks, _ = interleave(
        models,
        lambda: None,
        **(arguments | options),
        waiting=FakeWaiting(disturbed),
        on_block=lambda name, done: order.append((name, done)),
    )
    return blocks, order


def test_block_times_every_run():
    num_runs = 0

    def run():
        nonlocal num_runs
        num_runs += 1
        time.sleep(0.0001)

    samples, waited, _ = time_block(run, 10**9, 7, FakeWaiting())
    assert len(samples) == 7
    assert num_runs > 7  # untimed ones go before
    assert min(samples) >= 100_000
    assert waited == 0.0


def test_block_has_one_run_where_it_takes_longer_than_the_block():
    samples, *_ = time_block(lambda: time.sleep(0.001), 10_000, 100, FakeWaiting())
    assert len(samples) == 1


def test_every_model_gets_a_turn_in_each_round():
    blocks, order = turns({name: lambda: None for name in "abcd"}, num_blocks=5)
    assert {name: len(taken) for name, taken in blocks.items()} == dict.fromkeys("abcd", 5)
    rounds = ["".join(name for name, _ in order[start : start + 4]) for start in range(0, 20, 4)]
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len(set(rounds)) > 1
    fractions = [done for _, done in order]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1


def test_order_follows_from_the_seed():
    models = {name: lambda: None for name in "abcdefgh"}
    first, again, other = (turns(models, seed=seed)[1] for seed in (1, 1, 2))
    assert first == again != other


def test_disturbed_blocks_are_repeated():
    # Every other block is the reference model's.
    of_model = [False, True, True, False, False]
    blocks, _ = turns(
        {"m": lambda: None}, disturbed=[one for pair in of_model for one in (False, pair)]
    )
    assert [block.waited > MAX_WAITED for block in blocks["m"]] == of_model
    assert choose(blocks["m"], 3, 1e9) == [block for block in blocks["m"] if block.waited == 0.0]


def test_drifted_batches_are_repeated(monkeypatch):
    """The reference model is half as fast after the third batch: those beside it do not count."""
    speeds = [100, 100, 100, 150, 100, 100, 100, 100, 100, 100]

    def block(run, *_):
        return TimedBlock([run()], 0.0)

    monkeypatch.setattr(timing, "time_block", block)
    blocks, reference_ns = interleave(
        {"m": lambda: 7, "n": lambda: 8},
        lambda: speeds.pop(0),
        num_blocks=4,
        min_s=0.0,
        max_s=60.0,
        max_drift=0.2,
        block_ns=BLOCK_NS,
        max_runs=1,
        seed=0,
        waiting=FakeWaiting(),
        on_block=lambda *_: None,
    )
    assert reference_ns == [100, 100, 100, 150, 100, 100, 100]
    for taken in blocks.values():
        assert [round(one.drift, 9) for one in taken] == [0, 0, 0.5, 0.5, 0, 0]
        assert len(choose(taken, 4, 0.2)) == 4


def test_drift_is_that_of_the_worse_neighbour():
    assert repetition_drifts([10.0, 10.0, 12.0, 10.0, 5.0]) == pytest.approx([0, 0.2, 0.2, 0.5])
    assert repetition_drifts([10.0, None, 10.0]) == [0, 0]
    assert repetition_drifts([None, None]) == [0]
    assert median_reference_ns([None, 3.0, 1.0, 2.0]) == 2.0
    assert median_reference_ns([None]) is None


def test_time_limit_ends_what_is_always_disturbed():
    blocks, _ = turns({name: lambda: None for name in "ab"}, disturbed=[True] * 1000, max_s=0.0)
    assert {name: len(taken) for name, taken in blocks.items()} == {"a": 1, "b": 1}


def test_goes_on_for_the_least_time():
    blocks, _ = turns({"m": lambda: None}, num_blocks=1, min_s=0.05)
    assert len(blocks["m"]) > 1


def test_choice_takes_the_least_disturbed_where_calm_ones_are_too_few():
    blocks = [
        TimedBlock([1], 0.5),
        TimedBlock([2], 0.0),
        TimedBlock([3], 0.9),
        TimedBlock([4], 0.2),
        TimedBlock([5], 0.0, 0.45),
    ]
    assert choose(blocks, 4, 0.15) == [blocks[1], blocks[3], blocks[4], blocks[0]]
    assert choose(blocks, 1, 0.15) == [blocks[1]]


@pytest.mark.parametrize(
    ("medians", "converged"),
    [([100, 60, 59], True), ([2.0**k for k in range(50)], False)],
    ids=["settles", "never"],
)
def test_warm_up_ends_when_the_median_settles(monkeypatch, medians, converged):
    remaining = list(medians)
    monkeypatch.setattr(timing, "time_block", lambda *args: TimedBlock([remaining.pop(0)], 0.0))
    assert warm_up(lambda: None, BLOCK_NS, FakeWaiting()) is converged
    assert len(remaining) == (0 if converged else 30)


def test_wait_clock_never_runs_backwards():
    clock = WaitClock()
    try:
        readings = [clock.ns() for _ in range(5)]
        assert readings == sorted(readings)
        assert clock.available or readings == [0] * 5
    finally:
        clock.close()


def test_wait_clock_stands_still_where_there_is_no_account(monkeypatch):
    def refuse(path):
        raise OSError

    monkeypatch.setattr(timing.os, "listdir", refuse)
    clock = WaitClock()
    assert not clock.available
    assert clock.ns() == 0
