"""A finished job's network on other devices and bounds, and at any widths: nothing is trained again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from inn_automl.backend import LocalBackend, Report, TrainingTask
from inn_automl.devices.latency import QUICK, THOROUGH, LatencyMeasurement, Protocol, measure
from inn_automl.errors import ImpossibleBudgetError, InputError, JobDirectoryError
from inn_automl.export import read_bundle
from inn_automl.pipeline import extend_job, run_job
from inn_automl.result import JobResult
from inn_automl.spec import DeviceBudget
from inn_automl.training.trial import Trained

from .conftest import BUDGET, FinishedJob, job_spec

ONE_THREAD, SMALL = BUDGET["devices"]  # type: ignore[misc]
SEARCH = {"max_evaluations": 6, "batch_size": 3}


def extension(*devices: Mapping[str, Any], **changes: Any) -> Any:
    return job_spec(budget={**BUDGET, "devices": list(devices), "search": SEARCH}, **changes)


class Counting(LocalBackend):
    """Refuses to train, and can be interrupted at the n-th call of evaluate."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        super().__init__(cpus=1)
        self.num_calls, self._at = 0, interrupted_at
        self.evaluated: dict[str, list[dict[str, int]]] = {"validation": [], "test": []}

    def train(self, task: TrainingTask, report: Report) -> list[Trained]:
        raise AssertionError("an extension trains nothing")

    def evaluate(self, trained: Any, dataset: Any, batch: Any, *, split: str) -> Any:
        if self.num_calls == self._at:
            raise KeyboardInterrupt
        self.num_calls += 1
        self.evaluated[split] += [dict(widths) for widths in batch]
        return super().evaluate(trained, dataset, batch, split=split)


class Recorded:
    """The measurements of this machine, and what was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __call__(
        self,
        models: Mapping[str, Path],
        device: DeviceBudget,
        *,
        protocol: Protocol = THOROUGH,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, LatencyMeasurement]:
        self.calls.append((device.name, len(models)))
        return measure(models, device, protocol=QUICK, on_progress=on_progress)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def evaluations(folder: Path) -> list[tuple[dict[str, int], float]]:
    lines = (folder / "search" / "state" / "evaluations.jsonl").read_text().splitlines()
    return [(value["widths"], value["accuracy"]) for line in lines if "accuracy" in (value := json.loads(line))]


@pytest.fixture(scope="module")
def extended(finished_job: FinishedJob, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tighter bound on a known device and a device that the parent did not know, killed twice."""
    folder = tmp_path_factory.mktemp("child") / "out"
    spec = extension({**ONE_THREAD, "max_params": 30_000}, {"name": "new", "agent": "pi4", "batch_size": 2})
    before, recorded = contents(finished_job.folder), Recorded()
    for interrupted_at in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            extend_job(spec, finished_job.folder, folder, backend=Counting(interrupted_at), measure=recorded)
    backend = Counting()
    result = extend_job(spec, finished_job.folder, folder, backend=backend, measure=recorded)
    assert contents(finished_job.folder) == before
    return {"spec": spec, "folder": folder, "result": result, "backend": backend, "calls": recorded.calls}


def test_extension_measures_fronts_of_the_same_network(finished_job: FinishedJob, extended: dict[str, Any]) -> None:
    result: JobResult = extended["result"]
    assert [device.name for device in result.devices] == ["one-thread", "new"]
    known = {json.dumps(widths): accuracy for widths, accuracy in evaluations(finished_job.folder)}
    for device in result.devices:
        assert device.front
        assert device.hypervolume == sorted(device.hypervolume)
        for point in device.front:
            config = read_bundle(extended["folder"] / point.bundle)
            assert config.latency[device.name].latency_ms == point.latency_ms
            assert point.accuracy == known.get(json.dumps(point.widths), point.accuracy)
    recommended = {p.id: p for p in result.devices[0].front}[result.devices[0].recommended or ""]
    assert recommended.params <= 30_000
    nodes = [
        (folder / r.job["network"] / "nodes.safetensors").read_bytes()
        for folder, r in ((finished_job.folder, finished_job.result), (extended["folder"], result))
    ]
    assert nodes[0] == nodes[1]


