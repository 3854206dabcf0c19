"""A job whose tracking store is away for a while, and one that is killed while it is published."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.context import Tracking
from inn_automl.pipeline.run import run_job
from inn_automl.reporting import registry
from inn_automl.reporting.store import connect, locate

from .conftest import FinishedJob, RecordingProgress


@pytest.fixture
def unpublished(finished_job: FinishedJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job just before it is published, and a home of its own for MLflow's embedded store."""
    folder = tmp_path / "job"
    shutil.copytree(finished_job.folder, folder)
    for name in ("result.json", "published.json", "tracking.json", "inn.zip"):
        (folder / name).unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("INN_AUTOML_HOME", str(tmp_path / "home"))
    return folder


def num_runs(kind: str, experiment: str) -> int:
    client = connect(locate())
    found = client.get_experiment_by_name(experiment)
    return (
        len(client.search_runs([found.experiment_id], f"tags.`inn_automl.kind` = '{kind}'"))
        if found
        else 0
    )


def publish(finished_job: FinishedJob, folder: Path, retry_deadline_s: float) -> RecordingProgress:
    progress = RecordingProgress()
    tracking = Tracking(
        project="robots",
        job_id="job-7",
        job_name="first",
        retry_deadline_s=retry_deadline_s,
        first_pause_s=0.1,
        longest_pause_s=0.2,
    )
    run_job(finished_job.spec, folder, backend=LocalBackend(), progress=progress, tracking=tracking)
    return progress


def test_a_store_that_comes_back_gets_the_job_once(
    finished_job: FinishedJob, unpublished: Path
) -> None:
    home = unpublished.parent / "home"
    home.touch()  # a file where the store's folder should be
    timer = threading.Timer(2.0, home.unlink)
    timer.start()
    progress = publish(finished_job, unpublished, retry_deadline_s=60.0)
    timer.join()
    assert not [note for note in progress.notes if "MLflow" in note]
    assert (num_runs("job", "robots"), num_runs("device", "robots")) == (1, 2)
    published = json.loads((unpublished / "published.json").read_text())
    assert set(published["device_run_ids"]) == {"one-thread", "small"}


def test_a_store_that_stays_away_leaves_the_result_whole(
    finished_job: FinishedJob, unpublished: Path
) -> None:
    (unpublished.parent / "home").touch()
    progress = publish(finished_job, unpublished, retry_deadline_s=0.5)
    assert [note for note in progress.notes if "MLflow has no record" in note]
    assert (unpublished / "result.json").exists()
    assert not (unpublished / "published.json").exists()


def test_a_job_killed_while_it_is_published_is_there_once(
    finished_job: FinishedJob, unpublished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, names = registry.register, []

    def register_first(*arguments: Any, **options: Any) -> str:
        names.append(arguments)
        if len(names) == 2:
            raise KeyboardInterrupt
        return register(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "register", register_first)
        with pytest.raises(KeyboardInterrupt):
            publish(finished_job, unpublished, retry_deadline_s=0.0)
    assert not (unpublished / "result.json").exists()
    publish(finished_job, unpublished, retry_deadline_s=0.0)
    assert (num_runs("job", "robots"), num_runs("device", "robots")) == (1, 2)
