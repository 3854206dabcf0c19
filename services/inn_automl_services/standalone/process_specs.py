"""The processes of a stack: command and environment of each, and the check of its readiness."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from inn_automl.reporting.server import SERVER_ENVIRONMENT
from inn_automl.reporting.store import locate
from inn_automl_services.standalone.state_dir import Secrets, StateDir

LOOPBACK = "127.0.0.1"
USUAL_PORTS = {"coordinator": 8080, "mlflow": 5000, "ray": 8265}
OBJECT_STORE_BYTES = 2**30
AGENT_NAME = "local"
READY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ProcessSpec:
    """A process to keep running."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    is_ready: Callable[[], bool]
    shutdown_timeout_s: float = 10.0
    """Seconds that the process may take to end before it is killed."""


@dataclass(frozen=True)
class Ports:
    coordinator: int
    mlflow: int
    ray_dashboard: int
    ray_gcs: int
    ray_client: int
    ray_agent: int

    @classmethod
    def choose(cls, port: int | None) -> Ports:
        """The usual ports where they are free, else any free ones.

        Args:
            port: of the coordinator; 0 for a free one, None for the usual one.
        """
        return cls(
            coordinator=free_port(USUAL_PORTS["coordinator"])
            if port is None
            else (port or free_port()),
            mlflow=free_port(USUAL_PORTS["mlflow"]),
            ray_dashboard=free_port(USUAL_PORTS["ray"]),
            ray_gcs=free_port(),
            ray_client=free_port(),
            ray_agent=free_port(),
        )

    @property
    def coordinator_url(self) -> str:
        return f"http://{LOOPBACK}:{self.coordinator}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.mlflow}"

    @property
    def ray_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ray_dashboard}"


def free_port(preferred: int = 0) -> int:
    """`preferred` if nothing listens there, else any free port."""
    for candidate in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port")


def make_process_specs(
    state_dir: StateDir, secrets: Secrets, ports: Ports, *, cpus: int, max_running_jobs: int
) -> list[ProcessSpec]:
    """All processes, in the order in which they are started."""
    return [
        _ray(state_dir, secrets, ports, cpus),
        _mlflow(state_dir, ports),
        _coordinator(state_dir, secrets, ports, max_running_jobs),
        _agent(secrets, ports),
    ]


def _coordinator(
    state_dir: StateDir, secrets: Secrets, ports: Ports, max_running_jobs: int
) -> ProcessSpec:
    environment = {
        "INN_AUTOML_DATABASE_URL": state_dir.database_url,
        "INN_AUTOML_STORAGE_URL": state_dir.storage_url,
        "INN_AUTOML_PUBLIC_URL": ports.coordinator_url,
        "INN_AUTOML_RAY_URL": ports.ray_url,
        "INN_AUTOML_RAY_TOKEN": secrets.ray_token,
        "INN_AUTOML_MLFLOW_URL": ports.mlflow_url,
        "INN_AUTOML_MAX_RUNNING_JOBS": str(max_running_jobs),
    }
    command = (
        *_inn_automl_command(),
        "coordinator",
        "--host",
        LOOPBACK,
        "--port",
        str(ports.coordinator),
    )
    return ProcessSpec(
        "coordinator", command, environment, _responds(f"{ports.coordinator_url}/v1/ready")
    )


def _ray(state_dir: StateDir, secrets: Secrets, ports: Ports, cpus: int) -> ProcessSpec:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.ray_token}
    environment = {
        **token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(state_dir.gcs),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Threads that spin while they wait stand still for as long as another program has their
        # core.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Jobs say `python`, and mean the one that has all this installed.
        "PATH": os.pathsep.join(
            (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
        ),
    }
    # No port is left to a default, so that several stacks fit on one machine.
    options = {
        "port": ports.ray_gcs,
        "dashboard-host": LOOPBACK,
        "dashboard-port": ports.ray_dashboard,
        "dashboard-agent-listen-port": ports.ray_agent,
        "ray-client-server-port": ports.ray_client,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "temp-dir": state_dir.ray_sessions(),
        "num-cpus": cpus,
        "object-store-memory": OBJECT_STORE_BYTES,
        "include-log-monitor": False,  # jobs keep their own log
    }
    arguments = (f"--{name}={value}" for name, value in options.items())
    command = (
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        *arguments,
    )
    headers = {"Authorization": f"Bearer {secrets.ray_token}"}
    return ProcessSpec(
        "ray",
        command,
        environment,
        _responds(f"{ports.ray_url}/api/jobs/", headers),
        shutdown_timeout_s=10.0,
    )


def _mlflow(state_dir: StateDir, ports: Ports) -> ProcessSpec:
    store = locate(state_dir.folder)
    options = (
        "--backend-store-uri",
        store.uri,
        "--artifacts-destination",
        str(store.artifacts),
        "--workers",
        "1",
    )
    command = (
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        LOOPBACK,
        "--port",
        str(ports.mlflow),
        *options,
    )
    return ProcessSpec(
        "mlflow", command, SERVER_ENVIRONMENT, _responds(f"{ports.mlflow_url}/health")
    )


def _agent(secrets: Secrets, ports: Ports) -> ProcessSpec:
    command = (
        *_inn_automl_command(),
        "agent",
        "--server",
        ports.coordinator_url,
        "--name",
        AGENT_NAME,
    )
    headers = {"Authorization": f"Bearer {secrets.user_key}"}
    url = f"{ports.coordinator_url}/v1/devices/{AGENT_NAME}"

    def is_ready() -> bool:
        response = _get(url, headers)
        return (
            response is not None and response.is_success and response.json().get("state") != "away"
        )

    return ProcessSpec("agent", command, {"INN_AUTOML_KEY": secrets.agent_key}, is_ready)


def _inn_automl_command() -> tuple[str, ...]:
    return sys.executable, "-m", "inn_automl"


def _responds(url: str, headers: Mapping[str, str] | None = None) -> Callable[[], bool]:
    def is_ready() -> bool:
        response = _get(url, headers)
        return response is not None and response.is_success

    return is_ready


def _get(url: str, headers: Mapping[str, str] | None) -> httpx.Response | None:
    try:
        return httpx.get(url, headers=headers, timeout=READY_TIMEOUT_S, trust_env=False)
    except httpx.TransportError:
        return None
