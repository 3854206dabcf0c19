"""A job's progress, to the coordinator and to the job's log."""

from __future__ import annotations

import sys
from collections.abc import Callable

from inn_automl.api.jobs import JobProgress
from inn_automl.core.progress import LineProgress, Progress, TimeLeft
from inn_automl.core.stage import Stage
from inn_automl_workers.reporter import Reporter, printable


class RunProgress:
    """A job's progress, to the coordinator and as lines of the log.

    Args:
        on_stage: called when a stage begins, after the one before it left its results.
    """

    def __init__(self, reporter: Reporter, on_stage: Callable[[], None] | None = None) -> None:
        self._reporter, self._on_stage = reporter, on_stage
        self._lines: Progress = LineProgress(sys.stdout)
        self._stage, self._best, self._detail = Stage.STARTING, "", ""
        self._left = TimeLeft()

    def stage(self, name: str) -> None:
        if self._on_stage is not None:
            self._on_stage()
        self._stage, self._detail, self._left = Stage(name), "", TimeLeft()
        self._lines.stage(name)
        self._reporter.report(JobProgress(stage=self._stage, best=self._best or None), now=True)

    def update(
        self, fraction: float, *, best: str | None = None, detail: str | None = None
    ) -> None:
        fraction = min(max(fraction, 0.0), 1.0)
        self._lines.update(fraction, best=best, detail=detail)
        self._left.update(fraction)
        self._best = self._best if best is None else best
        self._detail = self._detail if detail is None else detail
        self._reporter.report(
            JobProgress(
                stage=self._stage,
                fraction=fraction,
                seconds_left=self._left.seconds(),
                best=printable(self._best) or None,
                detail=printable(self._detail) or None,
            )
        )

    def note(self, message: str) -> None:
        self._lines.note(message)
        self._reporter.note(message)
