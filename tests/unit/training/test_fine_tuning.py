from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from inn_automl.core.errors import InputError, WidthsError
from inn_automl.core.storage import read_json
from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import CandidateBuilder
from inn_automl.integral import IntegralNetwork
from inn_automl.integral.conversion.reconstruction import Reconstructor
from inn_automl.models.architecture import Architecture
from inn_automl.tasks import Task
from inn_automl.training.fine_tuning import (
    DEFAULT_PARTS,
    PARTS,
    FineTuningOutcome,
    _FineTuningRun,
    fine_tune,
)
from inn_automl.training.fine_tuning_request import FineTuner, FineTuningRequest, load_fine_tuned
from inn_automl.training.recipe import Recipe
from inn_automl.training.trained import Trained
from inn_automl.training.tunable import make_tunable
from tests.unit.training.small_trainings import make


def network_of(dataset: Dataset, family: str = "signal") -> IntegralNetwork:
    architecture = Architecture(
        family, dataset.input_shape, dataset.num_classes, 0.5, 8 if family == "resnet" else 2
    )
    return architecture.network(seed=1).eval()


@pytest.fixture
def learns_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """From labels alone, for the full width of an untrained network teaches nothing; however slow
    the machine is.
    """
    monkeypatch.setattr(
        "inn_automl.training.fine_tuning._FineTuningRun.fitting_steps", lambda run, end_s: 150
    )
    monkeypatch.setattr("inn_automl.training.fine_tuning.LABEL_FRACTION", 1.0)
    monkeypatch.setattr("inn_automl.training.tunable.LEARNING_RATE", 0.03)


@pytest.fixture
def candidates(signals: Dataset) -> CandidateBuilder:
    return CandidateBuilder.from_network(network_of(signals), Task.from_dataset(signals))


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


FEW = ("partition", "affine")
"""The parts of few parameters."""


@pytest.mark.parametrize(
    "parts", [("affine",), ("partition",), ("weights",), DEFAULT_PARTS, PARTS], ids="+".join
)
def test_the_same_steps_give_the_same_bits(
    candidates: CandidateBuilder, signals: Dataset, parts: Collection[str]
) -> None:
    widths = candidates.network.uniform_widths(0.5)
    first, second = (
        fine_tune(
            candidates,
            widths,
            Task.from_dataset(signals),
            seconds=1.0,
            steps=30,
            seed=3,
            parts=parts,
        )
        for _ in range(2)
    )
    assert first.outcome.steps == 30
    one, other = values(first.candidate.module), values(second.candidate.module)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert first.outcome.metric_value_after == second.outcome.metric_value_after


@pytest.mark.usefixtures("learns_quickly")
def test_a_tuned_model_is_kept_and_of_the_same_shapes(
    candidates: CandidateBuilder, signals: Dataset
) -> None:
    widths = candidates.network.uniform_widths(0.5)
    before = candidates.build(widths)
    tuned = fine_tune(
        candidates, widths, Task.from_dataset(signals), seconds=1.0, steps=150, seed=0
    )
    assert tuned.outcome.is_kept
    assert tuned.candidate.score.value == tuned.outcome.metric_value_after
    assert before.score.value == tuned.outcome.metric_value_before
    module, plain = tuned.candidate.module, candidates.network.discretize(widths)
    assert {n: t.shape for n, t in module.state_dict().items()} == {
        n: t.shape for n, t in plain.state_dict().items()
    }
    assert not module.training and all(p.requires_grad for p in module.parameters())
    assert type(module) is type(plain)


