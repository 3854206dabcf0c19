"""Progress of a job for people: stage, fraction done, time left, the best so far.

A pipeline calls a `Progress`; what shows it is one of three: a live display on a terminal, a line
every few seconds elsewhere, or nothing. All of it goes to standard error; standard output is for
results.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, final

from tqdm import tqdm

SECONDS_BETWEEN_LINES_S = 5.0
SECONDS_BETWEEN_REDRAWS_S = 0.25
MIN_FRACTION = 0.02
"""Fraction of a stage that must have been done before its rate is extrapolated."""
MIN_ELAPSED_S = 2.0

Clock = Callable[[], float]


class Progress(Protocol):
    """Takes the reports of a running job."""

    def stage(self, name: str) -> None:
        """A stage begins, and the one before it is done."""

    def update(
        self, fraction: float, *, best: str | None = None, detail: str | None = None
    ) -> None:
        """The running stage is done to `fraction` (0 to 1); `best` and `detail` stand until they
        are replaced.
        """

    def note(self, message: str) -> None:
        """Something to know that stays on screen."""


@final
class SilentProgress:
    """Shows nothing."""

    def stage(self, name: str) -> None:
        pass

    def update(
        self, fraction: float, *, best: str | None = None, detail: str | None = None
    ) -> None:
        pass

    def note(self, message: str) -> None:
        pass


@final
class TimeLeft:
    """Seconds until a stage is done, extrapolated from its mean rate.

    The rate counts from the first report on: what a resumed stage had done before cost no time of
    this run.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)

    def update(self, fraction: float) -> None:
        """The stage is done to `fraction` (0 to 1) now; a smaller one than before starts the
        estimate again.
        """
        now = (self._clock(), fraction)
        if self._first is None or fraction < self._last[1]:
            self._first = now
        self._last = now

    def seconds(self) -> float | None:
        """Seconds left, 0 where the estimate has run out; None while too little was done to say."""
        if self._first is None:
            return None
        elapsed_s, done = self._last[0] - self._first[0], self._last[1] - self._first[1]
        if elapsed_s < MIN_ELAPSED_S or done < MIN_FRACTION:
            return None
        left_s = elapsed_s / done * (1.0 - self._last[1])
        return max(0.0, left_s - (self._clock() - self._last[0]))


class _Shown(ABC):
    """Base of the two visible kinds: the running stage as far as it was reported, and a line
    when it is done.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._name: str | None = None
        self._best = ""
        self._begin()

    def _begin(self) -> None:
        self._fraction, self._detail = 0.0, ""
        self._began_s, self._left = self._clock(), TimeLeft(self._clock)

    def stage(self, name: str) -> None:
        self._end()
        self._begin()
        self._name = name

    def update(
        self, fraction: float, *, best: str | None = None, detail: str | None = None
    ) -> None:
        self._fraction = min(max(fraction, 0.0), 1.0)
        self._left.update(self._fraction)
        self._best = self._best if best is None else best
        self._detail = self._detail if detail is None else detail

    @abstractmethod
    def note(self, message: str) -> None: ...

    def _end(self) -> None:
        name, self._name = self._name, None
        if name is not None:
            self.note(f"{name}: done in {duration(self._clock() - self._began_s)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._end()


@final
class LineProgress(_Shown):
    """A line when a stage begins and ends, and one every few seconds in between: for logs and
    pipes.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream
        self._written_s = clock()

    def stage(self, name: str) -> None:
        super().stage(name)
        self.note(name)

    def update(
        self, fraction: float, *, best: str | None = None, detail: str | None = None
    ) -> None:
        super().update(fraction, best=best, detail=detail)
        if self._clock() - self._written_s >= SECONDS_BETWEEN_LINES_S:
            parts = [f"{self._fraction:.0%}", time_left(self._left.seconds())]
            parts += [f"best {self._best}"] if self._best else []
            parts += [self._detail] if self._detail else []
            self.note(f"{self._name}: {', '.join(parts)}")

    def note(self, message: str) -> None:
        print(message, file=self._stream, flush=True)
        self._written_s = self._clock()


class _Line(tqdm):
    """A line of a live display, that asks for what it shows whenever it is drawn."""

    def __init__(self, fields: Callable[[], dict[str, Any]], **options: Any) -> None:
        self._fields = fields
        super().__init__(leave=False, dynamic_ncols=True, **options)

    @property
    def format_dict(self) -> dict[str, Any]:
        return {**super().format_dict, **self._fields()}


@final
class LiveProgress(_Shown):
    """A bar, and a line of the best and the detail, that redraw themselves below the lines that
    stay.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream
        self._lines: list[_Line] = []
        self._ended = threading.Event()
        self._redrawing = threading.Thread(target=self._redraw, name="progress", daemon=True)

    def stage(self, name: str) -> None:
        super().stage(name)
        if not self._lines:
            bar = "{desc}  {bar:30}  {percentage:3.0f}%  {times}"
            self._lines = [
                _Line(self._bar, file=self._stream, position=0, total=1.0, bar_format=bar),
                _Line(self._below, file=self._stream, position=1, bar_format="{desc}"),
            ]

    def note(self, message: str) -> None:
        tqdm.write(message, file=self._stream)

    def __enter__(self) -> Self:
        self._redrawing.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._ended.set()
        self._redrawing.join()
        for line in reversed(self._lines):
            line.close()

    def _redraw(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_REDRAWS_S):
            for line in self._lines:
                line.refresh()

    def _bar(self) -> dict[str, Any]:
        passed, left = duration(self._clock() - self._began_s), time_left(self._left.seconds())
        return {"prefix": self._name or "", "n": self._fraction, "times": f"{passed}  {left}"}

    def _below(self) -> dict[str, Any]:
        best = [f"best {self._best}"] if self._best else []
        return {"prefix": "  ".join([*best, self._detail])}


def show_progress(stream: TextIO | None = None) -> AbstractContextManager[Progress]:
    """A progress display on `stream` (standard error): live on a terminal, lines elsewhere."""
    stream = stream or sys.stderr
    is_live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return LiveProgress(stream) if is_live else LineProgress(stream)


def duration(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def time_left(seconds: float | None) -> str:
    """The time left of a stage, no more exact than it is known."""
    if seconds is None:
        return "estimating the time left"
    if seconds < 5.0:
        return "a few seconds left"
    return f"about {duration(seconds)} left"
