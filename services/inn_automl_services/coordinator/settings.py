"""The settings: environment variables with the prefix `INN_AUTOML_`, or arguments of the embedded
stack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once, when the process starts."""

    model_config = SettingsConfigDict(env_prefix="INN_AUTOML_", extra="ignore", frozen=True)

    database_url: str
    """SQLAlchemy URL: `sqlite:////folder/coordinator.db` or `postgresql+psycopg://...`."""
    storage_url: str
    """fsspec URL of the folder for datasets and jobs: `file:///folder` or `s3://bucket/prefix`."""
    public_url: str = "http://127.0.0.1:8080"
    """Where workers and agents reach this coordinator."""
    ray_url: str | None = None
    """Ray's dashboard, whose Jobs API runs the jobs: `http://127.0.0.1:8265`. None: nothing is
    dispatched here.
    """
    ray_token: SecretStr | None = None
    mlflow_url: str | None = None
    """MLflow as workers reach it."""
    mlflow_public_url: str | None = None
    """MLflow as people reach it; None for `mlflow_url`."""

    max_running_jobs: Annotated[int, Field(ge=1)] = 1000
    """Of all projects together."""
    max_attempts: Annotated[int, Field(ge=1)] = 5
    """Starts of a job before it is given up; a cancel or a bad input ends it at once."""
    heartbeat_s: float = 5.0
    """How often workers and agents are asked to report."""
    lease_s: float = 60.0
    """A run that was not heard of for this long is lost, and its job is queued again."""
    start_lease_s: float = 180.0
    """The same, before the worker's first word: Ray may have to wait for resources or a new node."""
    measurement_lease_s: float = 30.0
    device_away_s: float = 45.0
    """A device whose agent was not heard of for this long is shown as away."""
    dispatch_interval_s: float = 1.0

    max_upload_bytes: int = 20 * 2**30
    upload_memory_bytes: int = 8 * 2**30
    """Address space of the process that checks an upload."""
    upload_seconds: float = 600.0
    """Time that checking an upload may take."""
    allowed_dataset_roots: tuple[str, ...] = ()
    """URLs that datasets may be registered from begin with one of these, e.g. `s3://data/`,
    `https://data.example/`.
    """
    max_body_bytes: int = 2**20
    """Of JSON requests; results of workers and agents may be 64 times as large."""
    requests_per_minute: Annotated[int, Field(ge=1)] = 6000
    """Of one key."""
    scratch: Path | None = None
    """Folder for what is under way; None for the system's."""
