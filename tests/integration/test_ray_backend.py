"""The Ray backend on a cluster of this machine: the same numbers as in process, and workers that
die.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from inn_automl.core.precision import join_point
from inn_automl.data import Dataset, load_dataset
from inn_automl.pipeline.backend import LocalBackend, TrainingRequest
from inn_automl.tasks import Task
from inn_automl.training.fine_tuning_request import FineTuningRequest
from inn_automl.training.loop import EpochReport
from inn_automl.training.recipe import trial_specs
from inn_automl.training.trained import Trained

ray_backend = pytest.importorskip("inn_automl_workers.ray_backend")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def backend() -> Iterator[ray_backend.RayBackend]:
    backend = ray_backend.RayBackend(cpus=2)
    yield backend
    backend.close()


def task(dataset: Dataset, folder: Path, *, trials: int, epochs: int) -> TrainingRequest:
    candidates = tuple(trial_specs("mlp", len(dataset.train), trials, seed=0))
    return TrainingRequest(
        "mlp", candidates, Task.from_dataset(dataset), folder, 0, 36_000.0, epochs, 2, 0
    )


def test_trains_and_evaluates_as_in_process(
    backend: ray_backend.RayBackend,
    dataset: Dataset,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    reports: list[tuple[int, EpochReport]] = []
    remote = backend.train(
        task(dataset, tmp_path / "ray", trials=2, epochs=1), lambda i, e: reports.append((i, e))
    )
    local = LocalBackend().train(
        task(dataset, tmp_path / "local", trials=2, epochs=1), lambda *_: None
    )
    for one, other in zip(remote, local, strict=True):
        assert one.best_score == pytest.approx(other.best_score, abs=1e-6)
    assert sorted((i, e.epoch) for i, e in reports) == [(0, 1), (1, 1)]

    network = remote[0].network()
    batch = [network.uniform_widths(ratio) for ratio in (0.25, 0.4, 0.5, 0.75, 1.0)]
    batch.append(join_point(network.uniform_widths(0.5), "int8"))
    found = backend.evaluate(remote[0], Task.from_dataset(dataset), batch, split="validation")
    assert found == LocalBackend().evaluate(
        local[0], Task.from_dataset(dataset), batch, split="validation"
    )
    assert capfd.readouterr().out == ""  # standard output is for results

    reports.clear()  # finished trials are not trained again
    again = backend.train(
        task(dataset, tmp_path / "ray", trials=2, epochs=1), lambda i, e: reports.append((i, e))
    )
    assert [t.best_score for t in again] == [t.best_score for t in remote]
    assert reports == []


def test_killed_trial_continues_from_its_checkpoint(
    backend: ray_backend.RayBackend, dataset: Dataset, tmp_path: Path
) -> None:
    reports: list[int] = []
    killed = threading.Event()

    def kill_once(_: int, epoch: EpochReport) -> None:
        reports.append(epoch.epoch)
        if epoch.epoch >= 2 and not killed.is_set():
            killed.set()
            os.kill(worker("_train_trial", "ImplicitFunc"), signal.SIGKILL)

    trained = backend.train(task(dataset, tmp_path, trials=1, epochs=30), kill_once)
    assert killed.is_set()
    assert trained[0].stopped == "epochs"
    assert [e.epoch for e in trained[0].history] == list(range(1, 31))
    assert reports.count(1) == 1  # nothing before the last checkpoint was done twice
    uninterrupted = LocalBackend().train(
        task(dataset, tmp_path / "local", trials=1, epochs=30), lambda *_: None
    )
    assert trained[0].best_score == pytest.approx(uninterrupted[0].best_score, abs=1e-6)


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A trial of one epoch; trained in process, as Ray's trials equal those."""
    request = task(dataset, tmp_path_factory.mktemp("trained"), trials=1, epochs=1)
    return LocalBackend().train(request, lambda *_: None)[0]


def test_killed_evaluation_is_done_again(
    backend: ray_backend.RayBackend, dataset: Dataset, trained: Trained
) -> None:
    network = trained.network()
    batch = [network.uniform_widths(0.25 + i / 20) for i in range(12)]

    def kill() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                os.kill(worker("_evaluate_task"), signal.SIGKILL)
                return
            except LookupError:
                time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    found = backend.evaluate(trained, Task.from_dataset(dataset), batch, split="validation")
    killer.join()
    assert found == LocalBackend().evaluate(
        trained, Task.from_dataset(dataset), batch, split="validation"
    )


def test_tunes_as_in_process(
    backend: ray_backend.RayBackend, dataset: Dataset, trained: Trained, tmp_path: Path
) -> None:
    network, shares = trained.network(), []

    def tasks(folder: Path) -> list[FineTuningRequest]:
        return [
            FineTuningRequest(
                network.uniform_widths(ratio), folder / str(ratio), seconds=30.0, seed=1, steps=20
            )
            for ratio in (0.25, 0.5, 0.75)
        ]

    asked = tasks(tmp_path / "remote")
    assert backend.fine_tuning_seconds(asked) == 60.0  # two at a time
    remote = backend.fine_tune(
        trained, Task.from_dataset(dataset), asked, on_progress=shares.append
    )
    local = LocalBackend().fine_tune(
        trained, Task.from_dataset(dataset), tasks(tmp_path / "local"), on_progress=lambda _: None
    )
    for one, other in zip(remote, local, strict=True):
        assert one.loss_after == pytest.approx(other.loss_after, abs=1e-6)
        assert (one.metric_value_before, one.steps) == (other.metric_value_before, 20)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    assert backend.fine_tuning_seconds(asked) == 0.0
    # read, not tuned again
    assert (
        backend.fine_tune(trained, Task.from_dataset(dataset), asked, on_progress=lambda _: None)
        == remote
    )


def worker(*names: str) -> int:
    """Process id of a Ray worker of this test that runs one of the functions or actors."""
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::") and any(name in title for name in names):
            return process.pid
    raise LookupError(f"no Ray worker runs any of {names}")


JOIN = """
from inn_automl.core.errors import BackendError
from inn_automl_workers.ray_backend import RayBackend

try:
    RayBackend(address="127.0.0.1:1").evaluate(None, None, [{}], split="validation")
except BackendError as error:
    print(error)
"""


def test_cluster_that_is_not_there_is_named() -> None:
    # In a process of its own: this one has joined a cluster.
    ended = subprocess.run(
        [sys.executable, "-c", JOIN], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "127.0.0.1:1" in ended.stdout