@pytest.mark.usefixtures("learns_quickly")
@pytest.mark.parametrize(
    ("parts", "dims"), [(("affine",), {1}), (("weights",), {2, 3}), (DEFAULT_PARTS, {1, 2, 3})]
)
def test_only_what_was_named_is_tuned(
    candidates: CandidateBuilder, signals: Dataset, parts: Collection[str], dims: Collection[int]
) -> None:
    widths = candidates.network.uniform_widths(0.5)
    before = candidates.build(widths).module
    after = fine_tune(
        candidates, widths, Task.from_dataset(signals), seconds=1.0, steps=150, seed=0, parts=parts
    ).candidate.module
    changed = {
        name
        for name, parameter in after.named_parameters()
        if not torch.equal(parameter, before.get_parameter(name))
    }
    assert changed == {
        name for name, parameter in before.named_parameters() if parameter.ndim in dims
    }


def test_a_model_that_does_not_gain_stays_as_it_was(
    candidates: CandidateBuilder, signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inn_automl.training.tunable.LEARNING_RATE", float("inf"))
    widths = candidates.network.uniform_widths(0.5)
    before = values(candidates.build(widths).module)
    tuned = fine_tune(candidates, widths, Task.from_dataset(signals), seconds=1.0, steps=5, seed=0)
    assert not tuned.outcome.is_kept
    after = values(tuned.candidate.module)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("family", ["convnet", "resnet", "mobilenet", "mlp"])
@pytest.mark.parametrize("ratio", [0.3, 0.6, 1.0])
def test_tuning_begins_at_the_very_model(images: Dataset, family: str, ratio: float) -> None:
    network, x = (
        network_of(images, family),
        Task.from_dataset(images).split("test").standardized(slice(0, 8)),
    )
    widths = network.uniform_widths(ratio)
    fitted = Reconstructor.from_samples(
        network, Task.from_dataset(images).split("train").standardized(slice(0, 64))
    ).discretize(widths)
    for module in (network.discretize(widths).eval(), fitted.eval()):
        began = make_tunable(network, module, widths, PARTS)
        with torch.no_grad():
            torch.testing.assert_close(began.network.eval()(x), module(x), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(
                began.discretize().eval()(x), module(x), rtol=1e-4, atol=1e-4
            )
    assert {parameter.ndim for part in FEW for parameter in began.parameters[part]} == {1}
    num_few = sum(parameter.numel() for part in FEW for parameter in began.parameters[part])
    assert 0 < num_few < 0.5 * sum(parameter.numel() for parameter in module.parameters())
    num_own = sum(
        parameter.numel() for part in DEFAULT_PARTS for parameter in began.parameters[part]
    )
    assert num_own == sum(parameter.numel() for parameter in module.parameters())


def test_a_group_of_one_channel_has_no_partition_to_tune(images: Dataset) -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    network = IntegralNetwork(module, torch.zeros(2, 2, 8, 8)).eval()
    began = make_tunable(network, network.discretize({"0": 1}), {"0": 1}, FEW)
    assert not began.parameters["partition"] and len(began.parameters["affine"]) == 3
    with pytest.raises(InputError, match="a partition of one point has none"):
        make_tunable(network, network.discretize({"0": 1}), {"0": 1}, ["partition"])


def test_bad_input_is_refused_before_anything_is_spent(
    candidates: CandidateBuilder, signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = candidates.network.uniform_widths(0.5)
    monkeypatch.setattr(
        CandidateBuilder, "build", lambda self, widths: pytest.fail("something was spent")
    )
    for seconds in (0.0, -1.0, float("nan"), float("inf"), 1e9):
        with pytest.raises(InputError, match="more than 0, at most 3600 s"):
            fine_tune(candidates, widths, Task.from_dataset(signals), seconds=seconds, seed=0)
    for steps in (0, -1):
        with pytest.raises(InputError, match="steps"):
            fine_tune(
                candidates, widths, Task.from_dataset(signals), seconds=1.0, steps=steps, seed=0
            )
    for parts in ((), ("nodes",), ("affine", "nodes")):
        with pytest.raises(InputError, match="partition, affine, weights"):
            fine_tune(
                candidates, widths, Task.from_dataset(signals), seconds=1.0, seed=0, parts=parts
            )
    name = next(iter(widths))
    for wrong in (10_000, 0, -3):
        with pytest.raises(WidthsError, match=r"give \d+ to \d+"):
            fine_tune(
                candidates, {**widths, name: wrong}, Task.from_dataset(signals), seconds=1.0, seed=0
            )


def test_the_time_that_was_given_is_kept(candidates: CandidateBuilder, signals: Dataset) -> None:
    outcome = fine_tune(
        candidates,
        candidates.network.uniform_widths(0.5),
        Task.from_dataset(signals),
        seconds=1.0,
        seed=0,
    ).outcome
    assert outcome.steps >= 1
    assert outcome.seconds < 3.0  # what the machine does besides is not known


@pytest.mark.usefixtures("learns_quickly")
@pytest.mark.parametrize(("name", "family"), [("numbers", "mlp"), ("pairs", "edsr")])
def test_other_tasks_are_tuned_by_their_own_loss(
    name: str, family: str, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(name)
    network = Architecture.from_dataset(dataset, family, 0.5, 1).network(seed=1).eval()
    candidates, widths = (
        CandidateBuilder.from_network(network, Task.from_dataset(dataset)),
        network.uniform_widths(0.5),
    )
    tuned = fine_tune(
        candidates, widths, Task.from_dataset(dataset), seconds=1.0, steps=150, seed=0
    )
    outcome, validation = tuned.outcome, Task.from_dataset(dataset).split("validation")
    assert outcome.is_kept and outcome.metric_value_after > outcome.metric_value_before
    assert tuned.candidate.score.value == outcome.metric_value_after
    objective = Task.from_dataset(dataset).objective
    with torch.no_grad():
        output = tuned.candidate.module(validation.standardized(slice(None)))
    loss = (torch.nn.functional.mse_loss if name == "numbers" else torch.nn.functional.l1_loss)(
        output, objective.targets(validation.y)
    )
    assert outcome.loss_after == pytest.approx(float(loss), rel=1e-4)
    assert outcome.to_result(0.5).metric_value_before == 0.5


@pytest.mark.usefixtures("learns_quickly")
def test_a_task_is_done_once(
    signals: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(signals)
    network.save(tmp_path / "network")
    architecture = Architecture("signal", signals.input_shape, signals.num_classes, 0.5, 2)
    trained = Trained(architecture, tmp_path / "network", Recipe(), "epochs", 0.5, [])
    task = FineTuningRequest(
        network.uniform_widths(0.5), tmp_path / "tuning" / "point", seconds=600.0, seed=0
    )
    assert not task.is_done
    outcome = FineTuner(trained, Task.from_dataset(signals))(task)
    assert task.is_done and outcome.is_kept
    assert FineTuningOutcome(**read_json(tmp_path / "tuning" / "point.json")) == outcome
    record = outcome.to_result(outcome.metric_value_before)
    assert record.metric_value_before == outcome.metric_value_before
    module, test = load_fine_tuned(trained, task), Task.from_dataset(signals).split("validation")
    with torch.no_grad():
        right = int((module(test.standardized(slice(None))).argmax(1) == test.y).sum())
    assert right == round(outcome.metric_value_after * len(test))
    monkeypatch.setattr(
        "inn_automl.training.fine_tuning_request.fine_tune",
        lambda *_, **__: pytest.fail("it was tuned twice"),
    )
    assert FineTuner(trained, Task.from_dataset(signals))(task) == outcome


def test_images_vary_as_they_did_in_training(images: Dataset) -> None:
    network = make(images, "convnet")
    tunable = make_tunable(
        network, network.discretize(network.full_widths), network.full_widths, ("weights",)
    )
    task = Task.from_dataset(images)
    run = _FineTuningRun.from_samples(
        tunable, network.module.eval(), task.train, 0, ("shift", "flip", "mixup")
    )
    once, again = run._batch(0)[0], run._batch(0)[0]
    assert once.shape == (64, 2, 8, 8) and torch.equal(once, again)
    assert not torch.equal(once, task.train.standardized(run.batches[0]))
