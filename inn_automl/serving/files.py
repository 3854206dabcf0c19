"""Images and arrays as the samples of a model, and which files of a folder are of its kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from inn_automl.core.errors import DatasetFormatError, InputError
from inn_automl.core.listing import abbreviate
from inn_automl.export.preparation import geometry
from inn_automl.export.records import ImageInput, Preprocessing

ARRAY_SUFFIX = ".npy"


def read_image(path: Path, image: ImageInput) -> np.ndarray:
    """An image (channels, height, width) of the model's size, decoded as those of datasets.

    Raises:
        DatasetFormatError: the file cannot be read, or is no image.
    """
    from inn_automl.data.files import DatasetFile, FileContent
    from inn_automl.data.images import ImageForm, producer

    how = geometry(image)
    form = ImageForm(image.channels, image.dtype == "float32", how)
    folder = str(path.parent)
    entry = DatasetFile((path.name,), FileContent(str(path), folder))
    return how.evaluated(producer([entry], form, folder)(0).values)


def read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One sample of `shape`, float32, from a .npy file; an axis of one channel may be left out.

    Raises:
        DatasetFormatError: the file cannot be read, or has another shape.
    """
    try:
        found = np.load(path, allow_pickle=False)
        sample = np.asarray(found, dtype=np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise DatasetFormatError(
            f"{str(path)!r} cannot be read as an array of numbers ({error}): write it with "
            f"numpy.save."
        ) from None
    if shape[0] == 1 and sample.shape == shape[1:]:
        return sample[None]
    if sample.shape != shape:
        raise DatasetFormatError(
            f"{str(path)!r} has the shape {sample.shape}, and the model takes {shape}: save one "
            f"sample a file."
        )
    return sample


def find_files(sources: Iterable[Path], preprocessing: Preprocessing) -> Iterator[Path]:
    """Files that are named, and those of the model's kind in folders that are; by name.

    What begins with a dot is left out, as are links to folders.

    Raises:
        InputError: a folder without such files.
    """
    suffixes = _suffixes(preprocessing)
    for source in sources:
        if not source.is_dir():
            yield source
            continue
        is_empty = True
        for folder, folders, names in os.walk(source):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if not name.startswith(".") and path.suffix.lower() in suffixes:
                    is_empty = False
                    yield path
        if is_empty:
            endings = abbreviate(sorted(suffixes), 8)
            raise InputError(
                f"there is no file for this model in {str(source)!r}: give a folder with files "
                f"that end in {endings}."
            )


def _suffixes(preprocessing: Preprocessing) -> frozenset[str]:
    from inn_automl.data.formats.media import AUDIO_SUFFIXES
    from inn_automl.data.images import SUFFIXES

    decoded: frozenset[str] = frozenset()
    if preprocessing.image is not None:
        decoded = SUFFIXES
    elif preprocessing.audio is not None:
        decoded = AUDIO_SUFFIXES
    return decoded | {ARRAY_SUFFIX}
