"""Settings of a run, read from its environment."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from inn_automl.core.allowed_models import DEFAULT_ALLOWED
from inn_automl.core.errors import SpecError


def _default_cache() -> Path:
    return Path(tempfile.gettempdir()) / f"inn-automl-cache-{os.getuid()}"


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of one run."""

    coordinator_url: str
    job_id: str
    lease_token: str = field(repr=False)
    storage_url: str | None = None
    """Root of the coordinator's storage; None: measurements are not shared between jobs."""
    scratch: Path | None = None
    """Folder for copies of job folders; None: the system's temporary one."""
    cache: Path = field(default_factory=_default_cache)
    """Folder for datasets."""
    folder_timeout_s: float = 60.0
    """Seconds that a run waits for the earlier one to release the job's folder."""
    allowed_models: tuple[str, ...] = DEFAULT_ALLOWED
    """Patterns of models that are no families of our own, which this worker trains."""
    mlflow_retry_deadline_s: float = 600.0
    """Seconds for which requests to an unreachable tracking server are repeated."""

    @classmethod
    def from_environment(cls) -> Self:
        """Reads INN_AUTOML_...; removes the lease token, as children have no use for it."""
        environment = os.environ
        scratch, cache = (environment.get(f"INN_AUTOML_{name}") for name in ("SCRATCH", "CACHE"))
        return cls(
            coordinator_url=environment["INN_AUTOML_COORDINATOR_URL"],
            job_id=environment["INN_AUTOML_JOB_ID"],
            lease_token=environment.pop("INN_AUTOML_LEASE_TOKEN"),
            storage_url=environment.get("INN_AUTOML_STORAGE_URL") or None,
            scratch=Path(scratch) if scratch else None,
            cache=Path(cache) if cache else _default_cache(),
            allowed_models=_allowed_models(environment.get("INN_AUTOML_ALLOWED_MODELS")),
        )


def _allowed_models(text: str | None) -> tuple[str, ...]:
    """The patterns in a JSON list.

    Raises:
        SpecError: the text is none.
    """
    if not text:
        return DEFAULT_ALLOWED
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise SpecError(
            f"INN_AUTOML_ALLOWED_MODELS = {text!r:.200} is no JSON list of patterns: write "
            '["timm:*"], or leave it out.'
        )
    return tuple(value)
