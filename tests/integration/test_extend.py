"""A finished job's network on other devices and bounds, and at any widths: nothing is trained
again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from inn_automl.core.errors import ImpossibleBudgetError, InputError, JobDirectoryError, WidthsError
from inn_automl.core.result import JobResult
from inn_automl.core.spec import DeviceBudget
from inn_automl.export import load_inn, read_bundle
from inn_automl.export.inn import InnConfig
from inn_automl.latency.benchmark import LatencyMeasurement
from inn_automl.latency.config import THOROUGH, BenchmarkConfig
from inn_automl.pipeline.backend import LocalBackend, Report, TrainingRequest
from inn_automl.pipeline.run import discretize_job, extend_job, run_job
from inn_automl.training.trained import Trained

from .conftest import BUDGET, FinishedJob, job_spec, measure_quickly

ONE_THREAD, SMALL = BUDGET["devices"]  # type: ignore[misc]
SEARCH = {"max_evaluations": 6, "batch_size": 3, "max_measurements": 14}

pytestmark = pytest.mark.usefixtures("untracked")


def extension(*devices: Mapping[str, Any], **changes: Any) -> Any:
    return job_spec(budget={**BUDGET, "devices": list(devices), "search": SEARCH}, **changes)


class Counting(LocalBackend):
    """Refuses to train, and can be interrupted at the n-th call of evaluate."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        super().__init__(cpus=1)
        self.num_calls, self._at = 0, interrupted_at
        self.evaluated: dict[str, list[dict[str, int]]] = {"validation": [], "test": []}

    def train(self, task: TrainingRequest, report: Report) -> list[Trained]:
        raise AssertionError("an extension trains nothing")

    def evaluate(self, trained: Any, task: Any, batch: Any, *, split: str, **race: Any) -> Any:
        if self.num_calls == self._at:
            raise KeyboardInterrupt
        self.num_calls += 1
        self.evaluated[split] += [dict(widths) for widths in batch]
        return super().evaluate(trained, task, batch, split=split, **race)


class Recorded:
    """The measurements of this machine, and what was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.expected: dict[str, float] = {}
        """By device, what the reference model was expected to take, by the last measurement that
        was told.
        """

    def __call__(
        self,
        models: Mapping[str, Path],
        device: DeviceBudget,
        *,
        config: BenchmarkConfig = THOROUGH,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, LatencyMeasurement]:
        self.calls.append((device.name, len(models)))
        if config.reference_ms:
            self.expected[device.name] = config.reference_ms
        return measure_quickly(models, device, on_progress=on_progress)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def evaluations(folder: Path) -> list[tuple[dict[str, int], float]]:
    lines = (folder / "search" / "state" / "evaluations.jsonl").read_text().splitlines()
    return [
        (value["widths"], value["metric_value"])
        for line in lines
        if "metric_value" in (value := json.loads(line))
    ]


def measured_in_search(folder: Path, device: str) -> list[Any]:
    """Nothing where all that is on the front was measured before."""
    path = folder / "search" / f"profiling-{device}-iterations.json"
    return (
        [row for one in json.loads(path.read_text()) for row in one["rows"]]
        if path.exists()
        else []
    )


@pytest.fixture(scope="module")
def extended(finished_job: FinishedJob, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tighter bound on a known device and a device that the parent did not know, killed twice."""
    folder = tmp_path_factory.mktemp("child") / "out"
    spec = extension(
        {**ONE_THREAD, "max_params": 30_000}, {"name": "new", "agent": "pi4", "batch_size": 2}
    )
    before, recorded = contents(finished_job.folder), Recorded()
    for interrupted_at in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            extend_job(
                spec,
                finished_job.folder,
                folder,
                backend=Counting(interrupted_at),
                measure=recorded,
            )
    backend = Counting()
    result = extend_job(spec, finished_job.folder, folder, backend=backend, measure=recorded)
    assert contents(finished_job.folder) == before
    return {
        "spec": spec,
        "folder": folder,
        "result": result,
        "backend": backend,
        "calls": recorded.calls,
        "expected": recorded.expected,
    }


