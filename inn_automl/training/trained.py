"""The outcome of a training: its network, recipe and history."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inn_automl.core.result import WeightsOrigin
from inn_automl.integral import IntegralNetwork
from inn_automl.models.architecture import Architecture
from inn_automl.training.recipe import Recipe
from inn_automl.training.run import EpochReport

OUTCOME = "outcome.json"
"""File of a finished trial's folder that `Trained.to_dict` is written to."""


@dataclass(frozen=True)
class Trained:
    """A trained integral network, with the recipe and the history of its training."""

    architecture: Architecture
    folder: Path
    """Folder that `IntegralNetwork.save` wrote."""
    recipe: Recipe
    stopped: str
    """ "epochs", "deadline", or "rival" where the scheduler stopped it for a better trial."""
    best_score: float
    history: list[EpochReport]
    weights: WeightsOrigin | None = None
    """Origin of the weights that training started from; None if it started from nothing."""

    @property
    def score(self) -> float:
        """Best mean metric value over widths, by which trials compare; -inf where reduced widths
        were never trained.
        """
        return -math.inf if self.history and self.history[-1].is_warmup else self.best_score

    def network(self) -> IntegralNetwork:
        """The network, read from its folder."""
        return self.architecture.load(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form without the folder, which `from_dict` takes beside it."""
        return {
            "architecture": self.architecture.to_dict(),
            "recipe": self.recipe.to_dict(),
            "stopped": self.stopped,
            "best_score": self.best_score,
            "history": [dataclasses.asdict(report) for report in self.history],
            "weights": self.weights and self.weights.model_dump(mode="json"),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], folder: Path) -> Trained:
        """Reads the output of `to_dict`."""
        return cls(
            architecture=Architecture.from_dict(value["architecture"]),
            folder=folder,
            recipe=Recipe.from_dict(value["recipe"]),
            stopped=value["stopped"],
            best_score=value["best_score"],
            history=[EpochReport(**report) for report in value["history"]],
            weights=WeightsOrigin.model_validate(found)
            if (found := value.get("weights"))
            else None,
        )
