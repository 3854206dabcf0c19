"""A job on a network that was trained elsewhere: nothing is trained, and what does not fit is
refused at once.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from inn_automl.core.errors import ImpossibleBudgetError, InputError, JobDirectoryError
from inn_automl.data import load_dataset
from inn_automl.evaluation.candidates import count_correct
from inn_automl.models import build
from inn_automl.pipeline.backend import LocalBackend, Report, TrainingRequest
from inn_automl.pipeline.run import extend_job, run_job
from inn_automl.tasks import Task
from inn_automl.training.trained import Trained

from .conftest import BUDGET, RecordingProgress, job_spec, measure_by_size

WIDTH, DEPTH = 0.5, 3

pytestmark = pytest.mark.usefixtures("untracked")


class Untrained(LocalBackend):
    def train(self, task: TrainingRequest, report: Report) -> list[Trained]:
        raise AssertionError("nothing was to be trained")


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    """A digits mlp after some epochs of Adam, without anything of ours."""
    torch.manual_seed(0)
    made = build("mlp", (1, 8, 8), 10, width=WIDTH, depth=DEPTH)
    samples = Task.from_dataset(load_dataset("digits")).split("train")
    optimizer = torch.optim.Adam(made.parameters(), 3e-3)
    for _ in range(8):
        for x, y in samples.batches(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(made(x), y).backward()
            optimizer.step()
    return made.eval()


@pytest.fixture
def weights(module: torch.nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(module.state_dict(), path)
    return path


def run(out: Path, weights: Path, **changes: object) -> object:
    return run_job(
        job_spec(weights=str(weights), **changes),
        out,
        backend=Untrained(cpus=1),
        measure=measure_by_size,
        progress=RecordingProgress(),
    )


def test_a_trained_network_is_searched_without_training(
    module: torch.nn.Module, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(out, weights)
    assert (result.job["training"][0]["stopped"], result.job["training"][0]["epochs_done"]) == (
        "pretrained",
        0,
    )
    assert (result.job["architecture"]["width"], result.job["architecture"]["depth"]) == (
        WIDTH,
        DEPTH,
    )
    validation = Task.from_dataset(load_dataset("digits")).split("validation")
    own = count_correct(module, validation) / len(validation)
    best = max(result.devices[0].front, key=lambda point: point.metric_value)
    assert best.metric_value >= own - 0.02  # narrower than the network, or the network itself
    assert min(result.devices[0].front, key=lambda point: point.params).metric_value > 0.5
    assert run(out, weights) == result  # a second time the result is shown
    other = job_spec(budget={**BUDGET, "devices": [{"name": "another", "max_params": 5_000}]})
    extended = extend_job(
        other, out, tmp_path / "extended", backend=Untrained(cpus=1), measure=measure_by_size
    )
    assert extended.devices[0].front


def test_other_weights_are_another_job(
    weights: Path, tmp_path: Path, module: torch.nn.Module
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ImpossibleBudgetError, match="trained network"):
        run(out, weights, budget={**BUDGET, "devices": [{"name": "tiny", "max_params": 100}]})
    with pytest.raises(JobDirectoryError, match="belongs to another job"):
        run(out, weights)
    changed = tmp_path / "changed.safetensors"
    save_file({name: tensor + 1 for name, tensor in module.state_dict().items()}, changed)
    with pytest.raises(JobDirectoryError, match="weights"):
        run(out, changed, budget={**BUDGET, "devices": [{"name": "tiny", "max_params": 100}]})


def _without_one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(tensors.items())[1:])


def _too_wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    name = list(tensors)[-1]
    return {**tensors, name: torch.zeros(11)}


def _unknown(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "extra.weight": torch.zeros(3)}


def _not_finite(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    name = list(tensors)[-1]
    return {**tensors, name: torch.full_like(tensors[name], torch.nan)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_one, r"nearest has width 0.5 and depth 3\): '.*' is missing"),
        (_too_wide, r"has shape \(11,\), not \(10,\)"),
        (_unknown, "'extra.weight' is unknown to it"),
        (_not_finite, "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    module: torch.nn.Module, tmp_path: Path, change, message: str
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(
        {name: tensor.contiguous() for name, tensor in change(dict(module.state_dict())).items()},
        path,
    )
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        run(tmp_path / "out", tmp_path / "missing.safetensors")
    for name, message in (
        ("w.safetensors", r"no \.safetensors file"),
        ("w.pt", "no file that torch"),
    ):
        path = tmp_path / name
        path.write_bytes(b"PK\x03\x04 anything")
        with pytest.raises(InputError, match=message):
            run(tmp_path / "out", path)
