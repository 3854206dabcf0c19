"""What a job needs before its first stage: its model, its samples and its weights.

What can be refused without decoding samples is refused first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inn_automl.core.progress import Progress
from inn_automl.core.spec import JobSpec
from inn_automl.data import Dataset, load_dataset, scan
from inn_automl.models import get_family, serving_family
from inn_automl.models.architecture import Architecture
from inn_automl.models.initial_weights import InitialWeights
from inn_automl.models.zoo import is_zoo_name
from inn_automl.pipeline.choosing import choose
from inn_automl.pipeline.pretrained import Pretrained
from inn_automl.pipeline.weights import check_family_weights, find_weights


@dataclass(frozen=True, eq=False)
class Prepared:
    """A job before its first stage.

    Attributes:
        model: family, or network of the zoo.
        initial: weights that training starts from; None for a fresh network.
        pretrained: network that takes the place of training; None where there is training.
        choices: what was chosen for the user, as sentences.
        notes: on the weights.
    """

    dataset: Dataset
    model: str
    initial: InitialWeights | None = None
    pretrained: Pretrained | None = None
    choices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def metadata(self) -> dict[str, Any]:
        """What a job's result depends on besides its spec, ready for JSON."""
        weights = self.initial or self.pretrained
        return {
            "dataset_fingerprint": self.dataset.fingerprint,
            "model": self.model,
            "preprocessing": preprocessing_metadata(self.dataset),
            "choices": list(self.choices),
            "weights": weights.sha256 if weights else None,
        }


def preprocessing_metadata(dataset: Dataset) -> dict[str, Any] | None:
    """How images were brought to what the network takes; None for signals."""
    return dataset.preprocessing.metadata() if dataset.preprocessing else None


def prepare(spec: JobSpec, folder: Path, progress: Progress) -> Prepared:
    """Chooses, checks and loads what a job needs.

    Args:
        folder: of the job, which may hold the choices of an earlier call.

    Raises:
        InputError: the dataset, the model or the weights cannot be used; nothing was spent.
    """
    scanned = scan(spec.dataset, spec.data)
    choice = choose(spec, scanned, folder)
    weights: InitialWeights | None = None
    notes: list[str] = []
    is_early = choice.model is not None and is_zoo_name(choice.model) and scanned.kind == "image"
    if is_early and choice.model is not None and choice.preprocessing is not None:
        shape = (scanned.channels or 1, *choice.preprocessing.input_size)
        architecture = _zoo_architecture(choice.model, shape, scanned.num_outputs, scanned.task)
        weights, notes = find_weights(spec, architecture, folder)
    if choice.model is None or not is_zoo_name(choice.model):
        check_family_weights(spec, choice.model)

    def show(done: int, total: int) -> None:
        progress.update(done / max(1, total), detail=f"sample {done} of {total} decoded")

    dataset = load_dataset(
        spec.dataset,
        seed=spec.seed,
        options=spec.data,
        preprocessing=choice.preprocessing,
        scanned=scanned,
        on_progress=show,
    )
    model = serving_family(
        choice.model,
        dataset.kind,
        dataset.input_shape,
        dataset.output_shape[0],
        task=dataset.task,
        scale=dataset.scale,
        sample_rate_hz=dataset.sample_rate_hz,
    )
    pretrained = None
    if not is_zoo_name(model):
        pretrained = Pretrained.from_spec(spec, model, dataset)
    elif not is_early:
        architecture = _zoo_architecture(
            model, dataset.input_shape, dataset.output_shape[0], dataset.task
        )
        weights, notes = find_weights(spec, architecture, folder)
    return Prepared(dataset, model, weights, pretrained, choice.notes, tuple(notes))


def _zoo_architecture(
    model: str, input_shape: tuple[int, ...], num_outputs: int | None, task: Any
) -> Architecture:
    serving_family(
        model,
        "image" if len(input_shape) == 3 else "signal",
        input_shape,
        num_outputs or 0,
        task=task,
    )
    depth = get_family(model).default_depth
    return Architecture(model, input_shape, num_outputs or 0, 1.0, depth, task)
