"""The models of a job that are tuned: each leaves what came of it in files, so that it is tuned
once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save
from torch import nn

from inn_automl.core.storage import read_json, write_atomically, write_json
from inn_automl.evaluation.candidates import CandidateBuilder
from inn_automl.training.fine_tuning import FineTuned, FineTuningOutcome, fine_tune
from inn_automl.training.trial import Trained

if TYPE_CHECKING:
    from inn_automl.tasks import Task


@dataclass(frozen=True)
class FineTuningRequest:
    """One model of a job that is to be tuned."""

    widths: dict[str, int]
    path: Path
    """Without an ending: the outcome is in .json, the weights of a tuned model that is kept in
    .safetensors.
    """
    seconds: float
    seed: int
    steps: int | None = None
    """How many to take, however long they take; None for as many as fit."""

    @property
    def is_done(self) -> bool:
        return self._outcome.exists()

    @property
    def weights(self) -> Path:
        return self.path.with_name(f"{self.path.name}.safetensors")

    @property
    def _outcome(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def read(self) -> FineTuningOutcome:
        return FineTuningOutcome(**read_json(self._outcome))

    def write(self, tuned: FineTuned) -> None:
        """Keeps what came of it, the outcome last."""
        if tuned.outcome.is_kept:
            module = tuned.candidate.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            tensors = {
                name: tensor.cpu().contiguous().clone()
                for name, tensor in module.state_dict().items()
            }
            write_atomically(self.weights, save(tensors))
        write_json(self._outcome, asdict(tuned.outcome))


class FineTuner:
    """Tunes models of one network; what is shared between them is made once, when it is needed."""

    def __init__(self, trained: Trained, task: Task) -> None:
        self._trained, self._task = trained, task
        self._candidates: CandidateBuilder | None = None

    def __call__(self, request: FineTuningRequest) -> FineTuningOutcome:
        """What came of a request, now or earlier.

        Raises:
            WidthsError: widths that the network does not allow.
            StorageError: the outcome cannot be written, or read.
        """
        if not request.is_done:
            if self._candidates is None:
                network = self._trained.network().to(self._task.device)
                self._candidates = CandidateBuilder.from_network(network, self._task)
            candidates, seconds = self._candidates, request.seconds
            request.write(
                fine_tune(
                    candidates,
                    request.widths,
                    self._task,
                    seconds=seconds,
                    seed=request.seed,
                    steps=request.steps,
                )
            )
        return request.read()


def load_fine_tuned(trained: Trained, request: FineTuningRequest) -> nn.Module:
    """The plain module in eval mode that a request kept."""
    module = trained.network().discretize(request.widths)
    module.load_state_dict(load_file(request.weights))
    return module.eval()
