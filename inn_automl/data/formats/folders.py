"""Datasets from folders, or ZIP archives of them: one folder a class, or pairs of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.catalog import Catalog
from inn_automl.data.files import DatasetFile, FileListing, Parts
from inn_automl.data.formats.manifest import manifest_in, read_listed
from inn_automl.data.formats.media import AUDIO_SUFFIXES
from inn_automl.data.formats.pairs import are_pairs, load_pairs
from inn_automl.data.images import SUFFIXES as IMAGE_SUFFIXES
from inn_automl.data.samples import SPLITS, RawSamples, Split

SPLIT_OF_FOLDER: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""Files and folders that operating systems add; ignored, as is everything whose name starts with a
dot.
"""


def read_listing(listing: FileListing, options: DataOptions) -> Catalog | RawSamples:
    """Reads class folders, which hold images or recordings; pairs of images; or a manifest with the
    files that it names; from a folder or an archive.

    - `cats/1.png`, `dogs/2.png`, ...: the folders are the classes.
    - `train/cats/1.png`, `val/cats/9.png`, `test/...`: with given splits (training, valid,
      validation, testing do as well), in any case of letters. One folder around all of it is
      accepted.
    - `input/1.png` and `target/1.png`, or `train/input/1.png` and so on: pairs for
      super-resolution, see `pairs.load_pairs`. Classes of these two names, with no others, cannot
      be distinguished from pairs.
    - `metadata.csv` (or `.tsv`, `.jsonl`; `manifest`, `labels`): the manifest says all, see
      `manifest.catalog_of`.
    - Files other than images or audio may lie beside class folders (a README), not in them.

    `preprocessing` and `audio` say how images and recordings of unequal size are made equal.

    Raises:
        DatasetFormatError: no images or audio, or both; folders that do not fit the above; a file
            that cannot be read or does not agree with the others.
    """
    manifest = manifest_in(listing, options)
    if manifest is not None and not _is_ignored(manifest.parts):
        return read_listed(listing, manifest, options)
    return _load(listing)


@dataclass(frozen=True)
class _Place:
    """A file with its split and class in the dataset."""

    entry: DatasetFile
    split: Split
    class_name: str


def _load(listing: FileListing) -> Catalog | RawSamples:
    files = sorted(
        (file for file in listing.files if not _is_ignored(file.parts)), key=lambda file: file.parts
    )
    media = [file for file in files if file.suffix in IMAGE_SUFFIXES | AUDIO_SUFFIXES]
    if not media:
        raise DatasetFormatError(
            f"{listing.where} holds no images or recordings: give a folder for each class with "
            f"its files in it."
        )
    images = [file for file in media if file.suffix in IMAGE_SUFFIXES]
    if images and len(images) < len(media):
        sound = next(file for file in media if file.suffix in AUDIO_SUFFIXES)
        raise DatasetFormatError(
            f"{listing.where} mixes images ({images[0].path!r}) and recordings ({sound.path!r}): "
            f"keep one kind."
        )
    folders = {parts for parts in listing.folders if not _is_ignored(parts)}
    folders |= {file.parts[:depth] for file in files for depth in range(1, len(file.parts))}

    pairs = _pairs(images, folders, listing.where)
    if pairs is not None:
        return load_pairs(*pairs, listing.where)
    places, empty_classes, notes = _arrange(files, media, folders, listing.where)
    given: dict[Split, np.ndarray] = {
        split: np.array([i for i, place in enumerate(places) if place.split == split], np.int64)
        for split in SPLITS
        if split == "train" or any(place.split == split for place in places)
    }
    return Catalog(
        media="image" if images else "audio",
        entries=[place.entry for place in places],
        labels=np.array([place.class_name for place in places]),
        given=given,
        where=listing.where,
        empty_classes=empty_classes,
        notes=notes,
    )


