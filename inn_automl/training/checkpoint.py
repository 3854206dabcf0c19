"""Training state on disk: one safetensors file whose header carries the rest as JSON. Nothing is
pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.core.storage import replacing

_HEADER_KEY = "state"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Writes tensors and JSON-ready state to one file, which another process sees whole or not at
    all.

    Raises:
        StorageError: the file cannot be written.
    """
    # Clones, because safetensors refuses the shared memory of tied parameters.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(own, temporary, metadata={_HEADER_KEY: json.dumps(state)})
        except SafetensorError as error:
            raise StorageError(
                f"the checkpoint {str(path)!r} cannot be written ({error}): make room or give "
                "another path."
            ) from error


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads the output of `save_checkpoint`; tensors are on the CPU.

    Raises:
        CorruptFileError: the file is not a checkpoint.
        StorageError: the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[_HEADER_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptFileError(
            f"{str(path)!r} is not a training checkpoint ({error}): delete it to train from the "
            f"start."
        ) from error
    except OSError as error:
        raise StorageError(
            f"the checkpoint {str(path)!r} cannot be read ({error}): make it readable."
        ) from error


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix.name`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `prefixed` put under this prefix, by their own names."""
    return {
        name.removeprefix(f"{prefix}."): t
        for name, t in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def optimizer_tensors(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An optimizer's state, all of which is tensors for SGD and AdamW, as `key:parameter`.

    Args:
        parameters: by name, in the order of the optimizer's groups.
    """
    state = optimizer.state_dict()["state"]
    return {
        f"{key}:{name}": value
        for index, name in enumerate(parameters)
        for key, value in state.get(index, {}).items()
        if value is not None
    }


def load_optimizer_tensors(
    optimizer: Optimizer, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Restores the output of `optimizer_tensors` for the same parameters."""
    position = {name: index for index, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        key, _, name = full_name.partition(":")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # In the memory layout of the parameter: another one may round differently.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(position[name], {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
