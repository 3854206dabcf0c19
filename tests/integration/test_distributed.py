"""Trials on two workers of two Ray nodes: the result of one worker, workers and nodes that die, a
driver that ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from inn_automl.core.errors import BackendError
from inn_automl.data import Dataset, load_dataset
from inn_automl.pipeline.backend import LocalBackend, TrainingRequest
from inn_automl.tasks import Task
from inn_automl.training.loop import EpochReport
from inn_automl.training.recipe import trial_specs
from inn_automl.training.trained import Trained

ray_backend = pytest.importorskip("inn_automl_workers.ray_backend")

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.slow

# A dead node is noticed after seconds.
HEALTH = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "health_check_timeout_ms": 1000,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two raylets, of one processor each."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH},
    )
    cluster.add_node(num_cpus=1)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def backend(cluster: Cluster) -> Iterator[ray_backend.RayBackend]:
    backend = ray_backend.RayBackend(cpus=2, address=cluster.address)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits")


def task(
    dataset: Dataset, folder: Path, *, workers: int, epochs: int, trials: int = 1
) -> TrainingRequest:
    # At the default rate rounding alone, of sums of gradients, grows to percents of the loss in
    # eight epochs; and it may put channels that tell the same into another order.
    candidates = tuple(
        dataclasses.replace(
            one, recipe=dataclasses.replace(one.recipe, learning_rate=0.003, warmup_fraction=0.0)
        )
        for one in trial_specs("mlp", len(dataset.train), trials, seed=0)
    )
    return TrainingRequest(
        "mlp", candidates, Task.from_dataset(dataset), folder, 0, 36_000.0, epochs, 2, 0, workers
    )


def workers_by_node() -> dict[int, int]:
    """Process ids of Ray Train workers, by the process id of their node's raylet."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if "".join(process.cmdline()).startswith("ray::RayTrainWorker"):
                found[process.ppid()] = process.pid
        except psutil.Error:
            continue
    return found


def assert_as_one_worker(trained: Trained, dataset: Dataset, folder: Path, epochs: int) -> None:
    (alone,) = LocalBackend().train(
        task(dataset, folder, workers=1, epochs=epochs), lambda *_: None
    )
    assert [e.epoch for e in trained.history] == list(range(1, epochs + 1))
    assert [e.train_loss for e in trained.history] == pytest.approx(
        [e.train_loss for e in alone.history], rel=1e-3
    )
    assert trained.best_score == pytest.approx(alone.best_score, abs=0.01)
    state = trained.network().state_dict()
    for name, value in alone.network().state_dict().items():
        assert float((state[name] - value).float().norm()) <= 1e-3 * float(value.float().norm()), (
            name
        )


def test_two_workers_on_two_nodes_end_where_one_does_although_one_was_killed(
    backend: ray_backend.RayBackend, dataset: Dataset, tmp_path: Path
) -> None:
    reports: list[int] = []
    nodes: set[int] = set()

    def kill_once(_: int, epoch: EpochReport) -> None:
        reports.append(epoch.epoch)
        if epoch.epoch >= 2 and not nodes:
            found = workers_by_node()
            nodes.update(found)
            os.kill(list(found.values())[-1], signal.SIGKILL)

    (trained,) = backend.train(task(dataset, tmp_path / "pair", workers=2, epochs=8), kill_once)
    assert len(nodes) == 2
    assert reports.count(1) == 1  # nothing before the last checkpoint was done twice
    assert reports[-1] == 8
    assert_as_one_worker(trained, dataset, tmp_path / "alone", 8)


def test_a_backend_in_one_process_refuses(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="workers_per_trial = 2"):
        LocalBackend().train(task(dataset, tmp_path, workers=2, epochs=1), lambda *_: None)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def all_free() -> bool:
    return ray.available_resources().get("CPU") == ray.cluster_resources().get("CPU")


DRIVER = """
import sys
from pathlib import Path
from inn_automl.data import load_dataset
from tests.integration.test_distributed import task
from inn_automl_workers.ray_backend import RayBackend

address, folder = sys.argv[1:]
backend = RayBackend(cpus=2, address=address)
report = lambda index, epoch: print(index, epoch.epoch, file=sys.stderr, flush=True)
backend.train(task(load_dataset("digits"), Path(folder), workers=2, epochs=10_000), report)
"""


def test_a_driver_told_to_stop_leaves_nothing_running(
    cluster: Cluster, backend: ray_backend.RayBackend, tmp_path: Path
) -> None:
    backend._connect()
    assert wait_for(all_free, 20)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, cluster.address, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert driver.stderr is not None
        assert any(line.startswith("0 1") for line in driver.stderr), "it never trained"
        assert not all_free()
        driver.send_signal(signal.SIGTERM)
        driver.communicate(timeout=20)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode != 0
    assert wait_for(all_free, 20)


def test_a_lost_node_costs_no_result(
    cluster: Cluster, backend: ray_backend.RayBackend, dataset: Dataset, tmp_path: Path
) -> None:
    """Two concurrent trials of one worker, one of them on the node that is lost; then evaluations
    on what is left.
    """
    lost = next(iter(cluster.worker_nodes))
    killed: list[int] = []

    def lose_node(_: int, epoch: EpochReport) -> None:
        if epoch.epoch >= 2 and not killed:
            killed.append(epoch.epoch)
            cluster.remove_node(lost, allow_graceful=False)

    trained = backend.train(
        task(dataset, tmp_path / "ray", workers=1, epochs=12, trials=2), lose_node
    )
    assert killed
    alone = LocalBackend().train(
        task(dataset, tmp_path / "alone", workers=1, epochs=12, trials=2), lambda *_: None
    )
    assert [t.best_score for t in trained if t.stopped == "epochs"]
    by_recipe = {json.dumps(t.recipe.to_dict()): t.best_score for t in alone}
    for one in trained:
        if one.stopped == "epochs":
            assert one.best_score == pytest.approx(
                by_recipe[json.dumps(one.recipe.to_dict())], abs=1e-6
            )
    widths = [trained[0].network().uniform_widths(ratio) for ratio in (0.25, 0.5, 1.0)]
    found = backend.evaluate(trained[0], Task.from_dataset(dataset), widths, split="validation")
    assert found == LocalBackend().evaluate(
        trained[0], Task.from_dataset(dataset), widths, split="validation"
    )
