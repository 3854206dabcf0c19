"""The service's API as methods. Every one of them may raise the errors of
`inn_automl.core.errors`.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from inn_automl.api.base import Page
from inn_automl.api.datasets import RegisterDataset, StoredDataset
from inn_automl.api.devices import Device
from inn_automl.api.jobs import (
    ENDED,
    Comparison,
    DiscretizeJob,
    ExtendJob,
    Fronts,
    Job,
    JobEvent,
    JobKind,
    JobState,
    JobSummary,
    SubmitJob,
)
from inn_automl.client import transfers
from inn_automl.client.events import watch_job
from inn_automl.client.location import Location
from inn_automl.client.transfers import DownloadedFile, OnProgress
from inn_automl.core.errors import JobEndedError, ServiceError
from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import DeviceResult
from inn_automl.core.spec import DeviceBudget, JobSpec, SearchBudget, parse
from inn_automl.core.storage import sha256_of
from inn_automl.http.connection import Connection
from inn_automl.http.retries import RetryPolicy

PAGE_SIZE = 200
RECOMMENDED = "recommended"

Model = TypeVar("Model", bound=BaseModel)


def _silent(done: int, total: int | None) -> None:
    pass


class Client:
    """A coordinator, as one key sees it. Requests whose connection breaks are made again.

    Args:
        url: of the coordinator, e.g. `http://127.0.0.1:8080`.
        key: an API key, `inn_...`.
        retry_deadline_s: how long a request is retried before `ConnectionLostError`.
        transport: sends the requests in place of the network, e.g. in a test.
        sleep: what waits between two attempts.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        retry_deadline_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        retry = RetryPolicy(deadline_s=retry_deadline_s, sleep=sleep)
        self._http = Connection(url, key, retry=retry, transport=transport)

    @classmethod
    def at(cls, location: Location) -> Self:
        """A client of what `find_server` found."""
        return cls(location.url, location.key)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Datasets

    def datasets(self) -> Iterator[StoredDataset]:
        """All datasets of the project, newest first."""
        return self._pages("/datasets", Page[StoredDataset], {})

    def dataset(self, dataset: str) -> StoredDataset:
        """One dataset, by id or name."""
        return self._one(StoredDataset, "GET", f"/datasets/{_part(dataset)}")

    def upload_dataset(
        self, path: Path | str, name: str | None = None, on_progress: OnProgress = _silent
    ) -> StoredDataset:
        """Uploads a file (.npz, .zip, .tar, .parquet) or a folder (as a ZIP). Content that the
        project has already is not sent again.

        Args:
            name: what jobs call it; None for the file's name.

        Raises:
            DatasetNotFoundError: there is nothing at the path.
            RefusedError: the service found the content unusable, too large, or the name taken.
        """
        with transfers.as_file(Path(path)) as file:
            sha256 = sha256_of(file)
            known = next((dataset for dataset in self.datasets() if dataset.sha256 == sha256), None)
            if known and name in (None, known.name):
                return known
            return self._one(
                StoredDataset,
                "PUT",
                f"/datasets/content/{sha256}",
                params={"name": name or dataset_name(file), "filename": file.name},
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(file.stat().st_size),
                },
                content=lambda: transfers.read_chunks(file, on_progress),
            )

    def register_dataset(self, url: str, name: str, sha256: str | None = None) -> StoredDataset:
        """Has the service fetch a dataset from a URL that its settings allow."""
        body = RegisterDataset(name=name, url=url, sha256=sha256)
        return self._one(StoredDataset, "POST", "/datasets", json=_json(body), headers=_new_key())

    def delete_dataset(self, dataset: str) -> None:
        """Deletes a dataset that no job uses."""
        self._http.request("DELETE", f"/datasets/{_part(dataset)}")

    # Jobs

    def submit(
        self,
        spec: JobSpec,
        *,
        name: str | None = None,
        priority: int = 0,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submits a job. However often the connection breaks meanwhile, it is submitted once.

        Args:
            idempotency_key: the same key and spec, from whichever process, name the same job.
        """
        body = parse(SubmitJob, {"spec": spec, "name": name, "priority": priority}, where="the job")
        return self._one(Job, "POST", "/jobs", json=_json(body), headers=_new_key(idempotency_key))

    def jobs(
        self, *, state: JobState | None = None, kind: JobKind | None = None
    ) -> Iterator[JobSummary]:
        """The project's jobs, newest first, requested page by page."""
        return self._pages("/jobs", Page[JobSummary], {"state": state, "kind": kind})

    def job(self, job_id: str) -> Job:
        return self._one(Job, "GET", f"/jobs/{_part(job_id)}")

    def watch(
        self,
        job_id: str,
        *,
        after: int = 0,
        retry_deadline_s: float = 600.0,
        on_reconnect: Callable[[str], None] = lambda reason: None,
    ) -> Iterator[JobEvent]:
        """The job's events as they come, until it has ended; reconnects by itself and misses and
        repeats none.

        Args:
            after: id of the last event that is known already.
            retry_deadline_s: how long the server may be away.
            on_reconnect: called with the reason when the connection broke.
        """
        return watch_job(
            self._http,
            _part(job_id),
            lambda: self.job(job_id),
            after=after,
            retry_deadline_s=retry_deadline_s,
            on_reconnect=on_reconnect,
        )

    def wait(self, job_id: str, on_event: Callable[[JobEvent], None] = lambda event: None) -> Job:
        """Blocks until the job succeeded.

        Raises:
            JobEndedError: it failed or was cancelled; the message says why.
        """
        for event in self.watch(job_id):
            on_event(event)
        return succeeded(self.job(job_id))

    def cancel(self, job_id: str) -> Job:
        return self._one(Job, "POST", f"/jobs/{_part(job_id)}/cancel")

    def retry(self, job_id: str) -> Job:
        """Queues a failed or cancelled job again; it continues from what it has."""
        return self._one(Job, "POST", f"/jobs/{_part(job_id)}/retry")

    def delete(self, job_id: str) -> None:
        """Deletes an ended job with all its files."""
        self._http.request("DELETE", f"/jobs/{_part(job_id)}")

    def logs(self, job_id: str, *, offset: int = 0) -> bytes:
        """Output of the job's worker, from byte `offset` on."""
        return self._http.request(
            "GET", f"/jobs/{_part(job_id)}/logs", params={"offset": offset}
        ).content

    def extend(
        self,
        job_id: str,
        devices: tuple[DeviceBudget, ...],
        search: SearchBudget | None = None,
        *,
        name: str | None = None,
        priority: int = 0,
    ) -> Job:
        """Other devices or bounds for a finished job, without training again."""
        values = {
            "devices": devices,
            "search": search or SearchBudget(),
            "name": name,
            "priority": priority,
        }
        body = parse(ExtendJob, values, where="the extension")
        return self._one(
            Job, "POST", f"/jobs/{_part(job_id)}/extend", json=_json(body), headers=_new_key()
        )

    def discretize(
        self,
        job_id: str,
        *,
        widths: Mapping[str, int] | None = None,
        ratio: float | None = None,
        precision: str = DEFAULT,
        fine_tune_seconds: float = 0.0,
    ) -> Job:
        """One more model of a finished job: `widths` by group, or one `ratio` (0 to 1) of all
        groups.

        Args:
            fine_tune_seconds: how long the model is fine-tuned on the training samples first.
        """
        values = {
            "widths": widths and dict(widths),
            "ratio": ratio,
            "precision": precision,
            "fine_tune_seconds": fine_tune_seconds,
        }
        body = parse(DiscretizeJob, values, where="the discretization")
        return self._one(
            Job, "POST", f"/jobs/{_part(job_id)}/discretize", json=_json(body), headers=_new_key()
        )

    # Results

    def fronts(self, job_id: str) -> Fronts:
        return self._one(Fronts, "GET", f"/jobs/{_part(job_id)}/fronts")

    def front(self, job_id: str, device: str) -> DeviceResult:
        return self._one(DeviceResult, "GET", f"/jobs/{_part(job_id)}/fronts/{_part(device)}")

    def compare(self, first: str, second: str) -> Comparison:
        return self._one(Comparison, "GET", "/compare", params=[("jobs", first), ("jobs", second)])

    def download(
        self,
        job_id: str,
        path: Path,
        *,
        device: str,
        point: str = RECOMMENDED,
        on_progress: OnProgress = _silent,
    ) -> DownloadedFile:
        """Writes the bundle of a front's point to `path`, verified.

        Args:
            point: id of a point of the device's front, or "recommended".
        """
        address = f"/jobs/{_part(job_id)}/models/{_part(point)}"
        return transfers.download(
            self._http, address, path, params={"device": device}, on_progress=on_progress
        )

    def download_bundle(
        self, job_id: str, path: Path, on_progress: OnProgress = _silent
    ) -> DownloadedFile:
        """Writes the bundle that a discretization made."""
        return transfers.download(
            self._http, f"/jobs/{_part(job_id)}/bundle", path, on_progress=on_progress
        )

    def download_inn(
        self, job_id: str, path: Path, on_progress: OnProgress = _silent
    ) -> DownloadedFile:
        """Writes the job's Integral Neural Network itself."""
        return transfers.download(
            self._http, f"/jobs/{_part(job_id)}/inn", path, on_progress=on_progress
        )

    def download_elastic(
        self, job_id: str, path: Path, on_progress: OnProgress = _silent
    ) -> DownloadedFile:
        """Writes all front points of the job as one file, for `inn_automl.serving.ElasticModel`."""
        return transfers.download(
            self._http, f"/jobs/{_part(job_id)}/elastic", path, on_progress=on_progress
        )

    # Devices

    def devices(self) -> list[Device]:
        return list(self._pages("/devices", Page[Device], {}))

    def remove_device(self, name: str) -> None:
        self._http.request("DELETE", f"/devices/{_part(name)}")

    def _one(self, model: type[Model], method: str, path: str, **more: Any) -> Model:
        return self._read(model, self._http.request(method, path, **more))

    def _pages(
        self, path: str, page_model: type[Page[Model]], params: dict[str, Any]
    ) -> Iterator[Model]:
        asked = {key: value for key, value in params.items() if value is not None} | {
            "limit": PAGE_SIZE
        }
        while True:
            page = self._read(page_model, self._http.request("GET", path, params=asked))
            yield from page.items
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    def _read(self, model: type[Model], response: httpx.Response) -> Model:
        try:
            return model.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            raise ServiceError(
                f"{self.url} answered with something else than a {model.__name__} "
                f"({error.errors()[0]['msg']}): check "
                "that the URL is a coordinator's, and install its version of inn-automl."
            ) from error


def succeeded(job: Job) -> Job:
    """The job, if it succeeded.

    Raises:
        JobEndedError: it did not; the message says why.
    """
    if job.state is JobState.SUCCEEDED:
        return job
    if job.error:
        raise JobEndedError(f"job {job.id} failed: {job.error.detail}", code=job.error.code)
    hint = (
        f"`inn-automl retry {job.id}` continues it."
        if job.state in ENDED
        else "watch it until it has ended."
    )
    raise JobEndedError(f"job {job.id} is {job.state}: {hint}", code=f"job_{job.state}")


def dataset_name(path: Path) -> str:
    """A name that the service accepts, made of a file's name."""
    stem = path.stem.removesuffix(".tar")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("-._")[:64] or "dataset"


def _part(value: str) -> str:
    return quote(value, safe="")


def _json(body: BaseModel) -> dict[str, Any]:
    return body.model_dump(mode="json")


def _new_key(given: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": given or uuid.uuid4().hex}
