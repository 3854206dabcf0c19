"""The headers of images, read once: those of many files are remembered in the cache."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from inn_automl.core.errors import DatasetError, StorageError
from inn_automl.core.home import cache_root
from inn_automl.core.storage import replacing
from inn_automl.data.cache.folder import key_of, touch
from inn_automl.data.files import DatasetFile
from inn_automl.data.images import ImageHeader, read_headers

REMEMBERED_FROM = 5000
"""Images; the headers of fewer are read again in a second."""
_FILE = "headers.npz"
_FIELDS = ("height", "width", "channels", "is_deep", "has_alpha", "has_palette")


def headers_of(
    entries: Sequence[DatasetFile], where: str
) -> tuple[list[ImageHeader | None], dict[int, str]]:
    """As `images.read_headers`, without opening files that did not change since they were read.

    Only whole sets are remembered: a file with a fault is looked at again.
    """
    if len(entries) < REMEMBERED_FROM:
        return read_headers(entries, where)
    try:
        folder = cache_root() / key_of({"headers": [one.content.identity() for one in entries]})
    except DatasetError:  # a file vanished: say which
        return read_headers(entries, where)
    known = _remembered(folder / _FILE, len(entries))
    if known is not None:
        touch(folder)
        return known, {}
    headers, faults = read_headers(entries, where)
    if not faults:
        rows = [[int(getattr(one, name)) for name in _FIELDS] for one in headers]
        # Where the cache cannot be written, decoding says so if it matters.
        with (
            suppress(StorageError),
            replacing(folder / _FILE) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez_compressed(file, headers=np.array(rows, np.int32))
    return headers, faults


def _remembered(path: Path, count: int) -> list[ImageHeader | None] | None:
    try:
        with np.load(path, allow_pickle=False) as found:
            rows = found["headers"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if rows.shape != (count, len(_FIELDS)):
        return None
    return [
        ImageHeader(height, width, channels, bool(is_deep), bool(has_alpha), bool(has_palette))
        for height, width, channels, is_deep, has_alpha, has_palette in rows.tolist()
    ]
