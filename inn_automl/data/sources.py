"""Finds what a job names as its dataset: a built-in one, a file, a folder."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError, DatasetNotFoundError
from inn_automl.data.arrays import load_npz
from inn_automl.data.builtin import BUILTINS
from inn_automl.data.catalog import Catalog
from inn_automl.data.folders import read_archive, read_folder
from inn_automl.data.samples import RawSamples


def open_source(
    source: str | os.PathLike[str], options: DataOptions
) -> tuple[str, RawSamples | Catalog]:
    """The name of a dataset, and its arrays or the catalog of its files.

    Raises:
        DatasetNotFoundError: no such built-in, and nothing at that path.
        DatasetFormatError: it cannot be read.
        UnsafeArchiveError: an archive that leaves its folder or expands beyond the limit.
    """
    source = os.fspath(source)
    if source in BUILTINS:
        return source, BUILTINS[source]()
    path = _existing(source)
    name = path.resolve().name
    if path.is_dir():
        return name or "dataset", read_folder(path)
    suffix = path.suffix.casefold()
    name = Path(name).stem
    if suffix == ".npz":
        return name, load_npz(path)
    if suffix == ".zip":
        return name, read_archive(path)
    raise DatasetFormatError(
        f"{source!r} is no kind of dataset that can be read: give an .npz file, or a folder or "
        ".zip of class folders or of input/ and target/ pairs."
    )


def _existing(source: str) -> Path:
    try:
        path = Path(source).expanduser()
        found = path.stat() if source.strip() else None
    except (FileNotFoundError, NotADirectoryError, ValueError, RuntimeError):
        # ValueError: a null byte in the name; RuntimeError: the home of an unknown user
        found = None
    except OSError as error:
        raise DatasetFormatError(
            f"the dataset {source!r:.200} cannot be read ({error.strerror}): give a path that can "
            f"be."
        ) from None
    if found is None:
        nearest = difflib.get_close_matches(source.casefold(), BUILTINS, n=1, cutoff=0.5)
        remedy = f"give an existing path or one of {', '.join(BUILTINS)}"
        if nearest:
            remedy = f"did you mean {nearest[0]!r}? Otherwise {remedy}"
        raise DatasetNotFoundError(
            f"there is no file or folder at {source!r:.200} and no built-in dataset of that name: "
            f"{remedy}."
        )
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise DatasetFormatError(
            f"{source!r} is neither a file nor a folder: give an .npz file, a folder or a .zip."
        )
    return path
