"""Folders of .npy files: `x.npy` and `y.npy`, or `x_train.npy` and so on, with the keys of an
.npz file. Large ones are read where they lie.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.cache import ShardedArray, described
from inn_automl.data.files import FileContent
from inn_automl.data.formats.arrays import (
    KEYS,
    TARGET_READERS,
    ArrayMember,
    assembled,
    header_of,
    kind_of,
    pairs_of,
    read_members,
    task_of,
    with_channels,
)
from inn_automl.data.samples import MEMORY_BYTES, RawSamples, Split

IN_PLACE = frozenset({np.dtype(np.uint8), np.dtype("<f4")})
"""Types that samples have in memory, too: nothing has to be converted."""


def npy_files(folder: Path) -> dict[str, Path]:
    """The .npy files of a folder by the keys of an .npz file; {} where there is no x."""
    found = {
        path.stem: path
        for path in sorted(folder.glob("*.npy"))
        if path.stem in KEYS and path.is_file()
    }
    return found if any(name.startswith("x") for name in found) else {}


def read_npy(files: dict[str, Path], folder: Path) -> RawSamples:
    """Reads samples and labels from .npy files; see `arrays.load_npz` for what they may hold.

    More than 256 MiB of uint8 or float32 in C order stay on disk. Those of another type, and pairs
    of images, are converted in memory, up to the limit on that.

    Raises:
        DatasetFormatError: as `arrays.load_npz`.
    """
    members, offsets = {}, {}
    for key, path in files.items():
        members[key], offsets[key] = _member(path)
    total = sum(member.num_bytes for member in members.values())
    xs = {key: member for key, member in members.items() if key.startswith("x")}
    stay = all(member.dtype in IN_PLACE and offsets[key] for key, member in xs.items())
    if total <= MEMORY_BYTES or not stay:
        return read_members(members, folder)
    kind = kind_of(members, folder)
    pairs = pairs_of(members, folder)
    task = task_of(pairs, kind)
    if task == "super-resolution":
        return read_members(members, folder)
    first = pairs["train"][0]
    if any(x.dtype != first.dtype for x, _ in pairs.values()):
        raise DatasetFormatError(
            f"{str(folder)!r} mixes types of x between its splits: store every x in the same type "
            "and scale."
        )
    given: dict[Split, np.ndarray] = {}
    start = 0
    for split, (x, _) in pairs.items():
        given[split] = np.arange(start, start + x.shape[0])
        start += x.shape[0]
    y = np.concatenate([TARGET_READERS[task](y.read(), y.what) for _, y in pairs.values()])
    # Shapes are read as those of an array that takes no memory.
    shown = np.broadcast_to(np.zeros((), first.dtype), (start, *first.shape[1:]))
    row_shape = with_channels(shown, kind, first.what)[0].shape[1:]
    samples = assembled(task, shown, y, kind, given, first.what, pairs["train"][1].what)
    names = [next(key for key in xs if members[key] is x) for x, _ in pairs.values()]
    mapped = ShardedArray(
        [files[name] for name in names],
        [members[name].shape[0] for name in names],
        [offsets[name] for name in names],
        row_shape,
        first.dtype,
    )
    identity = [FileContent(str(files[name]), str(folder)).identity() for name in names]
    return described(samples, mapped, {"npy": identity, "shape": list(mapped.shape)})


def _member(path: Path) -> tuple[ArrayMember, int]:
    """An array by its header, and where its values start; 0 where they are in Fortran's order."""
    what = repr(str(path))
    try:
        with path.open("rb") as stream:
            shape, dtype = header_of(stream, what)
            offset = stream.tell()
        read = functools.partial(np.load, path, allow_pickle=False)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except DatasetFormatError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DatasetFormatError(
            f"{what} cannot be read as an .npy file ({error}): write it with numpy.save(path, x)."
        ) from None
    return ArrayMember(what, shape, dtype, read), offset if mapped.flags.c_contiguous else 0
