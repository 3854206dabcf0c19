"""Where a job's weights come from: a file, the library of its model, or nowhere.

Weights of one of our families were made by this program, and take the place of training
(`pipeline.pretrained`). Weights of a network of the zoo are where training starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inn_automl.core.errors import InputError, SpecError
from inn_automl.core.result import WeightsOrigin
from inn_automl.core.spec import JobSpec
from inn_automl.data import Dataset
from inn_automl.models import get_family
from inn_automl.models.architecture import Architecture
from inn_automl.models.initial_weights import InitialWeights
from inn_automl.models.weight_fitting import fit_weights
from inn_automl.models.weights import WeightsFile, read_weights
from inn_automl.models.zoo import UNKNOWN_LICENCE, is_zoo_name, library_of
from inn_automl.models.zoo.library import check_runs
from inn_automl.pipeline.pretrained import Pretrained
from inn_automl.pipeline.training import START

AUTO, NONE = "auto", "none"
_GIVEN_BY_USER = f"{UNKNOWN_LICENCE}: given by the user"
_NUM_OFFLINE_WORDS = 200


def zoo_architecture(model: str, dataset: Dataset) -> Architecture:
    """The architecture of a network of the zoo for a dataset.

    Raises:
        SpecError: the network does not run on the dataset's samples.
    """
    architecture = Architecture.from_dataset(dataset, model, 1.0, get_family(model).default_depth)
    with torch.random.fork_rng(devices=[]):
        module = architecture.module()
    check_runs(module, model, dataset.input_shape, architecture.num_classes)
    return architecture


def find_weights(
    spec: JobSpec, model: str, dataset: Dataset, folder: Path
) -> tuple[Pretrained | InitialWeights | None, list[str]]:
    """The weights that a job asks for, and notes on them.

    Args:
        model: that the job trains.
        folder: of the job, which may have them from an earlier call.

    Raises:
        InputError: they cannot be had, or do not fit; nothing was spent.
    """
    if not is_zoo_name(model):
        return _for_family(spec, model, dataset), []
    architecture = zoo_architecture(model, dataset)
    if spec.weights == NONE:
        return None, [f"{model} is trained from nothing, as --weights none says"]
    if spec.weights in (None, AUTO) and (folder / START).exists():
        found = InitialWeights.load(folder / START)
        return found, _notes(model, found)
    if spec.weights in (None, AUTO):
        try:
            found = _from_library(model, architecture)
        except InputError as error:
            if spec.weights == AUTO:
                raise
            return None, [f"{model} is trained from nothing: {error}"]
    else:
        found = _from_file(read_weights(Path(spec.weights)), architecture)
    return found, _notes(model, found)


def _for_family(spec: JobSpec, family: str, dataset: Dataset) -> Pretrained | None:
    if spec.weights in (None, NONE):
        return None
    if spec.weights == AUTO:
        raise SpecError(
            f"nothing offers weights for model {family!r}: give a file of them, --weights none, "
            "or a --model of a library, such as timm:tf_efficientnet_lite0."
        )
    return Pretrained.read(Path(spec.weights), family, dataset)


def _from_library(model: str, architecture: Architecture) -> InitialWeights:
    library, name = library_of(model)
    tensors = library.pretrained(name)
    config = library.config(name)
    source = config.source if config else model
    licence = config.licence if config else UNKNOWN_LICENCE
    return _fit(architecture, tensors, f"the weights of {source}", source, licence, _hash(tensors))


def _from_file(file: WeightsFile, architecture: Architecture) -> InitialWeights:
    what = f"the weights {str(file.path)!r}"
    source = file.source or file.path.name
    return _fit(
        architecture, file.tensors, what, source, file.licence or _GIVEN_BY_USER, file.sha256
    )


def _fit(
    architecture: Architecture,
    tensors: Mapping[str, Tensor],
    what: str,
    source: str,
    licence: str,
    sha256: str,
) -> InitialWeights:
    with torch.random.fork_rng(devices=[]):
        module = architecture.module()
    fitted = fit_weights(
        tensors, module, architecture.num_classes, what=what, model=architecture.model
    )
    origin = WeightsOrigin(source=source, licence=licence, sha256=sha256, notes=fitted.notes)
    return InitialWeights(fitted.tensors, fitted.new, origin)


def _notes(model: str, found: InitialWeights) -> list[str]:
    origin = found.origin
    return [
        f"{model} starts from the weights {origin.source}, licence: {origin.licence}",
        *origin.notes,
    ]


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
