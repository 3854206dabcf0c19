from __future__ import annotations

import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.core.progress import (
    LineProgress,
    LiveProgress,
    TimeLeft,
    duration,
    show_progress,
    time_left,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_time_left_follows_the_mean_rate() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    left.update(0.0)
    clock.now_s += 10.0
    left.update(0.25)
    assert left.seconds() == pytest.approx(30.0)
    clock.now_s += 4.0
    assert left.seconds() == pytest.approx(26.0)
    clock.now_s += 100.0
    assert left.seconds() == 0.0


def test_time_left_is_unknown_until_enough_was_done() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    assert left.seconds() is None
    left.update(0.0)
    clock.now_s += 10.0
    left.update(0.01)
    assert left.seconds() is None
    clock.now_s += 10.0
    left.update(0.02)
    assert left.seconds() == pytest.approx(980.0)


def test_what_a_resumed_stage_had_done_before_does_not_count() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    left.update(0.8)
    clock.now_s += 10.0
    left.update(0.9)
    assert left.seconds() == pytest.approx(10.0)


def test_a_step_back_starts_the_estimate_anew() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    left.update(0.0)
    clock.now_s += 10.0
    left.update(0.5)
    left.update(0.2)
    assert left.seconds() is None
    clock.now_s += 10.0
    left.update(0.4)
    assert left.seconds() == pytest.approx(30.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=20))
def test_time_left_is_never_negative(reports: list[tuple[float, float]]) -> None:
    clock = Clock()
    left = TimeLeft(clock)
    for seconds, fraction in reports:
        clock.now_s += seconds
        left.update(fraction)
        assert (left.seconds() or 0.0) >= 0.0


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3599.9, "1 h 0 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_time_left_claims_no_more_than_it_knows() -> None:
    assert [time_left(s) for s in (None, 0.0, 4.9, 90.0)] == [
        "estimating the time left",
        "a few seconds left",
        "a few seconds left",
        "about 1 min 30 s left",
    ]


def test_lines_say_stage_share_time_left_and_best() -> None:
    clock, stream = Clock(), io.StringIO()
    with LineProgress(stream, clock) as progress:
        progress.stage("training")
        progress.update(0.0)
        for _ in range(12):
            clock.now_s += 1.0
            progress.update((clock.now_s - 100.0) / 20, best="97.1 %", detail="trial 1 of 4")
        progress.note("trial 2 was stopped early")
        progress.stage("searching")
        clock.now_s += 65.0
    assert stream.getvalue().splitlines() == [
        "training",
        "training: 25%, about 15 s left, best 97.1 %, trial 1 of 4",
        "training: 50%, about 10 s left, best 97.1 %, trial 1 of 4",
        "trial 2 was stopped early",
        "training: done in 12 s",
        "searching",
        "searching: done in 1 min 5 s",
    ]


def test_an_interrupted_stage_is_not_done() -> None:
    stream = io.StringIO()
    with suppress(KeyboardInterrupt), LineProgress(stream) as progress:
        progress.stage("training")
        raise KeyboardInterrupt
    assert stream.getvalue() == "training\n"


def test_a_terminal_shows_all_of_it_and_keeps_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = Clock(), io.StringIO()
    with LiveProgress(stream, clock) as progress:
        progress.stage("training")
        progress.update(0.0)
        clock.now_s += 30.0
        progress.update(0.5, best="97.1 % [at 2 ms]", detail="trial 1 of 4")
        progress.note("a note with [brackets]")
        progress.stage("searching")
    shown = stream.getvalue()
    for part in (
        "training",
        "50%",
        "30 s",
        "about 30 s left",
        "best 97.1 % [at 2 ms]",
        "trial 1 of 4",
    ):
        assert part in shown
    assert "a note with [brackets]\n" in shown
    assert "training: done in 30 s\n" in shown
    assert "searching: done in 0 s\n" in shown


def test_a_pipe_gets_lines() -> None:
    assert isinstance(show_progress(io.StringIO()), LineProgress)
