"""Fronts, figures and comparisons of finished jobs, and the files that users download."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from inn_automl.api.base import Name
from inn_automl.api.jobs import Comparison, Fronts
from inn_automl.core import errors
from inn_automl.core.errors import ConflictError, NotFoundError, RangeError
from inn_automl.core.result import DeviceResult, JobResult
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.access import User
from inn_automl_services.coordinator.context import Context, InContext, Reading
from inn_automl_services.coordinator.db.tables import ArtifactRow
from inn_automl_services.coordinator.jobs.endpoints import READ_ERRORS, JobId
from inn_automl_services.coordinator.models import downloads, service

router = APIRouter(tags=["models"])

DeviceName = Annotated[
    Name, Path(description="Name of a device in the job's budget.", examples=["laptop"])
]
Point = Annotated[
    Name, Path(description="Id of a front's point, or `recommended`.", examples=["recommended"])
]
_RangeHeader = Annotated[str | None, Header(description="One range of bytes, e.g. `bytes=1000-`.")]
FOUND_ERRORS = (*READ_ERRORS, NotFoundError, ConflictError)
READ = (*FOUND_ERRORS, errors.StorageError, errors.CorruptFileError)

FIGURES = {"html": "text/html", "png": "image/png"}


def _file(*media_types: str) -> dict[int | str, dict[str, Any]]:
    content = {
        media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types
    }
    return {
        200: {"description": "The file; its ETag is its SHA-256.", "content": content},
        206: {"description": "The requested range.", "content": content},
        304: {"description": "It is what `If-None-Match` names."},
        **problems.responses(*READ, RangeError),
    }


@router.get(
    "/jobs/{job_id}/fronts",
    response_model=Fronts,
    summary="Fronts of all devices",
    responses=problems.responses(*FOUND_ERRORS),
)
def fronts(job_id: JobId, caller: User, session: Reading) -> Response:
    """Measured metric value (accuracy, or the task's own) and latency, one front a device, sorted
    by latency.
    """
    return _json(service.fronts_json(session, caller, job_id))


@router.get(
    "/jobs/{job_id}/fronts/{device}",
    response_model=DeviceResult,
    summary="Front of one device",
    responses=problems.responses(*FOUND_ERRORS),
)
def front(job_id: JobId, device: DeviceName, caller: User, session: Reading) -> Response:
    return _json(service.front_json(session, caller, job_id, device))


@router.get(
    "/jobs/{job_id}/result",
    response_model=JobResult,
    summary="All that a job found",
    responses={
        **_file("application/json"),
        200: {"description": "The file; its ETag is its SHA-256."},
    },
)
def result(
    job_id: JobId,
    caller: User,
    session: Reading,
    context: InContext,
    request: Request,
    range: _RangeHeader = None,
) -> Response:
    """result.json: the fronts, the spec, the recipe that was chosen, the training candidates,
    versions.
    """
    found = service.artifact(session, caller, job_id, "result.json")
    return _send(context, found, "application/json", request.headers)


@router.get(
    "/jobs/{job_id}/figure",
    response_class=StreamingResponse,
    summary="Fronts as a figure",
    responses=_file(*FIGURES.values()),
)
def figure(
    job_id: JobId,
    caller: User,
    session: Reading,
    context: InContext,
    request: Request,
    format: Literal["html", "png"] = "html",
    range: _RangeHeader = None,
) -> Response:
    """The interactive figure needs no other file and no internet."""
    found = service.artifact(session, caller, job_id, f"figures/fronts.{format}")
    return _send(context, found, FIGURES[format], request.headers)


@router.get(
    "/compare",
    response_model=Comparison,
    summary="Compare two jobs",
    responses=problems.responses(*FOUND_ERRORS),
)
def compare(
    jobs: Annotated[list[Name], Query(min_length=2, max_length=2, description="Ids of two jobs.")],
    caller: User,
    session: Reading,
) -> Comparison:
    """Hypervolumes of the measured fronts against one reference point a device."""
    return service.compare(session, caller, *jobs)


@router.get(
    "/jobs/{job_id}/models/{point}",
    response_class=StreamingResponse,
    summary="Download a point of a front",
    responses=_file("application/zip"),
)
def model(
    job_id: JobId,
    point: Point,
    caller: User,
    session: Reading,
    context: InContext,
    request: Request,
    device: Annotated[
        Name | None, Query(description="Whose front the point is on; needed for `recommended`.")
    ] = None,
    range: _RangeHeader = None,
) -> Response:
    """The bundle: model.onnx, weights.safetensors and config.json in a ZIP."""
    found = service.bundle_of(session, caller, job_id, point, device)
    return _send(context, found, "application/zip", request.headers, attached=True)


@router.get(
    "/jobs/{job_id}/bundle",
    response_class=StreamingResponse,
    summary="Download what a discretization made",
    responses=_file("application/zip"),
)
def bundle(
    job_id: JobId,
    caller: User,
    session: Reading,
    context: InContext,
    request: Request,
    range: _RangeHeader = None,
) -> Response:
    found = service.discretized(session, caller, job_id)
    return _send(context, found, "application/zip", request.headers, attached=True)


@router.get(
    "/jobs/{job_id}/inn",
    response_class=StreamingResponse,
    summary="Download the integral network itself",
    responses=_file("application/zip"),
)
def inn(
    job_id: JobId,
    caller: User,
    session: Reading,
    context: InContext,
    request: Request,
    range: _RangeHeader = None,
) -> Response:
    """The one trained network that all models of the job are sampled from."""
    found = service.artifact(session, caller, job_id, "inn.zip")
    return _send(context, found, "application/zip", request.headers, attached=True)


@router.get(
    "/jobs/{job_id}/elastic",
    response_class=StreamingResponse,
    summary="Download all front points as one model",
    responses=_file("application/zip"),
)
def elastic(
    job_id: JobId,
    caller: User,
    session: Reading,
    context: InContext,
    request: Request,
    range: _RangeHeader = None,
) -> Response:
    """elastic.zip, which `inn_automl.serving.ElasticModel` switches between points of while it
    serves.
    """
    found = service.artifact(session, caller, job_id, "elastic.zip")
    return _send(context, found, "application/zip", request.headers, attached=True)


def _send(
    context: Context,
    found: ArtifactRow,
    media_type: str,
    request_headers: Any,
    *,
    attached: bool = False,
) -> Response:
    name = found.path.rpartition("/")[2]
    # What is looked at runs its own script in a page of its own: it can reach nothing of this
    # server's.
    sandboxed = {} if attached else {"Content-Security-Policy": "sandbox allow-scripts"}
    return downloads.send(
        context.store,
        f"jobs/{found.job_id}/{found.path}",
        sha256=found.sha256,
        size_bytes=found.size_bytes,
        media_type=media_type,
        request_headers=request_headers,
        filename=name if attached else None,
        headers=sandboxed,
    )


def _json(text: str) -> Response:
    """A body that was validated when it was stored."""
    return Response(text, media_type="application/json")
