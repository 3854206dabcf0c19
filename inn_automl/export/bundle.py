"""The file that a user downloads: a ZIP of model.onnx, weights.safetensors and config.json.

Its format is described in docs/reference/bundle.md, with how to read it without this library.
Reading it here needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.core.storage import write_atomically
from inn_automl.export.archive import pack, sha256, unpack
from inn_automl.export.records import BundleConfig, FileMetadata, installed_versions

if TYPE_CHECKING:
    from torch import Tensor

ONNX, WEIGHTS, CONFIG = "model.onnx", "weights.safetensors", "config.json"


def write_bundle(
    path: str | Path, config: BundleConfig, *, onnx: str | Path, weights: Mapping[str, Tensor]
) -> BundleConfig:
    """Writes a bundle; the same arguments (`created_at` among them) give the same bytes.

    Args:
        config: everything that is known of the model.
        onnx: a verified ONNX file, as `OnnxTemplate.export` writes it.
        weights: the state dict of the discretized module.

    Returns:
        The config as written.

    Raises:
        StorageError: `onnx` could not be read, or the bundle not written; on a full disk it says
            how many bytes are needed.
    """
    from safetensors.numpy import save  # not there where bundles are only read

    path, onnx = Path(path), Path(onnx)
    try:
        model = onnx.read_bytes()
    except OSError as error:
        raise StorageError(
            f"{str(onnx)!r} cannot be read ({error.strerror}): export the model first."
        ) from error
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in weights.items()}
    contents = {ONNX: model, WEIGHTS: save(arrays, metadata={"format": "pt"})}
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
    write_atomically(path, pack({CONFIG: text.encode() + b"\n", **contents}))
    return config


def read_bundle(path: str | Path) -> BundleConfig:
    """The config of a bundle, all of whose files have been checked against their hashes.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        CorruptFileError: it is no bundle, or was changed since it was written.
    """
    return open_bundle(path)[0]


def extract_bundle(path: str | Path, folder: str | Path) -> BundleConfig:
    """Checks a bundle as `read_bundle` does and writes its three files into `folder`.

    Raises:
        StorageError: the bundle cannot be read, or the folder not be written to.
        CorruptFileError: it is no bundle, or was changed since it was written.
    """
    config, contents = open_bundle(path)
    for name, data in contents.items():
        write_atomically(Path(folder) / name, data)
    return config


def open_bundle(path: str | Path) -> tuple[BundleConfig, dict[str, bytes]]:
    """The config of a bundle and its three files, checked as by `read_bundle`.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        CorruptFileError: it is no bundle, or was changed since it was written.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"the bundle {str(path)!r} cannot be read ({error.strerror}): give its path."
        ) from error
    contents = _unpack(path, data)
    config = _parse(path, contents[CONFIG])
    for name in (ONNX, WEIGHTS):
        if sha256(contents[name]) != config.files[name].sha256:
            raise _corrupt(
                path,
                f"{name} has the hash {sha256(contents[name])}, not {config.files[name].sha256}",
            )
    return config, contents


def _unpack(path: Path, data: bytes) -> dict[str, bytes]:
    """The three files."""
    try:
        return unpack(data, (CONFIG, ONNX, WEIGHTS))
    except ValueError as error:
        raise _corrupt(path, str(error)) from error


def _parse(path: Path, text: bytes) -> BundleConfig:
    try:
        config = BundleConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _corrupt(path, f"{CONFIG}, {where or 'as a whole'}: {first['msg']}") from error
    missing = {ONNX, WEIGHTS} - config.files.keys()
    if missing:
        raise _corrupt(path, f"{CONFIG} has no hash of {', '.join(sorted(missing))}")
    return config


def _corrupt(path: Path, reason: str) -> CorruptFileError:
    return CorruptFileError(
        f"{str(path)!r} is not a whole bundle of this version ({reason}): download it again."
    )