def test_extension_measures_fronts_of_the_same_network(
    finished_job: FinishedJob, extended: dict[str, Any]
) -> None:
    result: JobResult = extended["result"]
    assert [device.name for device in result.devices] == ["one-thread", "new"]
    known = {json.dumps(widths): accuracy for widths, accuracy in evaluations(finished_job.folder)}
    for device in result.devices:
        assert device.front
        assert device.hypervolume == sorted(device.hypervolume)
        for point in device.front:
            config = read_bundle(extended["folder"] / point.bundle)
            assert config.latency[device.name].latency_ms == point.latency_ms
            found = point.metric_value + result.job["optimism"]
            assert known.get(json.dumps(point.widths), found) == pytest.approx(found)
    recommended = {p.id: p for p in result.devices[0].front}[result.devices[0].recommended or ""]
    assert recommended.params <= 30_000
    nodes = [
        (folder / r.job["network"] / "control_points.safetensors").read_bytes()
        for folder, r in ((finished_job.folder, finished_job.result), (extended["folder"], result))
    ]
    assert nodes[0] == nodes[1]


def test_what_the_parent_evaluated_costs_nothing(
    finished_job: FinishedJob, extended: dict[str, Any]
) -> None:
    inherited, all_of_child = evaluations(finished_job.folder), evaluations(extended["folder"])
    assert all_of_child[: len(inherited)] == inherited
    own = [widths for widths, _ in all_of_child[len(inherited) :]]
    assert 0 < len(own) <= SEARCH["max_evaluations"]
    assert not [widths for widths in own if widths in [known for known, _ in inherited]]
    tested = {json.dumps(p.widths) for d in finished_job.result.devices for p in d.front}
    assert not [w for w in extended["backend"].evaluated["test"] if json.dumps(w) in tested]


def test_known_device_is_not_profiled_again(
    finished_job: FinishedJob, extended: dict[str, Any]
) -> None:
    name = "search/profiling-one-thread.json"
    parent = json.loads((finished_job.folder / name).read_text())
    later = measured_in_search(finished_job.folder, "one-thread")
    known = json.loads((extended["folder"] / name).read_text())
    assert [row["widths"] for row in known] == [row["widths"] for row in [*parent, *later]]
    references = [
        row["latency_ms"] / before["latency_ms"]
        for row, before in zip(known, [*parent, *later], strict=True)
    ]
    # the speed at which most of them were measured
    assert references == pytest.approx([references[0]] * len(known))
    # The bound's check, the profiling of the new device, what both found meanwhile, the
    # finalists of both, and the layers of what is recommended.
    calls = extended["calls"]
    assert calls[0] == ("one-thread", 1)
    assert calls[1] == ("new", 8)
    assert [device for device, _ in calls[-4:]] == ["one-thread", "new"] * 2
    assert all(num <= 8 + 3 for _, num in calls[2:-4])  # beside three of the initial design
    assert all(num == 1 for _, num in calls[-2:])


def test_finalists_are_measured_at_the_speed_of_before(extended: dict[str, Any]) -> None:
    for device in ("one-thread", "new"):
        profiled = json.loads(
            (extended["folder"] / "search" / f"profiling-{device}.json").read_text()
        )
        rounds = measured_in_search(extended["folder"], device)
        references = [row["reference_ms"] for row in (*profiled, *rounds)]
        assert min(references) <= extended["expected"][device] <= max(references)


def test_what_was_measured_is_not_measured_again(extended: dict[str, Any]) -> None:
    for device in ("one-thread", "new"):
        before = json.loads(
            (extended["folder"] / "search" / f"profiling-{device}.json").read_text()
        )
        rows = before + measured_in_search(extended["folder"], device)
        keys = [json.dumps(row["widths"]) for row in rows]
        assert len(set(keys)) == len(keys)


