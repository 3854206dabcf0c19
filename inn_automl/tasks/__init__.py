"""What a task is: how a network is trained for it, and what its metric value is. One task a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inn_automl.tasks.classification import Classification
from inn_automl.tasks.objective import Objective, Score
from inn_automl.tasks.regression import Regression
from inn_automl.tasks.super_resolution import SuperResolution

if TYPE_CHECKING:
    from inn_automl.data import Dataset

__all__ = ["Classification", "Objective", "Regression", "Score", "SuperResolution", "objective_of"]


def objective_of(dataset: Dataset) -> Objective:
    """The objective of a dataset's task."""
    if dataset.task == "classification":
        return Classification(dataset)
    return Regression(dataset) if dataset.task == "regression" else SuperResolution(dataset)
