"""Uploads are read by a process of their own, which may not take more memory or time than the
settings allow.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from inn_automl.api.datasets import DatasetSummary
from inn_automl.core import errors
from inn_automl.core.home import CACHE_DIR_VARIABLE
from inn_automl_services.coordinator.settings import Settings

logger = logging.getLogger(__name__)

MAX_PROCESSES = 2
"""At once; further uploads wait their turn."""
_slots = threading.BoundedSemaphore(MAX_PROCESSES)
_IMPORT_PATH = os.pathsep.join(
    dict.fromkeys(
        str(folder) for folder in (Path(errors.__file__).parents[2], Path(__file__).parents[3])
    )
)
"""Folders of the two packages that the process needs, in a checkout as in an installation."""
_KINDS: dict[str, type[errors.DatasetError]] = {
    kind.__name__: kind
    for kind in (
        errors.DatasetError,
        errors.DatasetNotFoundError,
        errors.DatasetFormatError,
        errors.DatasetTooSmallError,
        errors.UnsafeArchiveError,
    )
}


def check_upload(path: Path, settings: Settings) -> DatasetSummary:
    """Reads a dataset's file and returns its metadata; leaves thumbnails beside it as `N.png`.

    Raises:
        DatasetError: it cannot be used, or not within the limits.
    """
    arguments = [path.name, str(settings.upload_memory_bytes), str(settings.upload_seconds)]
    # A stranger's file is read here: nothing secret is in the environment, and what is decoded lies
    # beside the file, where it is deleted with it. Threads and pools would reserve memory each.
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": _IMPORT_PATH,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "2",
        CACHE_DIR_VARIABLE: str(path.parent.absolute() / "decoded"),
    }
    with _slots:
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "inn_automl_services.coordinator.datasets.check_process",
                    *arguments,
                ],
                cwd=path.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=settings.upload_seconds,
            )
        except subprocess.TimeoutExpired:
            raise errors.DatasetFormatError(
                f"reading {path.name!r} took more than {settings.upload_seconds:g} s: use fewer "
                f"samples."
            ) from None
    if done.returncode != 0:
        logger.warning(
            "checking an upload failed (%d): %s",
            done.returncode,
            done.stderr[-4096:].decode(errors="replace"),
        )
        raise errors.DatasetFormatError(
            f"reading {path.name!r} failed within the limits of {settings.upload_memory_bytes:,} "
            f"bytes of memory and "
            f"{settings.upload_seconds:g} s: use fewer samples, or write the file again."
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    if failure := answer.get("error"):
        raise _KINDS.get(failure["type"], errors.DatasetError)(failure["detail"])
    return DatasetSummary.model_validate(answer["metadata"])
