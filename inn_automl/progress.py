"""How far a job is, for people to see: stage, share done, time left, the best so far.

A pipeline calls a `Progress`; what shows it is one of three: a live display on a terminal, a line every few seconds
elsewhere, or nothing. All of it goes to standard error; standard output is for results.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self, TextIO, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES_S = 5.0
LEAST_SHARE = 0.02
"""Share of a stage that must have been done before its rate is extrapolated."""
LEAST_SECONDS_S = 2.0

Clock = Callable[[], float]


class Progress(Protocol):
    """What a job reports while it runs."""

    def stage(self, name: str) -> None:
        """A stage begins, and the one before it is done."""

    def update(self, fraction: float, *, best: str | None = None, detail: str | None = None) -> None:
        """The running stage is done to `fraction` (0 to 1); `best` and `detail` stand until they are replaced."""

    def note(self, message: str) -> None:
        """Something to know that stays on screen."""


@final
class SilentProgress:
    """Shows nothing."""

    def stage(self, name: str) -> None:
        pass

    def update(self, fraction: float, *, best: str | None = None, detail: str | None = None) -> None:
        pass

    def note(self, message: str) -> None:
        pass


@final
class TimeLeft:
    """Seconds until a stage is done, extrapolated from its mean rate.

    The rate counts from the first report on: what a resumed stage had done before cost no time of this run.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)

    def update(self, fraction: float) -> None:
        """The stage is done to `fraction` (0 to 1) now; a smaller one than before starts the estimate anew."""
        now = (self._clock(), fraction)
        if self._first is None or fraction < self._last[1]:
            self._first = now
        self._last = now

    def seconds(self) -> float | None:
        """Seconds left, 0 where the estimate has run out; None while too little was done to say."""
        if self._first is None:
            return None
        elapsed_s, done = self._last[0] - self._first[0], self._last[1] - self._first[1]
        if elapsed_s < LEAST_SECONDS_S or done < LEAST_SHARE:
            return None
        left_s = elapsed_s / done * (1.0 - self._last[1])
        return max(0.0, left_s - (self._clock() - self._last[0]))


class _Shown(ABC):
    """What the two visible kinds share: the running stage as far as it was reported, and a line when it is done."""

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

    def update(self, fraction: float, *, best: str | None = None, detail: str | None = None) -> None:
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
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end()


@final
class LineProgress(_Shown):
    """A line when a stage begins and ends, and one every few seconds in between: for logs and pipes."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream
        self._written_s = clock()

    def stage(self, name: str) -> None:
        super().stage(name)
        self.note(name)

    def update(self, fraction: float, *, best: str | None = None, detail: str | None = None) -> None:
        super().update(fraction, best=best, detail=detail)
        if self._clock() - self._written_s >= SECONDS_BETWEEN_LINES_S:
            parts = [f"{self._fraction:.0%}", time_left(self._left.seconds())]
            parts += [f"best {self._best}"] if self._best else []
            parts += [self._detail] if self._detail else []
            self.note(f"{self._name}: {', '.join(parts)}")

    def note(self, message: str) -> None:
        print(message, file=self._stream, flush=True)
        self._written_s = self._clock()


@final
class LiveProgress(_Shown):
    """A display that redraws itself, below the lines that stay."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._console = console
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)
        self._live.refresh()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._live.stop()

    def _render(self) -> RenderableType:
        if self._name is None:
            return Text("")
        line = Table.grid(padding=(0, 2))
        line.add_row(
            Text(self._name, style="bold"),
            ProgressBar(total=1.0, completed=self._fraction, width=30),
            f"{self._fraction:.0%}",
            duration(self._clock() - self._began_s),
            time_left(self._left.seconds()),
        )
        below = [Text(f"best {self._best}", style="green")] if self._best else []
        below += [Text(self._detail, style="dim")] if self._detail else []
        return Group(line, *below)


def show_progress(stream: TextIO | None = None) -> AbstractContextManager[Progress]:
    """A progress display on `stream` (standard error): live on a terminal, lines elsewhere."""
    console = Console(file=stream or sys.stderr)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console)
    return LineProgress(stream or sys.stderr)


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
