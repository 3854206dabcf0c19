"""The file that a user downloads: a ZIP of the model, its weights, what is known of it, and how to
run it.

Its format is described in docs/reference/bundle.md, with how to read it without this library.
Reading it here needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.core.storage import write_atomically
from inn_automl.export.archive import pack, sha256, unpack
from inn_automl.export.model_card import ANY_SIZE, model_card
from inn_automl.export.records import FORMAT_VERSION, BundleConfig, FileMetadata, installed_versions

if TYPE_CHECKING:
    from torch import Tensor

ONNX, WEIGHTS, CONFIG = "model.onnx", "weights.safetensors", "config.json"
SCRIPT, CARD = "predict.py", "README.md"
SCRIPT_SOURCE = Path(__file__).with_name("bundle_script.py")
MEMBERS = (CONFIG, CARD, SCRIPT, ONNX, ANY_SIZE, WEIGHTS)
"""All members, in their order; `ANY_SIZE` is left out where there is nothing before the network."""


def write_bundle(
    path: str | Path,
    config: BundleConfig,
    *,
    onnx: str | Path,
    weights: Mapping[str, Tensor],
    any_size: bytes | None = None,
) -> BundleConfig:
    """Writes a bundle; the same arguments (`created_at` among them) give the same bytes.

    Args:
        config: everything that is known of the model.
        onnx: a verified ONNX file, as `OnnxTemplate.export` writes it.
        weights: the state dict of the discretized module.
        any_size: of `export.front.any_size_model`, verified; None where there is none.

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
    if any_size is not None:
        contents[ANY_SIZE] = any_size
    contents[SCRIPT] = SCRIPT_SOURCE.read_bytes()
    size_bytes = {name: len(data) for name, data in contents.items()}
    contents[CARD] = model_card(config, size_bytes).encode()
    contents = {name: contents[name] for name in MEMBERS if name in contents}
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
    """Checks a bundle as `read_bundle` does and writes its files into `folder`.

    Raises:
        StorageError: the bundle cannot be read, or the folder not be written to.
        CorruptFileError: it is no bundle, or was changed since it was written.
    """
    config, contents = open_bundle(path)
    for name, data in contents.items():
        write_atomically(Path(folder) / name, data)
    return config


def open_bundle(path: str | Path) -> tuple[BundleConfig, dict[str, bytes]]:
    """The config of a bundle and its members, checked as by `read_bundle`.

    Args:
        path: of the ZIP file, or of the folder that it was unpacked into.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        CorruptFileError: it is no bundle, or was changed since it was written.
    """
    path = Path(path)
    contents = _members(path)
    if CONFIG not in contents:
        raise _corrupt(path, f"it has no {CONFIG}")
    config = _parse(path, contents[CONFIG])
    if strange := contents.keys() - {CONFIG} ^ config.files.keys():
        raise _corrupt(path, f"{CONFIG} and the ZIP do not agree on {min(strange):.100}")
    for name, file in config.files.items():
        if sha256(contents[name]) != file.sha256:
            raise _corrupt(path, f"{name} has the hash {sha256(contents[name])}, not {file.sha256}")
    return config, contents


def _members(path: Path) -> dict[str, bytes]:
    """The members of a bundle by name, as they are."""
    try:
        if path.is_dir():
            there = [name for name in MEMBERS if (path / name).is_file()]
            return {name: (path / name).read_bytes() for name in there}
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"the bundle {str(path)!r} cannot be read ({error.strerror}): give its path."
        ) from error
    try:
        return unpack(data)
    except ValueError as error:
        raise _corrupt(path, str(error)) from error


def _parse(path: Path, text: bytes) -> BundleConfig:
    try:
        version = _Version.model_validate_json(text).format_version
        if version != FORMAT_VERSION:
            raise CorruptFileError(
                f"{str(path)!r} is a bundle of format {version}, and this release reads format "
                f"{FORMAT_VERSION}: use the release that wrote it, or discretize the model again."
            )
        config = BundleConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _corrupt(path, f"{CONFIG}, {where or 'as a whole'}: {first['msg']}") from error
    required = set(MEMBERS) - {CONFIG, ANY_SIZE}
    if missing := required - config.files.keys():
        raise _corrupt(path, f"{CONFIG} has no hash of {', '.join(sorted(missing))}")
    if unknown := config.files.keys() - set(MEMBERS):
        raise _corrupt(path, f"{CONFIG} names {min(unknown):.100}, which is no member of a bundle")
    return config


class _Version(BaseModel):
    """What says whether the rest can be read."""

    format_version: int = FORMAT_VERSION


def _corrupt(path: Path, reason: str) -> CorruptFileError:
    return CorruptFileError(
        f"{str(path)!r} is not a whole bundle of this version ({reason}): download it again."
    )