def _pairs(
    images: Sequence[DatasetFile], folders: set[Parts], where: str
) -> tuple[dict[Split, Sequence[DatasetFile]], int] | None:
    """Images of each split, and where in their paths `input` or `target` stands; None where these
    are not pairs.
    """
    top = _wrapping(images, folders) if images else 0
    inside = {parts[top:] for parts in folders if len(parts) > top}
    tops = {parts[0] for parts in inside}
    if are_pairs(tops):
        return {"train": images}, top
    sides = {
        name: {parts[1] for parts in inside if len(parts) > 1 and parts[0] == name} for name in tops
    }
    if not tops or not all(are_pairs(names) for names in sides.values()):
        return None
    splits = _split_folders(tops, images, top, where)
    if not splits:
        return None
    found: dict[Split, Sequence[DatasetFile]] = {}
    for split in SPLITS:
        entries = [file for file in images if splits.get(file.parts[top]) == split]
        if split in splits.values():
            found[split] = entries
    return found, top + 1


def _arrange(
    files: Sequence[DatasetFile], media: Sequence[DatasetFile], folders: set[Parts], where: str
) -> tuple[list[_Place], frozenset[str], tuple[str, ...]]:
    """Split and class of each image or WAV file, classes without training files, and notes."""
    top = _wrapping(media, folders)
    inside = {parts[top:] for parts in folders if len(parts) > top}
    splits = _split_folders({parts[0] for parts in inside}, media, top, where)
    depth = top + (2 if splits else 1)

    places = []
    for file in media:
        if len(file.parts) <= depth:
            raise DatasetFormatError(
                f"{file.path!r} in {where} lies in no class folder: put it into one."
            )
        if len(file.parts) > depth + 1:
            raise DatasetFormatError(
                f"{file.path!r} in {where} lies in nested class folders: put all files of a class "
                f"into one folder, "
                "directly below the dataset or its train, validation and test folders."
            )
        split: Split = splits[file.parts[top]] if splits else "train"
        places.append(_Place(file, split, file.parts[depth - 1]))

    known = {file.parts for file in media}
    others = [file for file in files if file.parts not in known]
    for file in others:
        if len(file.parts) > depth:
            raise DatasetFormatError(
                f"{file.path!r} in {where} is no image or recording: "
                "convert it, or move it out of the class folder."
            )
    notes = (
        (f"{len(others)} files beside the class folders were ignored, e.g. {others[0].path!r}.",)
        if others
        else ()
    )

    trained = {place.class_name for place in places if place.split == "train"}
    declared = {
        parts[-1]
        for parts in inside
        if len(parts) == depth - top and (not splits or splits[parts[0]] == "train")
    }
    return places, frozenset(declared - trained), notes


def _wrapping(media: Sequence[DatasetFile], folders: set[Parts]) -> int:
    """1 if one folder, which is neither a split nor a class, holds everything; else 0."""
    tops = {parts[0] for parts in folders}
    deep = all(len(file.parts) >= 3 for file in media)
    return int(len(tops) == 1 and deep and tops.isdisjoint(_named_like_splits(tops)))


def _split_folders(
    names: set[str], media: Sequence[DatasetFile], top: int, where: str
) -> dict[str, Split]:
    """The folder of each split; empty where the folders are classes."""
    named = _named_like_splits(names)
    holds_folders = {file.parts[top] for file in media if len(file.parts) > top + 2}
    if not named or (named != names and named.isdisjoint(holds_folders)):
        return {}
    if named != names:
        raise DatasetFormatError(
            f"{where} has the folder {min(names - named)!r} beside the split {min(named)!r}: "
            "put every class folder into train, validation or test."
        )
    splits: dict[str, Split] = {}
    for name in sorted(named):
        split = SPLIT_OF_FOLDER[name.casefold()]
        if split in splits.values():
            raise DatasetFormatError(
                f"{where} has two folders for the {split} split, one of them {name!r}: keep one."
            )
        splits[name] = split
    if "train" not in splits.values():
        raise DatasetFormatError(
            f"{where} has the split {min(named)!r} but no train folder: add one."
        )
    return splits


def _named_like_splits(names: set[str]) -> set[str]:
    return {name for name in names if name.casefold() in SPLIT_OF_FOLDER}


def _is_ignored(parts: Parts) -> bool:
    return any(part.startswith(".") or part.casefold() in LEFT_BY_SYSTEMS for part in parts)
