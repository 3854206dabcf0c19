"""Requests of a job to fine-tune models. The outcome of each is stored in files, so that it is
fine-tuned once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save
from torch import nn

from inn_automl.core.storage import read_json, write_atomically, write_json
from inn_automl.evaluation.building import make_builder
from inn_automl.evaluation.candidates import CandidateBuilder
from inn_automl.training.fine_tuning import FineTuned, FineTuningOutcome, fine_tune
from inn_automl.training.trained import Trained

if TYPE_CHECKING:
    from inn_automl.tasks import Task


@dataclass(frozen=True)
class FineTuningRequest:
    """Request to fine-tune one model of a job."""

    widths: dict[str, int]
    path: Path
    """Without an ending: the outcome is in .json, the weights of a fine-tuned model that is kept
    in .safetensors.
    """
    seconds: float
    seed: int
    steps: int | None = None
    """Number of steps, however long they take; None for as many as fit."""

    @property
    def is_done(self) -> bool:
        """True if the outcome is stored."""
        return self._outcome.exists()

    @property
    def weights(self) -> Path:
        """File of the fine-tuned weights, if they are kept."""
        return self.path.with_name(f"{self.path.name}.safetensors")

    @property
    def _outcome(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def read(self) -> FineTuningOutcome:
        """Reads the stored outcome."""
        return FineTuningOutcome(**read_json(self._outcome))

    def write(self, tuned: FineTuned) -> None:
        """Stores weights that are kept, and then the outcome."""
        if tuned.outcome.is_kept:
            module = tuned.candidate.module
            module.to(memory_format=torch.contiguous_format)
            tensors = {
                name: tensor.cpu().contiguous().clone()
                for name, tensor in module.state_dict().items()
            }
            write_atomically(self.weights, save(tensors))
        write_json(self._outcome, asdict(tuned.outcome))


class FineTuner:
    """Fine-tunes models of one network, from candidates that are prepared once."""

    def __init__(self, trained: Trained, task: Task) -> None:
        self._trained, self._task = trained, task
        self._candidates: CandidateBuilder | None = None

    def __call__(self, request: FineTuningRequest) -> FineTuningOutcome:
        """The outcome of a request; fine-tunes only where none is stored.

        Raises:
            WidthsError: widths that the network does not allow.
            StorageError: the outcome cannot be written, or read.
        """
        if not request.is_done:
            if self._candidates is None:
                network = self._trained.network().to(self._task.device)
                self._candidates = make_builder(network, self._task, self._trained.folder)
            tuned = fine_tune(
                self._candidates,
                request.widths,
                self._task,
                seconds=request.seconds,
                seed=request.seed,
                steps=request.steps,
                transforms=self._trained.recipe.transforms,
            )
            request.write(tuned)
        return request.read()


def load_fine_tuned(trained: Trained, request: FineTuningRequest) -> nn.Module:
    """Loads the fine-tuned module of a request, in eval mode."""
    module = trained.network().discretize(request.widths)
    module.load_state_dict(load_file(request.weights))
    return module.eval()
