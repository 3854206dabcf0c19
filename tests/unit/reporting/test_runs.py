from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.artifacts
import pytest
from mlflow import MlflowClient

from inn_automl.core.errors import StorageError
from inn_automl.core.result import JobResult
from inn_automl.reporting import registry, views
from inn_automl.reporting.runs import latest_fragment, publish
from inn_automl.reporting.store import Store, connect
from tests.unit.reporting.job_samples import make_job


@dataclass
class Epoch:
    epoch: int
    train_loss: float
    metric_values: dict[str, float]


def small_job(
    out: Path, **options: Any
) -> tuple[JobResult, dict[str, list[Any]], list[dict[str, Any]]]:
    return make_job(out, **{"num_candidates": 25, "num_points": 4, "epochs": 3, **options})


def runs_of(client: MlflowClient, kind: str) -> list[Any]:
    experiment = client.get_experiment_by_name("inn_automl")
    return list(
        client.search_runs([experiment.experiment_id], f"tags.`inn_automl.kind` = '{kind}'")
    )


@pytest.fixture(autouse=True)
def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as small files: what they show is tested with them."""

    def write_figures(result: JobResult, folder: Path, *_: object) -> Path:
        for path in (folder, *(folder / device.name for device in result.devices)):
            path.mkdir(parents=True, exist_ok=True)
            (path / "front.html").write_text("<html></html>")
        return folder

    monkeypatch.setattr("inn_automl.reporting.runs.write_figures", write_figures)


def test_one_run_for_the_job_and_one_beside_it_for_each_device(
    store: Store, tmp_path: Path
) -> None:
    result, candidates, _ = small_job(tmp_path)
    history = [Epoch(1, 0.5, {"full": 0.9}), Epoch(2, 0.25, {"full": 0.95})]
    published = publish(result, tmp_path, candidates=candidates, history=history, store=store)
    client = connect(store)

    (job,), devices = runs_of(client, "job"), runs_of(client, "device")
    assert job.info.run_id == published.job_run_id
    assert {run.info.run_id for run in devices} == set(published.device_run_ids.values())
    assert all(run.data.tags["inn_automl.job_run_id"] == job.info.run_id for run in devices)
    assert not any("mlflow.parentRunId" in run.data.tags for run in devices)
    assert {run.info.status for run in (job, *devices)} == {"FINISHED"}
    assert job.data.params["spec.dataset"] == "mnist5k"
    assert job.data.params["recipe.learning_rate"] == "0.1"
    assert [
        (m.step, m.value)
        for m in client.get_metric_history(job.info.run_id, "training/accuracy_full")
    ] == [(1, 0.9), (2, 0.95)]
    assert job.inputs.dataset_inputs[0].dataset.name == "mnist5k"
    assert (
        JobResult.model_validate_json(
            mlflow.artifacts.load_text(f"{job.info.artifact_uri}/result.json")
        )
        == result
    )


def test_a_device_run_holds_its_front_and_its_recommended_model(
    store: Store, tmp_path: Path
) -> None:
    result, candidates, _ = small_job(tmp_path)
    published = publish(result, tmp_path, candidates=candidates, store=store)
    client = connect(store)
    for device in result.devices:
        run = client.get_run(published.device_run_ids[device.name])
        drawn = {
            name: [
                m.value
                for m in sorted(
                    client.get_metric_history(run.info.run_id, name), key=lambda m: m.step
                )
            ]
            for name in ("front/accuracy", "front/latency_ms", "search/hypervolume")
        }
        assert drawn["front/accuracy"] == [point.metric_value for point in device.front]
        assert drawn["front/latency_ms"] == [
            point.latency_ms.at_percentile for point in device.front
        ]
        assert drawn["search/hypervolume"] == device.hypervolume
        assert run.data.params["budget.threads"] == str(device.budget["threads"])
        assert run.data.params["environment.runtime_version"] == "1.32.0"
        names = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert names == {
            "bundle",
            "candidates_table.json",
            "front.html",
            "front_table.json",
            "model",
        }
        table = json.loads(
            mlflow.artifacts.load_text(f"{run.info.artifact_uri}/candidates_table.json")
        )
        assert len(table["data"]) == len(candidates[device.name])
        version = client.get_model_version_by_alias(f"mnist5k.{device.name}", "recommended")
        assert f"{version.name}/{version.version}" == published.model_versions[device.name]
        assert version.tags["inn_automl.point"] == device.recommended


def test_publishing_the_same_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    result, candidates, history = small_job(tmp_path)
    first = publish(result, tmp_path, candidates=candidates, history=history, store=store)
    assert publish(result, tmp_path, candidates=candidates, history=history, store=store) == first
    assert len(runs_of(connect(store), "device")) == 2


def test_a_job_is_known_wherever_its_folder_moves(store: Store, tmp_path: Path) -> None:
    result, _, _ = small_job(tmp_path / "here")
    first = publish(result, tmp_path / "here", store=store)
    (tmp_path / "here").rename(tmp_path / "there")
    assert publish(result, tmp_path / "there", store=store) == first


def test_what_a_killed_process_left_is_replaced(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _, _ = small_job(tmp_path)
    register, calls = registry.register, []

    def register_once(*arguments: Any, **options: Any) -> str:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return register(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "register", register_once)
        with pytest.raises(KeyboardInterrupt):
            publish(result, tmp_path, store=store)
    client = connect(store)
    assert len(runs_of(client, "device")) == 2

    published = publish(result, tmp_path, store=store)
    assert [run.info.run_id for run in runs_of(client, "job")] == [published.job_run_id]
    assert {r.info.run_id for r in runs_of(client, "device")} == set(
        published.device_run_ids.values()
    )
    assert len(client.search_model_versions("name = 'mnist5k.laptop-1-thread'")) == 1


def test_a_changed_result_replaces_the_old_and_other_jobs_stay(
    store: Store, tmp_path: Path
) -> None:
    result, _, _ = small_job(tmp_path / "one")
    other, _, _ = small_job(
        tmp_path / "two", devices={"phone": {"threads": 1, "max_latency_ms": 0.01}}
    )
    publish(other, tmp_path / "two", store=store)
    publish(result, tmp_path / "one", store=store)
    fewer = result.model_copy(update={"devices": result.devices[:1]})
    published = publish(fewer, tmp_path / "one", store=store)

    client = connect(store)
    assert len(runs_of(client, "job")) == 2
    assert {run.data.tags["inn_automl.device"] for run in runs_of(client, "device")} == {
        "phone",
        "laptop-1-thread",
    }
    assert client.search_model_versions("name = 'mnist5k.laptop-2-threads'") == []
    phone = next(
        run for run in runs_of(client, "device") if run.data.tags["inn_automl.device"] == "phone"
    )
    assert phone.data.params["recommended"] == "none"
    assert "No point meets" in phone.data.tags["mlflow.note.content"]
    assert latest_fragment(store) == published.fragment


def test_views_open_the_fronts_of_a_job_and_old_ones_make_room(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inn_automl.reporting.publication.MAX_VIEWS", 2)
    result, _, _ = small_job(tmp_path, num_points=1)
    for job in ("a", "b", "c"):
        published = publish(result, tmp_path, store=store, job_id=job)
    tags = connect(store).get_experiment(published.experiment_id).tags
    keys = {key.removeprefix(views.TAG_PREFIX) for key in tags if key.startswith(views.TAG_PREFIX)}
    assert keys == {"inn_automl-all", "inn_automl-job-b", "inn_automl-job-c"}
    assert published.fragment.endswith("viewStateShareKey=inn_automl-job-c")
    assert published.ui_link is None


def test_a_missing_bundle_is_named_before_anything_is_logged(store: Store, tmp_path: Path) -> None:
    result, _, _ = small_job(tmp_path)
    (tmp_path / result.devices[0].front[-1].bundle).unlink()
    chosen = next(p for p in result.devices[0].front if p.id == result.devices[0].recommended)
    (tmp_path / chosen.bundle).unlink(missing_ok=True)
    with pytest.raises(StorageError, match=r"bundle '.*\.zip' that result\.json names is missing"):
        publish(result, tmp_path, store=store)
    assert connect(store).get_experiment_by_name("inn_automl") is None


def test_a_failing_store_says_that_the_result_is_safe(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    def fail(*_: object, **__: object) -> None:
        raise MlflowException("database is locked\nwith a long trace")

    result, _, _ = small_job(tmp_path)
    monkeypatch.setattr(MlflowClient, "log_batch", fail)
    with pytest.raises(
        StorageError,
        match=r"failed \(database is locked\): the result is whole in .*publishes it again",
    ):
        publish(result, tmp_path, store=store)


def test_nothing_published_has_no_link(store: Store) -> None:
    assert latest_fragment(store) is None


def test_what_was_left_beside_a_complete_job_is_removed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the new runs were complete, and before the old ones were deleted."""
    result, _, _ = small_job(tmp_path)
    publish(result, tmp_path, store=store)
    changed = result.model_copy(update={"job": {**result.job, "seconds": {"training": 1.0}}})
    with monkeypatch.context() as patch:
        patch.setattr(registry, "unregister", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish(changed, tmp_path, store=store)
    assert len(runs_of(connect(store), "job")) == 2
    published = publish(changed, tmp_path, store=store)
    client = connect(store)
    assert [run.info.run_id for run in runs_of(client, "job")] == [published.job_run_id]
    assert {run.info.run_id for run in runs_of(client, "device")} == set(
        published.device_run_ids.values()
    )
    assert len(client.search_model_versions("name = 'mnist5k.laptop-1-thread'")) == 1


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_project_is_an_experiment_and_a_job_has_a_name(store: Store, tmp_path: Path) -> None:
    result, _, _ = small_job(tmp_path)
    published = publish(
        result, tmp_path, store=store, experiment="robots", job_id="7", job_name="first try"
    )
    client = connect(store)
    assert client.get_experiment(published.experiment_id).name == "robots"
    for run_id in (published.job_run_id, *published.device_run_ids.values()):
        tags = client.get_run(run_id).data.tags
        assert (tags["inn_automl.job_id"], tags["inn_automl.job_name"]) == ("7", "first try")
    assert client.get_run(published.job_run_id).info.run_name == "first try"
