"""Names of the stages of a job."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A step of a running job, in the order of the members.

    Each stage but `STARTING` is a module of `inn_automl.pipeline` of the same name. The state that
    a stage puts a job into is the coordinator's: `STATE_OF_STAGE` in its `jobs/lifecycle.py`.
    """

    STARTING = "starting"
    """The worker fetches the job's files; nothing of the pipeline runs yet."""
    CHECKING = "checking"
    """The budget is compared with the smallest network, before anything is spent."""
    TRAINING = "training"
    PROFILING = "profiling"
    """Widths are measured on each device, and its cost model is fitted."""
    SEARCHING = "searching"
    MEASURING = "measuring"
    """Finalists are exported and measured."""
    FINE_TUNING = "fine_tuning"
    PUBLISHING = "publishing"
