"""What is remembered of samples that are read where they lie: statistics and hashes."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from inn_automl.core.home import cache_root
from inn_automl.core.locking import file_lock
from inn_automl.core.storage import replacing
from inn_automl.data.cache.build import DIGEST_BYTES, moments_of
from inn_automl.data.cache.folder import keep_folder, key_of
from inn_automl.data.cache.shards import ShardedArray
from inn_automl.data.samples import RawSamples, blocks

_FILE = "described.npz"


def described(samples: RawSamples, x: ShardedArray, identity: Mapping[str, Any]) -> RawSamples:
    """`samples` with `x` in place, its moments and hashes; those are computed once for an
    `identity`, in one pass.

    Raises:
        StorageError: the cache cannot be written.
    """
    root = cache_root()
    folder = root / key_of({"described": dict(identity)})
    path = folder / _FILE
    with file_lock(root / f"{folder.name}.lock", timeout_s=None):
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in ("moments", "digests", "content")}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            arrays = _describe(x)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        keep_folder(folder)
    return replace(
        samples,
        x=x,
        moments=arrays["moments"],
        digests=arrays["digests"],
        content_hash=arrays["content"].tobytes().hex(),
    )


def _describe(x: ShardedArray) -> dict[str, np.ndarray]:
    moments = np.empty((len(x), x.shape[1], 2))
    digests = np.empty((len(x), DIGEST_BYTES), np.uint8)
    content = hashlib.sha256()
    for block in blocks(x):
        values = x[block]
        content.update(values.data)
        for row, sample in enumerate(values, start=block.start):
            moments[row] = moments_of(sample)
            name = hashlib.blake2b(sample.data, digest_size=DIGEST_BYTES)
            digests[row] = np.frombuffer(name.digest(), np.uint8)
    return {
        "moments": moments,
        "digests": digests,
        "content": np.frombuffer(content.digest(), np.uint8),
    }
