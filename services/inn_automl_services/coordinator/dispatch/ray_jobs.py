"""Runs as jobs of a Ray cluster, through the REST API of its dashboard: nothing of Ray is
imported.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import httpx

from inn_automl.core.errors import BackendError
from inn_automl_services.coordinator.dispatch.runner import (
    Runner,
    RunnerUnavailableError,
    RunState,
    RunStatus,
    Submission,
)
from inn_automl_services.coordinator.settings import Settings

ENTRYPOINT = "python -m inn_automl_workers.run_job"
DRIVER_BYTES = 512 * 2**20
"""Memory that a run's own process asks of its node. Asking for any resource is what lets Ray place
it on a worker: one that asks for none runs on the head and dies with it. Memory, since processors
are what its children wait for."""
REQUEST_S = 15.0

_STATES = {"PENDING": RunState.PENDING, "RUNNING": RunState.RUNNING}
_NEVER_BEGAN = frozenset(
    {"JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE"}
)


class RayJobs(Runner):
    """A client of one cluster.

    Args:
        url: of the dashboard.
        token: what the cluster's RAY_AUTH_TOKEN is; None if it has none.
        installation: tells the runs of this database and storage from those that others keep on
            the same cluster.
        environment: given to every run.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        installation: str,
        environment: dict[str, str],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers=headers,
            timeout=REQUEST_S,
            transport=transport,
            trust_env=False,
        )
        self._installation, self._environment = installation, environment

    @classmethod
    def from_settings(cls, settings: Settings, url: str) -> RayJobs:
        return cls(
            url,
            token=settings.ray_token.get_secret_value() if settings.ray_token else None,
            installation=hashlib.sha256(settings.storage_url.encode()).hexdigest()[:16],
            environment={
                "INN_AUTOML_COORDINATOR_URL": settings.public_url,
                "INN_AUTOML_STORAGE_URL": settings.storage_url,
            },
        )

    def check(self) -> None:
        self._ask("GET", "/api/version")

    def submit(self, submission: Submission) -> None:
        variables = {
            **self._environment,
            "INN_AUTOML_JOB_ID": submission.job_id,
            "INN_AUTOML_LEASE_TOKEN": submission.token,
        }
        answer = self._ask(
            "POST",
            "/api/jobs/",
            json={
                "entrypoint": ENTRYPOINT,
                "submission_id": submission.submission_id,
                "entrypoint_memory": DRIVER_BYTES,
                "runtime_env": {"env_vars": variables},
                "metadata": {"installation": self._installation, "job_id": submission.job_id},
            },
            accept=(400, 500),
        )
        if answer.is_success or "already exists" in answer.text:
            return
        if answer.status_code == 500:  # a head that is just starting has no agent yet
            raise RunnerUnavailableError(
                f"Ray at {self._http.base_url} cannot start jobs now ({_last_line(answer.text)})."
            )
        raise BackendError(
            f"Ray at {self._http.base_url} refused the job ({_last_line(answer.text)})."
        )

    def runs(self) -> dict[str, RunStatus]:
        found = (self._run(job) for job in self._ask("GET", "/api/jobs/").json())
        return {run.submission_id: run for run in found if run is not None}

    def stop(self, submission_id: str) -> None:
        self._ask("POST", f"/api/jobs/{submission_id}/stop", accept=(404,))

    def log(self, submission_id: str) -> str:
        # 500: the agent of the node that it ran on is gone, and the log with it.
        answer = self._ask("GET", f"/api/jobs/{submission_id}/logs", accept=(404, 500))
        return str(answer.json().get("logs") or "") if answer.is_success else ""

    def forget(self, submission_id: str) -> None:
        self._ask("DELETE", f"/api/jobs/{submission_id}", accept=(404, 500))

    def close(self) -> None:
        self._http.close()

    def _run(self, job: dict[str, Any]) -> RunStatus | None:
        metadata = job.get("metadata") or {}
        if job.get("type") != "SUBMISSION" or metadata.get("installation") != self._installation:
            return None
        ended_ms = job.get("end_time")
        return RunStatus(
            submission_id=job["submission_id"],
            job_id=metadata.get("job_id", ""),
            state=_STATES.get(job["status"], RunState.ENDED),
            message=_last_line(job.get("message") or ""),
            began=job.get("error_type") not in _NEVER_BEGAN,
            ended_at=datetime.fromtimestamp(ended_ms / 1000, UTC) if ended_ms else None,
        )

    def _ask(
        self,
        method: str,
        path: str,
        *,
        json: dict[str, Any] | None = None,
        accept: tuple[int, ...] = (),
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=json)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise RunnerUnavailableError(
                f"Ray at {self._http.base_url} does not answer ({reason})."
            ) from error
        if answer.is_success or answer.status_code in accept:
            return answer
        if answer.status_code in (401, 403):
            raise RunnerUnavailableError(
                f"Ray at {self._http.base_url} refuses the token: set INN_AUTOML_RAY_TOKEN to its "
                f"RAY_AUTH_TOKEN."
            )
        said = f"answered {answer.status_code} to {method} {path} ({_last_line(answer.text)})"
        raise RunnerUnavailableError(f"Ray at {self._http.base_url} {said}.")


def _last_line(text: str) -> str:
    """The last line of a text, which in a traceback names the error."""
    lines = text.strip().splitlines()
    return lines[-1].strip()[:500] if lines else ""
