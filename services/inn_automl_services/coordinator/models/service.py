"""Use cases of results: fronts, bundles, comparisons of succeeded jobs."""

from __future__ import annotations

from sqlalchemy.orm import Session

from inn_automl.api.jobs import Comparison, DeviceComparison, JobKind, JobState
from inn_automl.core.errors import ConflictError, InputError, NotFoundError
from inn_automl.core.metric import get_metric
from inn_automl.core.result import DeviceResult, FrontPoint
from inn_automl.width_search.pareto import hypervolume
from inn_automl_services.coordinator.db.tables import ArtifactRow, JobRow
from inn_automl_services.coordinator.jobs.service import find
from inn_automl_services.coordinator.keys import Caller
from inn_automl_services.coordinator.models import repository

RECOMMENDED = "recommended"


def fronts_json(session: Session, caller: Caller, job_id: str) -> str:
    """The JSON of `Fronts`, put together from what is stored.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has no fronts, or none yet.
    """
    _, devices = repository.fronts_as_text(session, caller.project_id, job_id)
    if not devices:
        _searched(session, caller, job_id)
    return f'{{"job_id": "{job_id}", "devices": [{", ".join(devices)}]}}'


def front_json(session: Session, caller: Caller, job_id: str, device: str) -> str:
    """The JSON of a `DeviceResult`, as it is stored.

    Raises:
        NotFoundError: there is no such job, or no such device in it.
        ConflictError: it has no fronts, or none yet.
    """
    _, devices = repository.fronts_as_text(session, caller.project_id, job_id, device)
    if not devices:
        raise _no_device(session, _searched(session, caller, job_id), device)
    return devices[0]


def bundle_of(
    session: Session, caller: Caller, job_id: str, point: str, device: str | None
) -> ArtifactRow:
    """The bundle of a front's point.

    Raises:
        NotFoundError: no such job, device or point, or the device recommends none.
        ConflictError: the job has no fronts, or none yet.
        InputError: "recommended" without a device.
    """
    job = _searched(session, caller, job_id)
    if device is None:
        if point == RECOMMENDED:
            names = ", ".join(repository.device_names(session, job.id))
            raise InputError(
                f"each device recommends its own point: give ?device= with one of {names}."
            )
        path = f"bundles/{point}.zip"
    else:
        path = _point_on(session, job, point, device).bundle
    found = repository.find_artifact(session, job.id, path)
    if found is None:
        raise NotFoundError(
            f"no front of the job {job.id} has a point {point!r}: GET /v1/jobs/{job.id}/fronts "
            f"lists them."
        )
    return found


def artifact(session: Session, caller: Caller, job_id: str, path: str) -> ArtifactRow:
    """A file of a job that searched.

    Raises:
        NotFoundError: no such job, or it has no such file.
        ConflictError: it has none yet, or is of another kind.
    """
    job = _searched(session, caller, job_id)
    found = repository.find_artifact(session, job.id, path)
    if found is None:
        raise NotFoundError(f"the job {job.id} has no {path}: its worker published none.")
    return found


def discretized(session: Session, caller: Caller, job_id: str) -> ArtifactRow:
    """The bundle that a discretization made.

    Raises:
        NotFoundError: no such job, or it published none.
        ConflictError: it is of another kind, or has not succeeded.
    """
    job = find(session, caller, job_id)
    if job.kind != JobKind.DISCRETIZE:
        raise ConflictError(
            f"the job {job.id} has a bundle for each point of its fronts: GET "
            f"/v1/jobs/{job.id}/models/POINT has one."
        )
    _check_succeeded(job)
    bundles = repository.bundles(session, job.id)
    if not bundles:
        raise NotFoundError(f"the job {job.id} has no bundle: its worker published none.")
    return bundles[0]


def compare(session: Session, caller: Caller, first: str, second: str) -> Comparison:
    """The fronts of two jobs on the devices that both have.

    Raises:
        InputError: it is one and the same job.
        NotFoundError: there is no such job.
        ConflictError: a job has no fronts, or none yet; or their metric values are in different
            metrics.
    """
    if first == second:
        raise InputError(f"the job {first} was named twice: give two different ones.")
    results = {
        job_id: repository.device_results(session, _searched(session, caller, job_id).id)
        for job_id in (first, second)
    }
    names = {job_id: set(devices) for job_id, devices in results.items()}
    return Comparison(
        jobs=(first, second),
        devices=[
            _compare_device(
                name,
                {job: DeviceResult.model_validate(results[job][name]) for job in (first, second)},
            )
            for name in sorted(names[first] & names[second])
        ],
        only_in={
            first: sorted(names[first] - names[second]),
            second: sorted(names[second] - names[first]),
        },
    )


def _compare_device(name: str, fronts: dict[str, DeviceResult]) -> DeviceComparison:
    """One reference point for both, so far out that every point of both fronts counts."""
    metrics = {front.metric for front in fronts.values()}
    if len(metrics) > 1:
        named = " and ".join(
            f"{get_metric(front.metric).label} in {job}" for job, front in fronts.items()
        )
        raise ConflictError(
            f"the fronts on {name!r} show {named}, which do not compare: give two jobs of one task."
        )
    percentiles = {
        point.latency_ms.percentile for front in fronts.values() for point in front.front
    }
    shared = len(percentiles) < 2

    def latency_ms(point: FrontPoint) -> float:
        return point.latency_ms.at_percentile if shared else point.latency_ms.p95

    points = {
        job: [(latency_ms(point), point.metric_value) for point in front.front]
        for job, front in fronts.items()
    }
    corners = [point for found in points.values() for point in found]
    corners += [front.reference_point for front in fronts.values()]
    reference = (
        max(latency for latency, _ in corners),
        min(metric_value for _, metric_value in corners),
    )
    volumes = {
        job: hypervolume(
            [latency for latency, _ in found],
            [metric_value for _, metric_value in found],
            reference,
        )
        for job, found in points.items()
    }
    best = max(volumes, key=lambda job: volumes[job])
    return DeviceComparison(
        device=name,
        reference=reference,
        hypervolume=volumes,
        better=None if len(set(volumes.values())) == 1 else best,
        fronts=fronts,
    )


def _searched(session: Session, caller: Caller, job_id: str) -> JobRow:
    job = find(session, caller, job_id)
    if job.kind == JobKind.DISCRETIZE:
        raise ConflictError(
            f"the job {job.id} made one model and searched for no front: GET "
            f"/v1/jobs/{job.id}/bundle has it."
        )
    _check_succeeded(job)
    return job


def _check_succeeded(job: JobRow) -> None:
    if job.state != JobState.SUCCEEDED:
        raise ConflictError(
            f"the job {job.id} is {job.state}: what it finds is there once it has succeeded."
        )


def _point_on(session: Session, job: JobRow, point: str, device: str) -> FrontPoint:
    stored = repository.device_result(session, job.id, device)
    if stored is None:
        raise _no_device(session, job, device)
    result = DeviceResult.model_validate(stored)
    wanted = point
    if point == RECOMMENDED:
        if result.recommended is None:
            raise NotFoundError(
                f"the device {device!r} recommends no point: {result.recommendation}"
            )
        wanted = result.recommended
    found = next((one for one in result.front if one.id == wanted), None)
    if found is None:
        listed = ", ".join(one.id for one in result.front)
        raise NotFoundError(
            f"the front of the device {device!r} has no point {wanted!r}: it has {listed}."
        )
    return found


def _no_device(session: Session, job: JobRow, device: str) -> NotFoundError:
    names = ", ".join(repository.device_names(session, job.id))
    return NotFoundError(f"the job {job.id} has no device {device!r}: it has {names}.")
