"""Files of weights: .safetensors, and torch's own files without anything that could run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inn_automl.core.errors import InputError

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Endings of files that `torch.save` wrote."""
_NESTED = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")
"""Keys that training scripts keep a state dict under; averaged weights first, for they are the
ones that were evaluated."""
_LICENCE_KEYS = ("license", "licence")
_SOURCE_KEYS = ("source", "url", "base_model")


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by name, as a file holds them.

    Attributes:
        tensors: in the file's order, which of a .safetensors file says nothing.
        sha256: hash of the file.
        licence: SPDX id or name, as the file says; None if it does not.
        source: as the file says.
    """

    path: Path
    tensors: Mapping[str, Tensor] = field(repr=False)
    sha256: str
    licence: str | None = None
    source: str | None = None


def read_weights(path: Path) -> WeightsFile:
    """Reads a file of weights.

    Args:
        path: a .safetensors file, or one that `torch.save` wrote; a state dict inside of it may
            lie under `state_dict`, `model` or `ema`.

    Raises:
        InputError: the file cannot be read, holds no tensors, or numbers that are not finite.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"the weights {str(path)!r} cannot be read ({error.strerror}): give a file."
        ) from None
    metadata: Mapping[str, str] = {}
    if path.suffix.lower() in TORCH_SUFFIXES:
        tensors = _read_torch(path)
    else:
        tensors, metadata = _read_safetensors(path)
    broken = next((name for name, one in tensors.items() if not torch.isfinite(one).all()), None)
    if broken:
        raise InputError(
            f"{broken!r} in {str(path)!r} holds numbers that are not finite: train it again."
        )
    return WeightsFile(
        path, tensors, sha256, _first(metadata, _LICENCE_KEYS), _first(metadata, _SOURCE_KEYS)
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise InputError(
            f"{str(path)!r} is no .safetensors file ({error}): write it with "
            "safetensors.torch.save_file(module.state_dict(), path), or give it the ending .pth "
            "if torch.save wrote it."
        ) from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no pickle"
        raise InputError(
            f"{str(path)!r} holds more than tensors, or is no file of torch.save ({reason:.200}); "
            "anything else could run code and is not read: write it again with "
            "torch.save(module.state_dict(), path)."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{str(path)!r} is no file that torch.save wrote ({error}): write it with "
            "torch.save(module.state_dict(), path), or as .safetensors."
        ) from None
    found = _state_dict(value)
    if not found:
        held = (
            f"the keys {', '.join(map(str, list(value)[:5]))}"
            if isinstance(value, dict)
            else (f"a {type(value).__name__}")
        )
        raise InputError(
            f"{str(path)!r} holds no tensors by name, but {held}: write it with "
            "torch.save(module.state_dict(), path)."
        )
    return found


def _state_dict(value: Any) -> dict[str, Tensor]:
    """The tensors of a mapping, or of the first one inside of it that has any."""
    if not isinstance(value, Mapping):
        return {}
    for key in _NESTED:
        if found := _state_dict(value.get(key)):
            return found
    return {str(name): one.detach() for name, one in value.items() if isinstance(one, Tensor)}


def _first(metadata: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    return next((metadata[key] for key in keys if metadata.get(key)), None)
