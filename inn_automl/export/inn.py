"""The trained integral network as one file: a ZIP of control_points.safetensors, network.json and
config.json.

Its format is described in docs/reference/inn.md.
"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from inn_automl.core.errors import CorruptFileError, InputError, StorageError
from inn_automl.core.metric import TaskKind
from inn_automl.core.result import WeightsOrigin
from inn_automl.core.storage import write_atomically
from inn_automl.export.archive import pack, sha256, unpack
from inn_automl.export.bundle import CONFIG
from inn_automl.export.records import (
    Build,
    DatasetMetadata,
    FileMetadata,
    Record,
    Standardization,
    installed_versions,
)

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork

CONTROL_POINTS, NETWORK = "control_points.safetensors", "network.json"


class GroupMetadata(Record):
    """A coupled group."""

    smallest: int
    size: int
    step: int
    """Allowed widths are `smallest`, `smallest + step`, ... up to `size`."""
    partition: dict[str, Any]
    """Parameters by which its channels are sampled."""


class InnConfig(Record):
    """config.json of inn.zip. `files`, `versions` and `created_at` are filled in by `write_inn`
    where left out.
    """

    format_version: Literal[1] = 1
    family: str
    build: Build
    groups: dict[str, GroupMetadata]
    """Coupled groups by name, in the order in which they are first produced."""
    task: TaskKind = "classification"
    classes: tuple[str, ...]
    """Classes in the order of the logits; empty for other tasks than classification."""
    preprocessing: Standardization
    targets: Standardization | None = None
    """The network gives (raw target - mean) / std; None for classification."""
    dataset: DatasetMetadata
    weights: WeightsOrigin | None = None
    """Origin and licence of the weights that training started from."""
    files: dict[str, FileMetadata] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    created_at: datetime | None = None
    """UTC."""


def write_inn(path: str | Path, config: InnConfig, network: str | Path) -> InnConfig:
    """Writes inn.zip; the same arguments (`created_at` among them) give the same bytes.

    Args:
        network: the folder that `IntegralNetwork.save` wrote.

    Returns:
        The config as written.

    Raises:
        StorageError: a file could not be read or written.
    """
    try:
        contents = {name: (Path(network) / name).read_bytes() for name in (CONTROL_POINTS, NETWORK)}
    except OSError as error:
        raise StorageError(
            f"the network in {str(network)!r} cannot be read ({error.strerror}): save it."
        ) from error
    config = config.model_copy(
        update={
            "files": {
                name: FileMetadata(sha256=sha256(data), size_bytes=len(data))
                for name, data in contents.items()
            },
            "versions": config.versions or installed_versions(),
            "created_at": config.created_at or datetime.now(UTC).replace(microsecond=0),
        }
    )
    text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(Path(path), pack({CONFIG: text.encode() + b"\n", **contents}))
    return config


def load_inn(path: str | Path, *, trust_factory: bool = False) -> tuple[InnConfig, IntegralNetwork]:
    """The config of an inn.zip and its network, in eval mode; all files are checked against their
    hashes.

    Args:
        trust_factory: import and call the factory that the file names, if its network is one of a
            user's own (`package.module:factory`).

    Raises:
        InputError: the network is of a factory, which is not trusted.
        StorageError: there is no such file, or it cannot be read.
        CorruptFileError: it is no integral network, or was changed since it was written.
    """
    import torch

    from inn_automl.integral import IntegralNetwork
    from inn_automl.models import build
    from inn_automl.models.zoo import is_factory

    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"the network {str(path)!r} cannot be read ({error.strerror}): give its path."
        ) from error
    try:
        contents = unpack(data, (CONFIG, CONTROL_POINTS, NETWORK))
        config = InnConfig.model_validate_json(contents[CONFIG])
        for name in (CONTROL_POINTS, NETWORK):
            if name not in config.files or sha256(contents[name]) != config.files[name].sha256:
                raise ValueError(f"{name} does not have the hash that {CONFIG} names")
    except (ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise CorruptFileError(
            f"{str(path)!r} is no whole integral network ({reason}): download it again."
        ) from error
    if is_factory(config.family) and not trust_factory:
        raise InputError(
            f"the network in {str(path)!r} is made by {config.family!r}, code that would be "
            "imported and run: call load_inn(path, trust_factory=True) if you trust it."
        )
    about = config.build
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        for name in (CONTROL_POINTS, NETWORK):
            write_atomically(Path(folder) / name, contents[name])
        module = build(
            config.family,
            about.input_shape,
            about.num_classes,
            width=about.width,
            depth=about.depth,
            task=about.task,
            scale=about.scale,
        )
        return config, IntegralNetwork.load(folder, module).eval()
