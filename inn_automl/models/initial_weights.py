"""The weights that training starts from: values of a network's tensors, with their origin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from inn_automl.core.errors import CorruptFileError
from inn_automl.core.result import WeightsOrigin
from inn_automl.core.storage import write_atomically

_ORIGIN, _NEW = "origin", "new"


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """Values for the tensors of a freshly initialized network.

    Attributes:
        tensors: by the network's names; those of a replaced head are not among them.
        new: names of the parameters that stay as they are initialized.
        origin: where the values come from.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    new: tuple[str, ...]
    origin: WeightsOrigin

    @property
    def sha256(self) -> str:
        """Hash of where they come from."""
        return self.origin.sha256

    def load_into(self, module: nn.Module) -> None:
        """Puts the values into a module of the architecture that they were fitted to."""
        own = module.state_dict()
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                own[name].copy_(tensor)

    def save(self, path: Path) -> None:
        """Writes a .safetensors file, which `load` reads.

        Raises:
            StorageError: the file cannot be written.
        """
        tensors = {name: one.contiguous().clone() for name, one in self.tensors.items()}
        metadata = {_ORIGIN: self.origin.model_dump_json(), _NEW: json.dumps(self.new)}
        write_atomically(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> InitialWeights:
        """Reads the file that `save` wrote.

        Raises:
            CorruptFileError: it is not such a file.
        """
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata()
            origin = WeightsOrigin.model_validate_json(metadata[_ORIGIN])
            return cls(tensors, tuple(json.loads(metadata[_NEW])), origin)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"{str(path)!r} holds no initial weights ({error}): run a new job."
            ) from error
