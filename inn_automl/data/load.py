"""From the name or path that a job gives to a dataset."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import CorruptFileError
from inn_automl.data.audio import load_recordings
from inn_automl.data.cache import ShardedArray, cached_samples, produced_in_memory
from inn_automl.data.catalog import Catalog
from inn_automl.data.dataset import Dataset, assemble
from inn_automl.data.faults import without_broken
from inn_automl.data.images import form_of, producer, quiet_pillow
from inn_automl.data.origin import origin_of
from inn_automl.data.preprocessing import Preprocessing
from inn_automl.data.remote import is_url
from inn_automl.data.resizing import resized_arrays
from inn_automl.data.samples import MEMORY_BYTES, RawSamples
from inn_automl.data.scan import Scan, scan

OnProgress = Callable[[int, int], None]


def load_dataset(
    source: str | os.PathLike[str],
    seed: int = 0,
    *,
    options: DataOptions | None = None,
    preprocessing: Preprocessing | None = None,
    scanned: Scan | None = None,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Loads a built-in dataset or a user's own, and splits it.

    Accepted sources:

    - `"digits"`, `"mnist5k"`, `"mnist1d"`, `"photo-digits"` (write `./digits` for a folder of such
      a name);
    - a folder, or a `.zip` or `.tar` (plain or compressed) of one: a folder for each class with
      images or recordings, a manifest with the files that it names, or pairs of images in `input/`
      and `target/` for super-resolution (see `formats.folders.read_listing`);
    - WebDataset shards, or a folder of them (see `formats.webdataset`);
    - a manifest, `.csv`, `.tsv`, `.jsonl` or `.parquet` (see `formats.manifest`);
    - a folder of Hugging Face's `datasets` (see `formats.hub`);
    - an `.npz` file with x and y, or x_train, y_train and so on (see `formats.arrays.load_npz`), or
      a folder of `.npy` files of these names;
    - a URL of any of these, of a scheme of fsspec; it is copied into the cache.

    Images of many sizes are brought to one (see `Preprocessing`). What takes more than 256 MiB, or
    is resized, is decoded once into a cache on disk, and read from there.

    Splits that the source does not give are taken from its training samples, 15 % of every class
    for each of validation and test: 70/15/15 when neither is given. Groups are kept whole. The
    limits on size are in `inn_automl.data.limits`.

    Args:
        seed: of the splits. The same source and seed give the same splits on every machine.
        options: how samples are read: columns, what may be broken, size and rate.
        preprocessing: geometry and statistics that images are brought to; None for what the
            options and the images ask for (`Scan.default_preprocessing`).
        scanned: what `scan` found of the same source and options; None to scan it here.
        on_progress: called with samples decoded and in all, while they are decoded.

    Raises:
        DatasetNotFoundError: no such built-in, and nothing at that path.
        DatasetFormatError: unreadable, inconsistent, or something other than finite real numbers.
        DatasetTooSmallError: one class only, or a class with fewer samples than the splits need.
        UnsafeArchiveError: an archive that leaves its folder or expands beyond the limit.
        StorageError: the cache cannot be written, or has no room.

    Example:
        >>> from inn_automl import load_dataset
        >>> digits = load_dataset("digits")
        >>> len(digits), digits.input_shape, digits.classes[:3]
        (1797, (1, 8, 8), ('0', '1', '2'))
        >>> pixels, label = digits.sample(0)
        >>> pixels.shape, label
        ((1, 8, 8), '0')
    """
    found = scanned if scanned is not None else scan(source, options)
    samples, preprocessing = _loaded(found, preprocessing, on_progress)
    if isinstance(samples.x, ShardedArray):
        recipe = _Recipe.of(source, found.options, preprocessing, samples.content_hash)
        samples = replace(samples, x=samples.x.with_recipe(recipe))
    return assemble(found.name, samples, seed=seed)


@dataclass(frozen=True)
class _Recipe:
    """Makes the cached samples of a dataset on another machine of a cluster."""

    source: str
    url: str | None
    options: DataOptions
    preprocessing: Preprocessing | None
    content_hash: str | None

    @classmethod
    def of(
        cls,
        source: str | os.PathLike[str],
        options: DataOptions,
        preprocessing: Preprocessing | None,
        content_hash: str | None,
    ) -> _Recipe:
        source = os.fspath(source)
        if is_url(source):
            return cls(source, source, options, preprocessing, content_hash)
        url = origin_of(source)
        return cls(os.path.abspath(source), url, options, preprocessing, content_hash)

    def __call__(self) -> ShardedArray:
        is_here = self.url is None or os.path.exists(self.source)
        source = self.source if is_here or self.url is None else self.url
        samples, _ = _loaded(scan(source, self.options), self.preprocessing, None)
        if samples.content_hash != self.content_hash or not isinstance(samples.x, ShardedArray):
            raise CorruptFileError(
                f"the dataset {self.source!r} is another one on {platform.node()!r}: give all "
                "machines of the cluster the same files."
            )
        return samples.x


