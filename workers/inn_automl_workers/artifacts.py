"""Files of a job that users may download."""

from __future__ import annotations

from pathlib import Path

from inn_automl.api.runs import Artifact
from inn_automl.core.errors import StorageError
from inn_automl.core.result import JobResult
from inn_automl.core.storage import read_json, sha256_of

FIGURES = "figures"


def describe_job(folder: Path, result: JobResult) -> list[Artifact]:
    """The artifacts of a finished job, by path.

    Raises:
        StorageError: one of them cannot be read.
    """
    names = {
        "result.json",
        "inn.zip",
        result.job["elastic"],
        *(point.bundle for device in result.devices for point in device.front),
        *(
            path.relative_to(folder).as_posix()
            for path in (folder / FIGURES).rglob("*")
            if path.is_file()
        ),
    }
    return [describe_file(folder, folder / name) for name in sorted(names)]


def describe_file(folder: Path, path: Path) -> Artifact:
    """A file of the job's folder, as the coordinator lists it.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        sha256, size_bytes = sha256_of(path), path.stat().st_size
    except OSError as error:
        raise StorageError(
            f"{str(path)!r} cannot be read ({error.strerror}): run the job again."
        ) from error
    return Artifact(path=path.relative_to(folder).as_posix(), sha256=sha256, size_bytes=size_bytes)


def mlflow_page(folder: Path) -> str | None:
    """Page of the job in MLflow's UI; None if it was not published there."""
    try:
        page = read_json(folder / "published.json")["fragment"]
    except (FileNotFoundError, KeyError):
        return None
    return str(page)
