"""The seam to what runs the attempts at jobs: a Ray cluster, or a stand-in."""

from __future__ import annotations

import abc
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from inn_automl.core.errors import BackendError, InnAutomlError


class RunnerUnavailableError(BackendError):
    """The cluster does not answer at the moment; the same call may succeed later."""


class RunState(StrEnum):
    """State of a run's process. Whether its job succeeded is known to the coordinator only."""

    PENDING = "pending"
    """Waits for resources; its process was not started yet."""
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Submission:
    """An attempt at a job that is to be started."""

    job_id: str
    attempt: int
    submission_id: str
    """Starting the same one again does nothing."""
    token: str = field(repr=False)


@dataclass(frozen=True)
class RunStatus:
    """An attempt, as the runner sees it."""

    submission_id: str
    job_id: str
    state: RunState
    message: str = ""
    """The reason of its end, in the runner's words."""
    began: bool = True
    """False if the run ended before its process was started, as the cluster had no resources."""
    ended_at: datetime | None = None

    @property
    def log_fields(self) -> dict[str, str]:
        return {"job_id": self.job_id, "submission_id": self.submission_id}


class Runner(abc.ABC):
    """Starts, watches and stops runs. Every method may raise `RunnerAwayError`; all may be called
    again.
    """

    @abc.abstractmethod
    def check(self) -> None:
        """
        Raises:
            RunnerAwayError: nothing can be started now.
        """

    @abc.abstractmethod
    def submit(self, submission: Submission) -> None:
        """Hands a run over; returns before it begins.

        Raises:
            BackendError: the runner refuses it.
        """

    @abc.abstractmethod
    def runs(self) -> dict[str, RunStatus]:
        """Every run of this coordinator's installation that the runner knows, by submission id."""

    @abc.abstractmethod
    def stop(self, submission_id: str) -> None:
        """Ends a run and its children; returns before they are gone. One that is not there is as
        good as stopped.
        """

    @abc.abstractmethod
    def log(self, submission_id: str) -> str:
        """Everything a run has printed so far; empty for one that is not there."""

    @abc.abstractmethod
    def forget(self, submission_id: str) -> None:
        """Drops the runner's record of a run that has ended."""

    def close(self) -> None:  # noqa: B027 - most runners hold nothing
        """Frees what the runner holds."""


@contextmanager
def tolerate_failure(
    logger: logging.Logger, message: str, extra: Mapping[str, Any]
) -> Iterator[None]:
    """Logs an error of ours in place of raising it: the next tick tries again what failed."""
    try:
        yield
    except InnAutomlError as error:
        logger.warning("%s: %s", message, error, extra=extra)
