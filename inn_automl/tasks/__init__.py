"""Tasks: targets, losses and metrics by kind of task, one kind a file, and the `Task` of a job."""

from __future__ import annotations

from inn_automl.tasks.classification import Classification
from inn_automl.tasks.objective import Objective, Score
from inn_automl.tasks.regression import Regression
from inn_automl.tasks.standardized import StandardizedSamples
from inn_automl.tasks.super_resolution import SuperResolution
from inn_automl.tasks.task import Task

__all__ = [
    "Classification",
    "Objective",
    "Regression",
    "Score",
    "StandardizedSamples",
    "SuperResolution",
    "Task",
]
