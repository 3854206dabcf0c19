"""The settings: environment variables with the prefix `INN_AUTOML_`, or arguments of the embedded
stack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from inn_automl.core.allowed_models import DEFAULT_ALLOWED


class Settings(BaseSettings):
    """Read once, when the process starts."""

    model_config = SettingsConfigDict(env_prefix="INN_AUTOML_", extra="ignore", frozen=True)

    database_url: str
    """SQLAlchemy URL: `sqlite:////folder/coordinator.db` or `postgresql+psycopg://...`."""
    storage_url: str
    """fsspec URL of the folder for datasets and jobs: `file:///folder` or `s3://bucket/prefix`."""
    public_url: str = "http://127.0.0.1:8080"
    """Address of this coordinator for workers and agents."""
    ray_url: str | None = None
    """Ray's dashboard, whose Jobs API runs the jobs: `http://127.0.0.1:8265`. None: this process
    dispatches nothing.
    """
    ray_token: SecretStr | None = None
    mlflow_url: str | None = None
    """MLflow as workers reach it."""
    mlflow_public_url: str | None = None
    """MLflow as people reach it; None for `mlflow_url`."""

    max_running_jobs: Annotated[int, Field(ge=1)] = 1000
    """Running jobs of all projects together."""
    max_attempts: Annotated[int, Field(ge=1)] = 5
    """Starts of a job before it is given up; a cancel or a bad input ends it at once."""
    heartbeat_s: float = 5.0
    """Interval of the reports that workers and agents send."""
    lease_s: float = 60.0
    """Seconds without a heartbeat after which a run is lost, and its job is queued again."""
    start_lease_s: float = 180.0
    """Lease before the first heartbeat. It is longer, as Ray may have to wait for
    resources or a new node.
    """
    measurement_lease_s: float = 30.0
    """Seconds without a heartbeat after which an agent's measurement is queued again."""
    max_measurement_attempts: Annotated[int, Field(ge=1)] = 3
    """Leases of a measurement that may be lost before it fails: a model that takes its machine down
    is not tried for ever.
    """
    device_away_s: float = 45.0
    """Seconds without a heartbeat after which an agent's device is shown as away."""
    dispatch_interval_s: float = 1.0
    """Seconds between two ticks of the dispatcher."""
    dispatch_min_backoff_s: float = 1.0
    """Seconds without claims after Ray did not answer; doubled each time."""
    dispatch_max_backoff_s: float = 30.0
    claim_batch_size: Annotated[int, Field(ge=1)] = 16
    """Jobs that are submitted side by side."""
    claim_time_limit_s: float = 5.0
    """Seconds after which claiming gives way to the other periodic tasks."""
    reconcile_interval_s: float = 2.0
    """Seconds between two comparisons of jobs with what Ray runs."""
    missing_run_s: float = 25.0
    """Seconds after which a run that Ray does not list is gone: more than a submission takes."""
    lost_run_log_lines: Annotated[int, Field(ge=1)] = 3
    """Last lines of a lost run's log that are given as the reason."""
    ended_run_retention_s: float = 3600.0
    """Seconds after which Ray forgets an ended run, once its log is stored."""
    max_ended_runs: Annotated[int, Field(ge=0)] = 500
    """Ended runs beyond which Ray forgets the oldest sooner, as it lists all of them each time."""
    max_runs_without_log: Annotated[int, Field(ge=0)] = 20_000
    """Ended runs beyond which Ray forgets even those whose log is not stored yet."""
    log_interval_s: float = 5.0
    """Seconds between two copies of a running job's log."""
    log_time_limit_s: float = 1.0
    """Seconds that copying logs may take within a comparison."""
    max_logs_per_tick: Annotated[int, Field(ge=1)] = 2000
    log_threads: Annotated[int, Field(ge=1)] = 8
    """Logs that are copied side by side."""

    event_poll_s: float = 0.5
    """Seconds between two reads of a watcher after an event; longer after each read without one."""
    event_idle_poll_s: float = 2.0
    """The longest time between two reads of a watcher."""
    event_batch_size: Annotated[int, Field(ge=1)] = 500
    max_event_readers: Annotated[int, Field(ge=1)] = 4
    """Watchers of one process that read the database at once."""
    progress_event_interval_s: float = 2.0
    """Progress is stored with every heartbeat; watchers get it this often, and at every change of
    the stage.
    """
    max_notes: Annotated[int, Field(ge=0)] = 200
    """Notes of one job; further messages of a run are in its log only."""

    max_upload_bytes: int = 20 * 2**30
    upload_memory_bytes: int = 8 * 2**30
    """Address space of the process that checks an upload."""
    upload_seconds: float = 600.0
    """Time that checking an upload may take."""
    allowed_dataset_roots: tuple[str, ...] = ()
    """URLs that datasets may be registered from begin with one of these, e.g. `s3://data/`,
    `https://data.example/`.
    """
    allowed_models: tuple[str, ...] = DEFAULT_ALLOWED
    """Patterns of models that are no families of our own: `timm:*`, `torchvision:*`, and
    `package.module:factory` of packages that the workers have installed. Workers have a list of
    their own under the same name.
    """
    max_body_bytes: int = 2**20
    """Size of a JSON request; results of workers and agents may be 64 times as large."""
    requests_per_minute: Annotated[int, Field(ge=1)] = 6000
    """Requests of one key per minute."""
    scratch: Path | None = None
    """Folder for what is under way; None for the system's."""
