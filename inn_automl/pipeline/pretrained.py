"""Pretrained weights in place of training: the channels are ranked, and nothing is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from inn_automl.core.errors import InputError
from inn_automl.core.spec import NONE, JobSpec
from inn_automl.core.stage import Stage
from inn_automl.core.storage import write_json
from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import CandidateBuilder, reconstruction_samples
from inn_automl.integral import IntegralNetwork
from inn_automl.integral.conversion.channel_ranking import permute, rank_channels
from inn_automl.models import get_family
from inn_automl.models.architecture import Architecture
from inn_automl.models.weights import read_weights
from inn_automl.pipeline.checking import check_trained
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.records import TrainedTrials
from inn_automl.pipeline.training import DONE, read_trials
from inn_automl.tasks import Task
from inn_automl.training.recipe import default_recipe
from inn_automl.training.trained import OUTCOME, Trained

STOPPED = "pretrained"
"""How the training of such a network ended, as its record says."""
_TRIAL = "pretrained"


@dataclass(frozen=True)
class Pretrained:
    """The tensors of a file of weights, and the architecture of a family that they fit.

    Attributes:
        sha256: hash of the file.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    architecture: Architecture
    sha256: str

    @classmethod
    def read(cls, path: Path, family: str, dataset: Dataset) -> Pretrained:
        """Reads a file of weights.

        Args:
            path: the `state_dict` of a module that `inn_automl.models.build` makes, at any of the
                family's widths and depths, trained on data that is standardized with the dataset's
                mean and std.

        Raises:
            InputError: the file cannot be read, or its tensors fit no architecture of the family;
                names the first that does not fit the nearest one.
        """
        file = read_weights(path)
        return cls(file.tensors, _fitting(file.tensors, family, dataset, path), file.sha256)

    @classmethod
    def from_spec(cls, spec: JobSpec, family: str, dataset: Dataset) -> Pretrained | None:
        """The file of weights that a job of a family names; None if it names none.

        Raises:
            InputError: see `read`.
        """
        if spec.weights in (None, NONE):
            return None
        return cls.read(Path(spec.weights), family, dataset)

    def network(self, task: Task) -> IntegralNetwork:
        """The network with its channels in order."""
        module = self.architecture.module()
        module.load_state_dict(self.tensors)
        network = IntegralNetwork(
            module.eval(), torch.zeros(2, *self.architecture.input_shape)
        ).eval()
        permute(
            network, rank_channels(network, reconstruction_samples(task.recalibration_samples()))
        )
        return network


def use_pretrained(context: JobContext, pretrained: Pretrained) -> TrainedTrials:
    """Puts the network into the job's folder, as if it had been trained there.

    Raises:
        InputError: there are too few samples to order channels by.
        ImpossibleBudgetError: its narrowest widths miss a bound.
        StorageError: a file could not be written.
    """
    folder, dataset = context.folder / "training" / _TRIAL, context.task.dataset
    if not (context.folder / DONE).exists():
        network = pretrained.network(context.task)
        network.save(folder / "network")
        recipe = default_recipe(context.family, len(dataset.train), dataset.task)
        score = _score(network, context.task)
        trained = Trained(pretrained.architecture, folder / "network", recipe, STOPPED, score, [])
        with context.stage(Stage.CHECKING):
            check_trained(context, trained)
        write_json(folder / OUTCOME, trained.to_dict())
        write_json(context.folder / DONE, [_TRIAL])
    return read_trials(context)


def _score(network: IntegralNetwork, task: Task) -> float:
    """The score of a training: mean validation metric value of the smallest, a middle and the
    full width.
    """
    candidates, middle = (
        CandidateBuilder.from_network(network, task),
        network.uniform_widths((network.min_ratio + 1) / 2),
    )
    made = [
        candidates.build(widths)
        for widths in (network.smallest_widths, middle, network.full_widths)
    ]
    return sum(one.score.value for one in made) / len(made)


def _fitting(
    tensors: Mapping[str, Tensor], family: str, dataset: Dataset, path: Path
) -> Architecture:
    found: list[tuple[int, str, Architecture]] = []
    for architecture in _architectures(family, dataset):
        with torch.random.fork_rng(devices=[]):
            wanted = architecture.module().state_dict()
        errors = _errors(tensors, wanted)
        if not errors:
            return architecture
        found.append((len(errors), errors[0], architecture))
    _, error, nearest = min(found, key=lambda one: one[0])
    raise InputError(
        f"the tensors of {str(path)!r} fit no network of model {family!r} for this dataset (the "
        f"nearest has width "
        f"{nearest.width:g} and depth {nearest.depth}): {error}. Give the state_dict of a module "
        f"that "
        "inn_automl.models.build makes, or another --model."
    )


def _architectures(family: str, dataset: Dataset) -> Iterator[Architecture]:
    """The default first."""
    of = get_family(family)
    depths = sorted(of.depths, key=lambda depth: abs(depth - of.default_depth))
    widths = sorted({1.0, *of.width_multipliers}, key=lambda width: abs(width - 1.0))
    for depth, width in itertools.product(depths, widths):
        yield Architecture.from_dataset(dataset, family, width, depth)


def _errors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Mismatches between tensors and an architecture, a clause each."""
    errors = []
    for name, tensor in wanted.items():
        if name not in tensors:
            errors.append(f"{name!r} is missing")
        elif tensors[name].shape != tensor.shape:
            errors.append(
                f"{name!r} has shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            )
    return errors + [f"{name!r} is unknown to it" for name in tensors if name not in wanted]
