"""Use cases of datasets: receive, register, check, show, delete."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from inn_automl.api import datasets as wire
from inn_automl.api.datasets import DatasetSummary, RegisterDataset
from inn_automl.core.errors import ConflictError, InputError, NotFoundError, StorageError
from inn_automl.core.spec import BUILTIN_KINDS
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.datasets import repository
from inn_automl_services.coordinator.datasets.checking import check_upload
from inn_automl_services.coordinator.datasets.fetching import check_url, fetch
from inn_automl_services.coordinator.datasets.incoming import Incoming, incoming_folder, receiving
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.tables import DatasetRow


def find(session: Session, project_id: str, reference: str) -> DatasetRow:
    """Raises:
    NotFoundError: the project has no dataset of that id or name.
    """
    row = repository.find(session, project_id, reference)
    if row is None:
        raise NotFoundError(
            f"there is no dataset {reference!r} in this project: see GET /v1/datasets."
        )
    return row


def find_same(
    context: Context, project_id: str, *, name: str, sha256: str | None
) -> wire.StoredDataset | None:
    """The dataset of this content, under whatever name.

    Raises:
        InputError: the name is that of a built-in dataset.
        ConflictError: the name belongs to other content.
    """
    if name in BUILTIN_KINDS:
        raise InputError(f"{name!r} is the name of a built-in dataset: choose another one.")
    with context.database.read() as session:
        same = repository.find_content(session, project_id, sha256) if sha256 else None
        if same is not None:
            return to_wire(same)
        if repository.find(session, project_id, name) is not None:
            raise _name_taken(name)
    return None


def register(
    context: Context, project_id: str, request: RegisterDataset
) -> tuple[wire.StoredDataset, bool]:
    """Fetches and keeps what a URL names; returns it, and whether it is new.

    Raises:
        InputError, DatasetError: a malformed URL, content that cannot be used or hashes to
            something else.
        ForbiddenError: the settings do not allow the URL.
        ConflictError: the name belongs to other content.
        TooLargeError: more bytes than the limit.
        UnavailableError: the URL's server is away.
    """
    settings = context.settings
    filename = check_url(request.url, settings.allowed_dataset_roots)
    with context.database.read() as session:
        named = repository.find(session, project_id, request.name)
        if (
            named is not None
            and named.source_url == request.url
            and request.sha256 in (None, named.sha256)
        ):
            return to_wire(named), False
    if same := find_same(context, project_id, name=request.name, sha256=request.sha256):
        return same, False
    root = incoming_folder(settings, context.store)
    with receiving(root, filename, limit_bytes=settings.max_upload_bytes) as incoming:
        fetch(request.url, incoming, settings)
        return keep(
            context,
            project_id,
            incoming,
            name=request.name,
            sha256=request.sha256,
            source_url=request.url,
        )


def keep(
    context: Context,
    project_id: str,
    incoming: Incoming,
    *,
    name: str,
    sha256: str | None,
    source_url: str | None = None,
) -> tuple[wire.StoredDataset, bool]:
    """Checks what was received, moves it into place and makes its row; returns it, and whether it
    is new.

    Raises:
        DatasetError: it cannot be used, or does not hash to `sha256`.
        ConflictError: the name belongs to other content.
        StorageError: it could not be stored.
    """
    found = incoming.finish(sha256)
    if sha256 is None and (same := find_same(context, project_id, name=name, sha256=found)):
        return same, False
    metadata = check_upload(incoming.path, context.settings)
    folder = f"datasets/{project_id}/{found}"
    path = f"{folder}/{incoming.path.name}"
    _move(context, incoming.path, folder, metadata)
    row = DatasetRow(
        id=new_id("dst"),
        project_id=project_id,
        name=name,
        filename=incoming.path.name,
        sha256=found,
        size_bytes=incoming.size_bytes,
        path=path,
        source_url=source_url,
        metadata_=metadata.model_dump(mode="json"),
        created_at=now(),
    )
    try:
        with context.database.write() as session:
            session.add(row)
            session.flush()
            # deleted, by whoever deleted the same content in this moment
            if not context.store.exists(path):
                raise StorageError("the dataset was deleted while it was stored: send it again.")
    except IntegrityError:
        return _lost_race(context, project_id, name=name, sha256=found, path=path), False
    return to_wire(row), True


def _move(context: Context, source: Path, folder: str, metadata: DatasetSummary) -> None:
    for number in range(metadata.num_thumbnails):
        context.store.put(f"{folder}/thumbnails/{number}.png", source.parent / f"{number}.png")
    target = context.store.local_path(f"{folder}/{source.name}")
    if target is None:
        context.store.put(f"{folder}/{source.name}", source)
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(source, 0o644)
        os.replace(source, target)
    except OSError as error:
        raise StorageError(
            f"the dataset could not be stored ({error.strerror}): try again later."
        ) from error


def _lost_race(
    context: Context, project_id: str, *, name: str, sha256: str, path: str
) -> wire.StoredDataset:
    """Somebody else stored the same content, or took the name, since it was looked for."""
    with context.database.read() as session:
        winner = repository.find_content(session, project_id, sha256)
    if winner is None:
        context.store.delete(path.rpartition("/")[0])
        raise _name_taken(name)
    if winner.path != path:
        context.store.delete(path)
    return to_wire(winner)


def delete(session: Session, context: Context, project_id: str, reference: str) -> None:
    """Deletes a dataset and its files.

    Raises:
        NotFoundError: the project has none of that id or name.
        ConflictError: a job that has not ended uses it.
    """
    row = repository.lock(session, find(session, project_id, reference).id)
    if row is None:
        raise NotFoundError(f"the dataset {reference!r} was deleted in this moment.")
    if job := repository.job_that_uses(session, row.id):
        raise ConflictError(
            f"the job {job} uses the dataset {row.name!r}: wait until it has ended, or cancel it."
        )
    try:
        repository.forget(session, row)
    except IntegrityError:
        raise ConflictError(
            f"a new job uses the dataset {row.name!r}: wait until it has ended, or cancel it."
        ) from None
    context.store.delete(row.path.rpartition("/")[0])


def thumbnail(
    session: Session, context: Context, project_id: str, reference: str, number: int
) -> bytes:
    """A PNG.

    Raises:
        NotFoundError: no such dataset, or it has fewer.
    """
    row = find(session, project_id, reference)
    if number >= row.metadata_["num_thumbnails"]:
        raise NotFoundError(
            f"the dataset {row.name!r} has {row.metadata_['num_thumbnails']} thumbnails, from 0 on."
        )
    return context.store.read(f"{row.path.rpartition('/')[0]}/thumbnails/{number}.png")


def to_wire(row: DatasetRow) -> wire.StoredDataset:
    return wire.StoredDataset(
        id=row.id,
        name=row.name,
        filename=row.filename,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        source_url=row.source_url,
        metadata=DatasetSummary.model_validate(row.metadata_),
        created_at=row.created_at,
    )


def _name_taken(name: str) -> ConflictError:
    return ConflictError(
        f"the project has other content under the name {name!r}: choose another name or delete it."
    )