def test_child_needs_no_parent(
    finished_job: FinishedJob, extended: dict[str, Any], tmp_path: Path
) -> None:
    """Extended again, with the first parent out of reach."""
    child = tmp_path / "child"
    shutil.copytree(extended["folder"], child)
    spec = extension({**SMALL, "max_params": 25_000})
    result = extend_job(
        spec, child, tmp_path / "grandchild", backend=Counting(), measure=Recorded()
    )
    assert result.devices[0].front
    shutil.rmtree(child)
    for point in result.devices[0].front:
        assert read_bundle(tmp_path / "grandchild" / point.bundle).widths == point.widths


def test_impossible_bound_is_refused_before_anything_is_copied(
    finished_job: FinishedJob, tmp_path: Path
) -> None:
    spec = extension({"name": "tiny", "max_params": 10})
    with pytest.raises(
        ImpossibleBudgetError, match=r"trained network .* from [\d,]+ to [\d,]+ params"
    ):
        extend_job(spec, finished_job.folder, tmp_path, backend=Counting(), measure=Recorded())
    assert not (tmp_path / "training").exists()
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"model": "convnet"}, "model"),
        ({"dataset": "mnist1d"}, "dataset"),
        (
            {"budget": {**BUDGET, "training": {"max_minutes": 5, "max_epochs": 3, "trials": 2}}},
            "max_epochs",
        ),
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


def test_a_front_point_is_discretized_again_as_it_was(
    finished_job: FinishedJob, tmp_path: Path
) -> None:
    before = contents(finished_job.folder)
    point = finished_job.result.devices[0].front[-1]
    path = discretize_job(finished_job.folder, point.widths, tmp_path)
    ours, theirs = read_bundle(path), read_bundle(finished_job.folder / point.bundle)
    assert path == tmp_path / f"{point.id}.zip"
    assert ours.latency == {} and theirs.latency
    changed = {"latency", "files", "created_at", "verification"}
    assert ours.model_dump(exclude=changed) == theirs.model_dump(exclude=changed)
    assert ours.files["weights.safetensors"] == theirs.files["weights.safetensors"]
    assert ours.verification.max_difference <= ours.verification.tolerance
    assert contents(finished_job.folder) == before


def test_any_ratio_is_discretized(finished_job: FinishedJob, tmp_path: Path) -> None:
    path = discretize_job(finished_job.folder, 0.5, tmp_path / "half.zip", dataset="digits")
    config, (_, network) = read_bundle(path), load_inn(finished_job.folder / "inn.zip")
    assert path == tmp_path / "half.zip"
    assert config.widths == network.uniform_widths(0.5)
    assert config.metric.validation > 0.2


def test_widths_that_are_not_allowed_are_refused(finished_job: FinishedJob, tmp_path: Path) -> None:
    widths = dict(finished_job.result.devices[0].front[0].widths)
    name = next(iter(widths))
    for wrong, message in (
        ({**widths, name: 10_000}, r"give \d+ to \d+"),
        ({**widths, name + "x": 1}, f"did you mean '{name}'"),
        (0.01, r"give 0\.\d+ to 1"),
        (float("nan"), "out of range"),
    ):
        with pytest.raises(WidthsError, match=message):
            discretize_job(finished_job.folder, wrong, tmp_path)
    with pytest.raises(InputError, match="fingerprint"):
        discretize_job(finished_job.folder, 0.5, tmp_path, dataset="mnist1d")
    assert not list(tmp_path.iterdir())


def test_the_documented_lines_discretize_the_network(
    finished_job: FinishedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "inn.md"
    document = page.read_text(encoding="utf-8")
    (code,) = (
        c for c in re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL) if "load_inn" in c
    )
    monkeypatch.chdir(finished_job.folder)
    names: dict[str, Any] = {}
    exec(compile(code, page.name, "exec"), names)
    config, network = names["config"], names["network"]
    assert names["logits"].shape == (32, len(config.classes))
    assert torch.isfinite(names["logits"]).all()
    assert {name: group.size for name, group in config.groups.items()} == network.full_widths
    assert {
        name: group.smallest for name, group in config.groups.items()
    } == network.smallest_widths
    table = document.split("# The trained network")[1]
    documented = set(re.findall(r"`([a-z0-9_]+)`", table))
    assert (
        set(InnConfig.model_fields) | set(next(iter(config.groups.values())).model_dump())
        <= documented
    )
