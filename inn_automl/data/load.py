"""From the name or path that a job gives to a dataset."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path

from inn_automl.core.errors import DatasetFormatError, DatasetNotFoundError
from inn_automl.data.arrays import load_npz
from inn_automl.data.builtin import BUILTINS
from inn_automl.data.dataset import Dataset, assemble
from inn_automl.data.folders import load_archive, load_folder


def load_dataset(source: str | os.PathLike[str], seed: int = 0) -> Dataset:
    """Loads a built-in dataset or a user's own, and splits it.

    Accepted sources:

    - `"digits"`, `"mnist5k"`, `"mnist1d"` (write `./digits` for a folder of such a name);
    - an `.npz` file with x and y, or x_train, y_train and so on: see `arrays.load_npz`;
    - a folder, or a `.zip` of one, that holds a folder for each class with PNG or JPEG images, or
      with WAV files: see `folders.load_folder`;
    - a folder, or a `.zip` of one, with pairs of images in `input/` and `target/`, for
      super-resolution: see `pairs.load_pairs`.

    Splits that the source does not give are taken from its training samples, 15 % of every class
    for each of validation and test: 70/15/15 when neither is given. The limits on size are in
    `inn_automl.data.limits`.

    Args:
        seed: of the splits. The same source and seed give the same splits on every machine.

    Raises:
        DatasetNotFoundError: no such built-in, and nothing at that path.
        DatasetFormatError: unreadable, inconsistent, or something other than finite real numbers.
        DatasetTooSmallError: one class only, or a class with fewer samples than the splits need.
        UnsafeArchiveError: a ZIP that leaves its folder or expands beyond the limit.

    Example:
        >>> from inn_automl import load_dataset
        >>> digits = load_dataset("digits")
        >>> len(digits), digits.input_shape, digits.classes[:3]
        (1797, (1, 8, 8), ('0', '1', '2'))
        >>> pixels, label = digits.sample(0)
        >>> pixels.shape, label
        ((1, 8, 8), '0')
    """
    source = os.fspath(source)
    if source in BUILTINS:
        return assemble(source, BUILTINS[source](), seed=seed)
    path = _existing(source)
    name = path.resolve().name
    if path.is_dir():
        return assemble(name or "dataset", load_folder(path), seed=seed)
    suffix = path.suffix.casefold()
    name = Path(name).stem
    if suffix == ".npz":
        return assemble(name, load_npz(path), seed=seed)
    if suffix == ".zip":
        return assemble(name, load_archive(path), seed=seed)
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
