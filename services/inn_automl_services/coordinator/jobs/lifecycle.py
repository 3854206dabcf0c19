"""States of a job: legal transitions, and a pure function from (state, event) to (state, action).

queued -> training -> searching -> measuring -> publishing -> succeeded
   running -> queued            its run was lost, or failed in a way that another attempt may not
   any that has not ended -> failed
   queued -> cancelled;  running -> cancelling -> cancelled
   failed, cancelled -> queued  when a user retries it
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from inn_automl.api.jobs import ENDED, RUNNING, JobKind, JobState
from inn_automl.core.errors import ConflictError
from inn_automl.core.stage import Stage

_Q, _F, _C = JobState.QUEUED, JobState.FAILED, JobState.CANCELLED

TRANSITIONS: frozenset[tuple[JobState, JobState]] = frozenset(
    {(_Q, state) for state in RUNNING}
    | {(before, after) for i, before in enumerate(RUNNING) for after in RUNNING[i + 1 :]}
    | {
        (state, after)
        for state in RUNNING
        for after in (_Q, _F, JobState.CANCELLING, JobState.SUCCEEDED)
    }
    | {(_Q, _F), (_Q, _C), (JobState.CANCELLING, _C)}
    | {(_F, _Q), (_C, _Q)}
)
"""Every pair of states that a job may change from and to."""

FIRST_STATE = {
    JobKind.SEARCH: JobState.TRAINING,
    JobKind.EXTEND: JobState.SEARCHING,
    JobKind.DISCRETIZE: JobState.PUBLISHING,
}
"""First state of a run of each kind."""

STATE_OF_STAGE = {
    Stage.STARTING: None,
    Stage.CHECKING: None,
    Stage.TRAINING: JobState.TRAINING,
    Stage.PROFILING: JobState.SEARCHING,
    Stage.SEARCHING: JobState.SEARCHING,
    Stage.MEASURING: JobState.MEASURING,
    Stage.FINE_TUNING: JobState.MEASURING,
    Stage.PUBLISHING: JobState.PUBLISHING,
}
"""The state that a run's stage puts its job into; None for those that leave it as it is."""


class Action(Enum):
    """Action that a transition requires beyond the new state."""

    NOTHING = auto()
    LEASE = auto()
    """Begin a new attempt under a new lease."""
    RELEASE = auto()
    """End the attempt's lease: whatever it still sends is refused, and its run is stopped."""
    FINISH = auto()
    """RELEASE of a job that has ended."""
    RESET = auto()
    """Queue it as if it were new: attempts are counted from 0 again."""


@dataclass(frozen=True)
class Claimed:
    """The dispatcher claims the job."""

    kind: JobKind


@dataclass(frozen=True)
class StageReached:
    """The job's run reports its stage."""

    stage: Stage


@dataclass(frozen=True)
class RunSucceeded:
    """The job's run delivered the result."""


@dataclass(frozen=True)
class RunFailed:
    """The job's run ended without a result."""

    retryable: bool


@dataclass(frozen=True)
class RunLost:
    """The job's run sent nothing until the lease ended, or Ray does not list it any more."""


@dataclass(frozen=True)
class CancelRequested:
    """A user cancels the job."""


@dataclass(frozen=True)
class RunStopped:
    """The run of a job that was to be cancelled has ended."""


@dataclass(frozen=True)
class RetryRequested:
    """A user wants another try."""


Event = (
    Claimed
    | StageReached
    | RunSucceeded
    | RunFailed
    | RunLost
    | CancelRequested
    | RunStopped
    | RetryRequested
)


@dataclass(frozen=True)
class Transition:
    """New state of a job, and the action that the transition requires."""

    state: JobState
    action: Action = Action.NOTHING


def transition(state: JobState, event: Event, *, attempts_left: bool) -> Transition:
    """Maps a job's state and an event to a transition.

    Args:
        attempts_left: whether the job may be started once more.

    Raises:
        ConflictError: the event is impossible in this state.
    """
    running = state in RUNNING
    match event:
        case Claimed(kind) if state is _Q:
            return Transition(FIRST_STATE[kind], Action.LEASE)
        case StageReached(stage) if running:
            reached = STATE_OF_STAGE[stage]
            # Stages that were finished before are passed again in a moment: a job never seems to
            # go back.
            forward = reached is not None and RUNNING.index(reached) > RUNNING.index(state)
            return Transition(reached if forward and reached else state)
        case StageReached() if state is JobState.CANCELLING:
            return Transition(state)
        case RunSucceeded() if running:
            return Transition(JobState.SUCCEEDED, Action.FINISH)
        case RunFailed(retryable) if running:
            return (
                Transition(_Q, Action.RELEASE)
                if retryable and attempts_left
                else Transition(_F, Action.FINISH)
            )
        case RunLost() if running:
            return (
                Transition(_Q, Action.RELEASE) if attempts_left else Transition(_F, Action.FINISH)
            )
        case RunSucceeded() | RunFailed() | RunLost() | RunStopped() if (
            state is JobState.CANCELLING
        ):
            return Transition(_C, Action.FINISH)
        case CancelRequested() if state is _Q:
            return Transition(_C, Action.FINISH)
        case CancelRequested() if running:
            return Transition(JobState.CANCELLING)
        case CancelRequested() if state in (JobState.CANCELLING, _C):
            return Transition(state)
        case RetryRequested() if state in (_F, _C):
            return Transition(_Q, Action.RESET)
    ended = " and has ended" if state in ENDED else ""
    raise ConflictError(f"the job is {state}{ended}: {_WANTS[type(event)]}.")


_WANTS = {
    Claimed: "only a queued job can be started",
    StageReached: "only a running job has stages",
    RunSucceeded: "only a running job can succeed",
    RunFailed: "only a running job can fail",
    RunLost: "only a running job can be lost",
    RunStopped: "only a job that is being cancelled waits for its run to stop",
    CancelRequested: "only a job that has not ended can be cancelled",
    RetryRequested: "only a failed or cancelled job can be retried",
}