def _loaded(
    found: Scan, preprocessing: Preprocessing | None, on_progress: OnProgress | None
) -> tuple[RawSamples, Preprocessing | None]:
    if preprocessing is None:
        preprocessing = found.default_preprocessing()
    if found.samples is not None:
        samples = resized_arrays(found.samples, preprocessing, repr(found.name))
    elif found.kind == "image":
        assert preprocessing is not None
        samples = _images(found, preprocessing, on_progress)
    else:
        samples = _audio(found, on_progress)
    return samples, preprocessing


def _images(
    found: Scan, preprocessing: Preprocessing, on_progress: OnProgress | None
) -> RawSamples:
    catalog = found.catalog
    assert catalog is not None
    is_identity = (
        found.has_one_size
        and found.image_size == preprocessing.stored_size == preprocessing.input_size
    )
    form, notes = form_of(found.headers, preprocessing, keeps_size=is_identity)
    shape = (len(catalog), form.channels, *preprocessing.stored_size)
    num_bytes = int(np.prod(shape, dtype=object)) * form.dtype.itemsize
    notes += _resized_note(found, preprocessing)
    produce = producer(catalog.entries, form, catalog.where)
    with quiet_pillow():
        faults: Mapping[int, str]
        if is_identity and num_bytes <= MEMORY_BYTES:
            x, digests, faults = produced_in_memory(produce, shape, form.dtype)
            loaded = RawSamples(x=x, labels=None, given={}, digests=digests)
        else:
            identity = {
                "entries": [entry.content.identity() for entry in catalog.entries],
                "form": form.identity(),
            }
            cached = cached_samples(
                identity,
                shape,
                form.dtype,
                produce,
                what=catalog.where,
                on_progress=on_progress,
            )
            faults = cached.faults
            loaded = RawSamples(
                x=cached.x,
                labels=None,
                given={},
                moments=cached.moments,
                digests=cached.digests,
                content_hash=cached.content_hash,
            )
    return _labelled(
        replace(loaded, notes=notes, preprocessing=preprocessing), catalog, faults, found.options
    )


def _labelled(
    loaded: RawSamples, catalog: Catalog, faults: Mapping[int, str], options: DataOptions
) -> RawSamples:
    """The loaded samples with the labels of their catalog, without those that are broken."""
    texts = [*catalog.faults, *faults.values()]
    total = len(catalog) + len(catalog.faults)
    skipped = without_broken(texts, total, options.skip_broken, catalog.where)
    if faults:
        kept = np.setdiff1d(np.arange(len(catalog)), np.array(list(faults), np.int64))
        catalog = catalog.keeping(kept, texts)
        content_hash = loaded.content_hash
        if content_hash is not None:
            content_hash = hashlib.sha256(content_hash.encode() + kept.tobytes()).hexdigest()
        x = loaded.x[kept] if isinstance(loaded.x, np.ndarray) else loaded.x.take(kept)
        loaded = replace(
            loaded,
            x=x,
            content_hash=content_hash,
            moments=None if loaded.moments is None else loaded.moments[kept],
            digests=None if loaded.digests is None else loaded.digests[kept],
        )
    return replace(
        loaded,
        labels=catalog.labels,
        targets=catalog.targets,
        given=catalog.given,
        groups=catalog.groups,
        weights=catalog.weights,
        empty_classes=catalog.empty_classes,
        notes=(*catalog.notes, *loaded.notes, *skipped),
    )


def _resized_note(found: Scan, preprocessing: Preprocessing) -> tuple[str, ...]:
    num_other = sum(header.size != preprocessing.stored_size for header in found.headers)
    if not num_other:
        return ()
    height, width = preprocessing.input_size
    how = {
        "crop": "keeping their aspect, and cut around the centre",
        "pad": "keeping their aspect, and padded",
        "stretch": "whatever their aspect",
    }[preprocessing.resize]
    return (
        f"{num_other} of {len(found.headers)} images were resized, {how}, to {height} x {width} "
        "(height x width).",
    )


def _audio(found: Scan, on_progress: OnProgress | None) -> RawSamples:
    assert found.catalog is not None
    loaded, catalog, faults = load_recordings(found.catalog, found.options, on_progress)
    return _labelled(loaded, catalog, faults, found.options)
