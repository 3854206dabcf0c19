"""Finds what a job names as its dataset: a built-in one, a file, a folder."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError, DatasetNotFoundError
from inn_automl.core.home import cache_root
from inn_automl.core.locking import file_lock
from inn_automl.core.storage import write_atomically
from inn_automl.data.builtin import BUILTINS
from inn_automl.data.cache.folder import keep_folder, key_of, make_room
from inn_automl.data.catalog import Catalog
from inn_automl.data.files import DatasetFile, FileContent, FileListing, list_folder
from inn_automl.data.formats.archive import open_archive
from inn_automl.data.formats.arrays import load_npz
from inn_automl.data.formats.folders import read_listing
from inn_automl.data.formats.hub import is_saved, read_parquet, read_saved
from inn_automl.data.formats.manifest import SUFFIXES as MANIFEST_SUFFIXES
from inn_automl.data.formats.manifest import read_csv
from inn_automl.data.formats.npy import npy_files, read_npy
from inn_automl.data.formats.tar import is_tar, list_tar, stem_of
from inn_automl.data.formats.webdataset import is_webdataset, read_webdataset
from inn_automl.data.remote import fetch, is_url
from inn_automl.data.samples import RawSamples

PACKED_SUFFIXES = frozenset({".arrow", ".npy", ".parquet", ".tar"})
"""Files that hold many samples each."""
KINDS = (
    "an .npz file; a folder, .zip or .tar of class folders, of a manifest with its files, or of "
    "input/ and target/ pairs; WebDataset shards; a .csv or .parquet; a folder of Hugging Face's "
    "datasets, or of .npy files"
)


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
    path = fetch(source) if is_url(source) else _existing(source)
    name = path.resolve().name
    if path.is_dir():
        return name or "dataset", _folder(path, options)
    where = repr(str(path))
    suffix = path.suffix.casefold()
    if is_tar(path):
        listing = list_tar(path)
        if is_webdataset(listing):
            return stem_of(path), read_webdataset([(path.name, listing)], where, options)
        return stem_of(path), _archive(listing, path, options)
    name = Path(name).stem
    if suffix == ".npz":
        return name, load_npz(path)
    if suffix == ".npy":
        return _folder_name(path), read_npy(npy_files(path.parent), path.parent)
    if suffix == ".zip":
        return name, _archive(open_archive(path), path, options)
    if suffix in MANIFEST_SUFFIXES:
        return name, read_csv(path, options)
    if suffix == ".parquet":
        return name, read_parquet([path], where, options)
    raise DatasetFormatError(f"{source!r} is no kind of dataset that can be read: give {KINDS}.")


def _archive(listing: FileListing, path: Path, options: DataOptions) -> RawSamples | Catalog:
    """What an archive holds; files of many samples are unpacked into the cache to be read."""
    packed = [file for file in _shown(listing) if file.suffix in PACKED_SUFFIXES]
    if not packed or len(packed) < len(_shown(listing)):
        return read_listing(listing, options)
    root = cache_root()
    folder = root / key_of({"unpacked": FileContent(str(path), listing.where).identity()})
    target = folder / stem_of(path)
    with file_lock(root / f"{folder.name}.lock", timeout_s=None):
        if not target.exists():
            make_room(root, path.stat().st_size, keep=folder, what=listing.where)
            partial = folder / "partial"
            for file in listing.files:
                write_atomically(partial.joinpath(*file.parts), file.read())
            partial.rename(target)
        keep_folder(folder)
    inside = list(target.iterdir())
    wrapped = len(inside) == 1 and inside[0].is_dir() and not is_saved(target)
    return _folder(inside[0] if wrapped else target, options)


def _folder(path: Path, options: DataOptions) -> RawSamples | Catalog:
    if is_saved(path):
        return read_saved(path, options)
    if files := npy_files(path):
        return read_npy(files, path)
    where = repr(str(path))
    listing = list_folder(path)
    shards = sorted(file.parts for file in listing.files if file.suffix == ".tar")
    if shards and len(shards) == len(_shown(listing)):
        listings = [("/".join(parts), list_tar(path.joinpath(*parts))) for parts in shards]
        return read_webdataset(listings, where, options)
    if tables := _parquet_files(listing, path):
        return read_parquet(tables, where, options)
    return read_listing(listing, options)


def _shown(listing: FileListing) -> list[DatasetFile]:
    """The files that somebody put there as samples: no hidden ones, and no descriptions."""
    return [
        file
        for file in listing.files
        if not any(part.startswith(".") for part in file.parts)
        and file.suffix not in (".md", ".json", ".txt", ".yaml", ".idx")
    ]


def _parquet_files(listing: FileListing, path: Path) -> list[Path]:
    shown = _shown(listing)
    files = sorted(file.parts for file in shown if file.suffix == ".parquet")
    if not files or len(files) < len(shown):
        return []
    return [path.joinpath(*parts) for parts in files]


def _folder_name(path: Path) -> str:
    return path.resolve().parent.name or "dataset"


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
        raise DatasetFormatError(f"{source!r} is neither a file nor a folder: give {KINDS}.")
    return path
