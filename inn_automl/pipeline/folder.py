"""A job's folder: which job it belongs to, and which process works in it.

DIR/job.json                 format of the folder, spec of the job, seconds of each stage
DIR/training/trial-N/        plan, checkpoint and saved network of each training candidate
DIR/search/                  measured widths, evaluations, Optuna's journal
DIR/measuring/DEVICE.json    measured finalists
DIR/fine_tuning/             weights of fine-tuned points, and what each gained
DIR/models/  DIR/bundles/    ONNX files and bundles of the fronts
DIR/inn.zip                  the trained network
DIR/elastic.zip              all front points in one file, for `ElasticModel`
DIR/published.json           where MLflow has the job
DIR/result.json
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from inn_automl.core.errors import InputError, JobDirectoryError, StorageError
from inn_automl.core.locking import file_lock
from inn_automl.core.spec import JobSpec
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json

LOCK_FILE = ".lock"
JOB_FILE, RESULT_FILE = "job.json", "result.json"
FORMAT = 2
"""Format of a job's folder; a folder of another one is refused."""


def read_job_file(folder: Path) -> dict[str, Any]:
    """Reads `job.json`.

    Raises:
        JobDirectoryError: the folder has another format than this release's.
        CorruptFileError: it is not JSON.
    """
    record = read_json(folder / JOB_FILE)
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise JobDirectoryError(
            f"the job in {str(folder)!r} has format {found!r}, and this release reads format "
            f"{FORMAT}: give another --out, or use the release that wrote it."
        )
    return dict(record)


@contextmanager
def claim_folder(folder: Path, spec: JobSpec, metadata: Mapping[str, Any]) -> Iterator[None]:
    """Makes the folder this job's own while it runs.

    Args:
        metadata: what else the result depends on (the dataset's fingerprint): must be as they were
            when a job is resumed.

    Raises:
        JobDirectoryError: the folder cannot be used, belongs to another job, or this job is
            running already.
        InputError: of the block. A folder in which nothing was left is free again.
    """
    if (folder / JOB_FILE).exists():
        read_job_file(folder)  # a folder of another format stays untouched
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / LOCK_FILE))
        except TimeoutError:
            raise JobDirectoryError(
                f"another process is running the job in {str(folder)!r}: wait for it, or give "
                f"another --out."
            ) from None
        except StorageError as error:
            raise JobDirectoryError(
                f"the folder {str(folder)!r} cannot be written: give --out a folder that can."
            ) from error
        _check_same_job(folder, spec, metadata)
        try:
            yield
        except InputError:
            _release_unused(folder)
            raise


def _release_unused(folder: Path) -> None:
    """Gives up the claim of a job that was refused before it left anything in its folder."""
    if all(entry.name.startswith(".") or entry.name == JOB_FILE for entry in folder.iterdir()):
        (folder / JOB_FILE).unlink(missing_ok=True)


def _check_same_job(folder: Path, spec: JobSpec, metadata: Mapping[str, Any]) -> None:
    own_record = {"format": FORMAT, "spec": spec.model_dump(mode="json"), **metadata}
    path = folder / JOB_FILE
    if not path.exists():
        written_before = {
            "error.log",
            "log.txt",
        }  # of a run that failed before it had claimed the folder
        others = [
            e.name
            for e in folder.iterdir()
            if not e.name.startswith(".") and e.name not in written_before
        ]
        if others:
            raise JobDirectoryError(
                f"the folder {str(folder)!r} holds other files ({sorted(others)[0]}): give --out a "
                f"new or empty one."
            )
        write_json(path, own_record)
        return
    found = read_job_file(folder)
    for key, value in own_record.items():
        if found.get(key) != value:
            what = _first_difference(key, found.get(key), value)
            raise JobDirectoryError(
                f"the folder {str(folder)!r} belongs to another job ({what}): give another --out, "
                "or the same dataset, budget, model and seed to resume."
            )


def _first_difference(key: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in now:
            if before.get(name) != now[name]:
                return _first_difference(f"{key}.{name}", before.get(name), now[name])
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (one, other) in enumerate(zip(before, now, strict=True)):
            if one != other:
                return _first_difference(f"{key}.{index}", one, other)
    return f"{key.removeprefix('spec.')} was {before!r:.80}, is {now!r:.80}"


def stage_seconds(folder: Path) -> dict[str, float]:
    """Seconds that each stage took so far, over all starts of the job."""
    found: dict[str, float] = read_json(folder / JOB_FILE).get("seconds", {})
    return found


@contextmanager
def timed_stage(folder: Path, stage: Stage) -> Iterator[None]:
    """Adds the time that the block takes to `job.json`, however it ends."""
    started_at = time.monotonic()
    try:
        yield
    finally:
        record = read_json(folder / JOB_FILE)
        seconds = record.setdefault("seconds", {})
        seconds[stage] = round(seconds.get(stage, 0.0) + time.monotonic() - started_at, 3)
        write_json(folder / JOB_FILE, record)
