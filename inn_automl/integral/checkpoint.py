"""An integral network on disk: control points as safetensors, coupling and partitions as JSON.

Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.core.storage import replacing
from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.sampling.partition import Partition, partition_from_json

FORMAT_VERSION = 1
TENSORS, DESCRIPTION = "control_points.safetensors", "network.json"


def write(
    folder: Path,
    tensors: Mapping[str, Tensor],
    coupling: Coupling,
    partitions: list[Partition],
    min_ratio: float,
) -> None:
    """Writes both files into a folder, each moved into place when it is complete.

    Raises:
        StorageError: the folder cannot be written.
    """
    description = {
        "format_version": FORMAT_VERSION,
        "min_ratio": min_ratio,
        "coupling": coupling.to_json(),
        "partitions": [partition.to_json() for partition in partitions],
    }
    own = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    # The description is moved last: a folder that has one has its tensors, too.
    with replacing(folder / DESCRIPTION) as described, replacing(folder / TENSORS) as sampled:
        try:
            save_file(own, sampled)
        except SafetensorError as error:
            raise StorageError(
                f"the network cannot be written to {str(folder)!r} ({error}): free or choose space."
            ) from error
        described.write_text(json.dumps(description), encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Tensor], Coupling, list[Partition], float]:
    """Tensors, coupling, partition of each group, and the smallest allowed ratio of a group's
    channels.

    Raises:
        CorruptFileError: a file is missing, unreadable or of another version.
    """
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"format version {description['format_version']}, this release reads "
                f"{FORMAT_VERSION}"
            )
        coupling = Coupling.from_json(description["coupling"])
        partitions = [partition_from_json(value) for value in description["partitions"]]
        if len(partitions) != len(coupling.groups):
            raise ValueError(f"{len(partitions)} partitions of {len(coupling.groups)} groups")
        return load_file(folder / TENSORS), coupling, partitions, float(description["min_ratio"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CorruptFileError(
            f"{str(folder)!r} holds no integral network ({reason}): save it again."
        ) from error
