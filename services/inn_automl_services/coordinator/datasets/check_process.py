"""The process that reads an upload: `python -m
inn_automl_services.coordinator.datasets.check_process FILE MEMORY_BYTES CPU_S`.

Its last line of output is JSON: `{"metadata": ...}`, with thumbnails beside the file as `N.png`, or
`{"error": {"type": ..., "detail": ...}}`.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inn_automl.data import Dataset

MAX_FILES = 500_000
MAX_EXPANDED_BYTES = 32 * 2**30
CHECKED_SIDE = 96
"""Pixels that images of many sizes are decoded to."""


def main(filename: str, memory_bytes: int, cpu_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu_s), math.ceil(cpu_s) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        print(json.dumps({"metadata": check(Path(filename))}))
    except MemoryError:
        detail = (
            f"{filename!r} needs more than {memory_bytes:,} bytes of memory to be read: use fewer "
            f"samples."
        )
        print(json.dumps({"error": {"type": "DatasetFormatError", "detail": detail}}))
    except Exception as error:
        from inn_automl.core.errors import DatasetError

        if not isinstance(error, DatasetError):
            raise
        print(json.dumps({"error": {"type": type(error).__name__, "detail": str(error)}}))


def load(path: Path) -> tuple[Dataset, tuple[int, ...]]:
    """The dataset, and the shape of one sample as a job would have it. Images of many sizes are
    decoded to small ones: what is looked for is what cannot be decoded.

    Raises:
        DatasetError: it cannot be used.
    """
    from inn_automl.data import Preprocessing, limits, load_dataset, scan

    # What a stranger sends may hold less than what people have on their own disks, and names none
    # of the files on this one.
    limits.MAX_FILES, limits.MAX_EXPANDED_BYTES = MAX_FILES, MAX_EXPANDED_BYTES
    limits.FOLLOW_PATHS = False
    found = scan(path)
    given = found.default_preprocessing()
    small = None
    if given is not None and given.resize != "stretch":
        small = Preprocessing.for_size((CHECKED_SIDE, CHECKED_SIDE), resize="pad")
    dataset = load_dataset(path, scanned=found, preprocessing=small)
    if small is None or given is None:
        return dataset, dataset.input_shape
    return dataset, (dataset.input_shape[0], *given.input_size)


def check(path: Path) -> dict[str, object]:
    """Metadata of a dataset; writes its thumbnails beside it.

    Raises:
        DatasetError: it cannot be used.
    """
    import numpy as np

    from inn_automl.core.errors import DatasetFormatError, InputError
    from inn_automl_services.coordinator.datasets.thumbnails import thumbnails
    from inn_automl_services.coordinator.db.storable import check_storable

    dataset, input_shape = load(path)
    try:
        check_storable(list(dataset.classes), "its class names")
    except InputError as error:
        raise DatasetFormatError(str(error)) from None
    num_thumbnails = 0
    for content in thumbnails(dataset):
        (path.parent / f"{num_thumbnails}.png").write_bytes(content)
        num_thumbnails += 1
    return {
        "kind": dataset.kind,
        "task": dataset.task,
        "input_shape": input_shape,
        "output_shape": dataset.output_shape,
        "classes": dataset.classes,
        "num_samples": len(dataset.y),
        "class_counts": np.bincount(dataset.y, minlength=dataset.num_classes).tolist()
        if dataset.classes
        else [],
        "split_sizes": {
            split: len(getattr(dataset, split)) for split in ("train", "validation", "test")
        },
        "notes": dataset.notes,
        "num_thumbnails": num_thumbnails,
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