def test_what_the_parent_evaluated_costs_nothing(finished_job: FinishedJob, extended: dict[str, Any]) -> None:
    inherited, all_of_child = evaluations(finished_job.folder), evaluations(extended["folder"])
    assert all_of_child[: len(inherited)] == inherited
    own = [widths for widths, _ in all_of_child[len(inherited) :]]
    assert 0 < len(own) <= SEARCH["max_evaluations"]
    assert not [widths for widths in own if widths in [known for known, _ in inherited]]
    tested = {json.dumps(p.widths) for d in finished_job.result.devices for p in d.front}
    assert not [w for w in extended["backend"].evaluated["test"] if json.dumps(w) in tested]


def test_known_device_is_not_calibrated_again(finished_job: FinishedJob, extended: dict[str, Any]) -> None:
    name = "search/calibration-one-thread.json"
    assert (extended["folder"] / name).read_bytes() == (finished_job.folder / name).read_bytes()
    # The bound's check, the calibration of the new device, and the finalists of both.
    assert extended["calls"][0] == ("one-thread", 1)
    assert [device for device, _ in extended["calls"][1:]] == ["new", "one-thread", "new"]


def test_child_needs_no_parent(finished_job: FinishedJob, extended: dict[str, Any], tmp_path: Path) -> None:
    """Extended again, with the first parent out of reach."""
    child = tmp_path / "child"
    shutil.copytree(extended["folder"], child)
    spec = extension({**SMALL, "max_params": 25_000})
    result = extend_job(spec, child, tmp_path / "grandchild", backend=Counting(), measure=Recorded())
    assert result.devices[0].front
    shutil.rmtree(child)
    for point in result.devices[0].front:
        assert read_bundle(tmp_path / "grandchild" / point.bundle).widths == point.widths


def test_impossible_bound_is_refused_before_anything_is_copied(finished_job: FinishedJob, tmp_path: Path) -> None:
    spec = extension({"name": "tiny", "max_params": 10})
    with pytest.raises(ImpossibleBudgetError, match=r"trained network .* from [\d,]+ to [\d,]+ params"):
        extend_job(spec, finished_job.folder, tmp_path, backend=Counting(), measure=Recorded())
    assert not (tmp_path / "training").exists()
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"family": "convnet"}, "family"),
        ({"dataset": "mnist1d"}, "dataset"),
        ({"budget": {**BUDGET, "training": {"max_minutes": 5, "max_epochs": 3, "trials": 2}}}, "max_epochs"),
    ],
)
def test_another_training_is_refused(
    finished_job: FinishedJob, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        extend_job(job_spec(**changes), finished_job.folder, tmp_path / "out", backend=Counting())
    assert not (tmp_path / "out").exists()


def test_unfinished_parent_is_refused(finished_job: FinishedJob, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no job"):
        extend_job(extension(SMALL), tmp_path / "none", tmp_path / "out", backend=Counting())
    (tmp_path / "half").mkdir()
    shutil.copy(finished_job.folder / "job.json", tmp_path / "half")
    with pytest.raises(InputError, match="not finished"):
        extend_job(extension(SMALL), tmp_path / "half", tmp_path / "out", backend=Counting())


def test_extension_is_not_a_job_of_its_own(extended: dict[str, Any]) -> None:
    with pytest.raises(JobDirectoryError, match="extends"):
        run_job(extended["spec"], extended["folder"], backend=Counting(), measure=Recorded())


def test_agents_are_not_reached_from_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"agent 'pi4' is reached through the service"):
        run_job(extension({"name": "new", "agent": "pi4"}), tmp_path / "out", backend=Counting())
    assert not (tmp_path / "out").exists()
