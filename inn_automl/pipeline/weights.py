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
from inn_automl.core.spec import AUTO, NONE, JobSpec
from inn_automl.models.architecture import Architecture
from inn_automl.models.initial_weights import InitialWeights
from inn_automl.models.weight_fitting import fit_weights
from inn_automl.models.weights import WeightsFile, read_weights
from inn_automl.models.zoo import UNKNOWN_LICENCE, library_of
from inn_automl.models.zoo.library import check_runs

START = "training/start.safetensors"
"""The weights that training starts from, in a job's folder."""
_GIVEN_BY_USER = f"{UNKNOWN_LICENCE}: given by the user"


def find_weights(
    spec: JobSpec, architecture: Architecture, folder: Path
) -> tuple[InitialWeights | None, list[str]]:
    """The weights that the training of a network of the zoo starts from, and notes on them.

    Args:
        architecture: of a network of the zoo.
        folder: of the job, which may have them from an earlier call.

    Raises:
        SpecError: the network does not run on samples of the architecture's shape.
        InputError: the weights cannot be had, or do not fit; nothing was spent.
    """
    model = architecture.model
    with torch.random.fork_rng(devices=[]):
        module = architecture.module()
    check_runs(module, model, architecture.input_shape, architecture.num_classes)
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


def check_family_weights(spec: JobSpec, family: str | None) -> None:
    """Refuses weights that no family has.

    Raises:
        SpecError: a library's weights are asked for one of our families.
    """
    if spec.weights == AUTO:
        model = f"model {family!r}" if family else "the model that suits these data"
        raise SpecError(
            f"nothing offers weights for {model}: give a file of them, --weights none, or a "
            "--model of a library, such as timm:tf_efficientnet_lite0."
        )


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
