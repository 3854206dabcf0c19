from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import inn_automl.evaluation.candidates as candidates_module
from inn_automl.core.errors import CorruptFileError, InputError, WidthsError
from inn_automl.core.sample_scores import SampleScores
from inn_automl.data import Dataset
from inn_automl.evaluation.building import RULES, keep_rules, make_builder
from inn_automl.evaluation.candidates import (
    CandidateBuilder,
    count_correct,
    evaluate_module,
    evaluate_widths,
    recalibrate,
    use_channels_last,
)
from inn_automl.integral import IntegralNetwork
from inn_automl.integral.batch_norm import recalibrate_batch_norm
from inn_automl.integral.conversion.reconstruction import RECONSTRUCTION_RULES, Reconstructor
from inn_automl.models import build
from inn_automl.tasks import Score, StandardizedSamples, Task
from inn_automl.tasks.classification import wilson


def dataset_of(x: np.ndarray, num_train: int = 60) -> Dataset:
    axes = (0, *range(2, x.ndim))
    order = np.random.default_rng(1).permutation(len(x))
    train, validation, test = np.split(order, [num_train, num_train + (len(x) - num_train) // 2])
    raw = x[train].astype(np.float32)
    return Dataset(
        name="made",
        x=x,
        y=np.arange(len(x), dtype=np.int64) % 3,
        classes=("a", "b", "c"),
        train=train,
        validation=validation,
        test=test,
        mean=raw.mean(axes),
        std=raw.std(axes),
        fingerprint="made",
    )


@pytest.fixture(scope="module")
def images() -> Dataset:
    return dataset_of(np.random.default_rng(0).integers(0, 256, (100, 2, 8, 8)).astype(np.uint8))


@pytest.fixture
def network() -> IntegralNetwork:
    torch.manual_seed(0)
    return IntegralNetwork(
        build("convnet", (2, 8, 8), 3, width=0.5, depth=2), torch.zeros(2, 2, 8, 8)
    ).eval()


def share(num_correct: int, num_samples: int) -> Score:
    return Score(num_correct / num_samples, wilson(num_correct, num_samples), num_samples)


def baseline(network: IntegralNetwork, widths: dict[str, int], dataset: Dataset, split: str) -> int:
    """The same by hand: batch statistics of the training samples, then the split with those."""
    module = network.discretize(widths)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()

    def standardized(indices: np.ndarray) -> Tensor:
        raw = dataset.x[indices].astype(np.float32)
        return torch.tensor((raw - dataset.mean[:, None, None]) / dataset.std[:, None, None])

    with torch.no_grad():
        module(standardized(dataset.train))
        module.eval()
        predicted = module(standardized(getattr(dataset, split))).argmax(1).numpy()
    return int((predicted == dataset.y[getattr(dataset, split)]).sum())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_accuracy_is_that_of_the_discretized_network_on_the_split(
    images: Dataset, network: IntegralNetwork, split: str
) -> None:
    for widths in (network.smallest_widths, network.uniform_widths(0.6), network.full_widths):
        task = Task.from_dataset(images)
        score = evaluate_widths(network, widths, task, split=split)
        expected = baseline(network, widths, images, split)
        assert score == share(expected, len(getattr(images, split)))
        module = network.discretize(widths)
        assert recalibrate(module, task.recalibration_samples()) == 60
        assert evaluate_module(module, task.split(split)) == score
        assert score.value == expected / len(getattr(images, split))


def test_the_network_itself_is_left_alone(images: Dataset, network: IntegralNetwork) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate_widths(network, network.smallest_widths, Task.from_dataset(images))
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_candidate_is_a_plain_module_ready_for_export(
    images: Dataset, network: IntegralNetwork
) -> None:
    made = CandidateBuilder.from_network(network.train(), Task.from_dataset(images)).build(
        network.uniform_widths(0.5)
    )
    assert not any(m.training for m in made.module.modules())
    assert not any(
        type(m).__module__.startswith("inn_automl.integral") for m in made.module.modules()
    )
    assert made.score == evaluate_module(made.module, Task.from_dataset(images).split("validation"))
    assert made.num_recalibration == 60


def test_a_candidate_is_what_serves_the_validation_split_best(
    images: Dataset, network: IntegralNetwork
) -> None:
    candidates, validation = (
        CandidateBuilder.from_network(network, Task.from_dataset(images)),
        Task.from_dataset(images).split("validation"),
    )
    compensator = Reconstructor.from_samples(
        network, Task.from_dataset(images).recalibration_samples().standardized(slice(None))
    )
    for widths in (network.smallest_widths, network.uniform_widths(0.6)):
        correct = [baseline(network, widths, images, "validation")]
        for rule in RECONSTRUCTION_RULES:
            module = compensator.discretize(widths, rule)
            recalibrate_batch_norm(
                module, (x for x, _ in Task.from_dataset(images).recalibration_samples().batches())
            )
            correct.append(count_correct(module.eval(), validation))
        made, again = candidates.build(widths), candidates.build(widths)
        assert made.score.value == max(correct) / len(validation)
        assert made.is_reconstructed == (max(correct) > correct[0])
        assert (again.score, again.is_reconstructed) == (made.score, made.is_reconstructed)


def test_the_full_width_is_the_network_itself(images: Dataset, network: IntegralNetwork) -> None:
    made = CandidateBuilder.from_network(network, Task.from_dataset(images)).build(
        network.full_widths
    )
    assert not made.is_reconstructed
    correct = baseline(network, network.full_widths, images, "validation")
    assert made.score.value == correct / len(images.validation)


def test_too_few_samples_to_fit_leave_weights_as_they_are(
    images: Dataset, network: IntegralNetwork
) -> None:
    assert (
        not CandidateBuilder.from_network(network, Task.from_dataset(images), num_recalibration=12)
        .build(network.smallest_widths)
        .is_reconstructed
    )


def test_recalibration_takes_the_same_samples_for_every_width(
    images: Dataset, network: IntegralNetwork
) -> None:
    once, again = (
        Task.from_dataset(images).recalibration_samples(20).raw(slice(None)) for _ in range(2)
    )
    assert torch.equal(once, again)
    drawn = {one.tobytes() for one in once.numpy()}
    assert len(drawn) == 20
    assert drawn < {one.tobytes() for one in images.x[images.train]}
    task = Task.from_dataset(images)
    built = CandidateBuilder.from_network(network, task, num_recalibration=20).build(
        network.full_widths
    )
    assert built.num_recalibration == 20
    assert built.score == evaluate_widths(network, network.full_widths, task, num_recalibration=20)


def test_a_network_without_batch_norm_is_not_recalibrated(images: Dataset) -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 3)
    )
    network = IntegralNetwork(module, torch.zeros(2, 2, 8, 8))
    task = Task.from_dataset(images)
    module = network.discretize(network.smallest_widths)
    assert recalibrate(module, task.recalibration_samples()) == 0
    assert (
        CandidateBuilder.from_network(network, task)
        .build(network.smallest_widths)
        .num_recalibration
        == 0
    )


def test_wrong_splits_and_widths_are_refused(images: Dataset, network: IntegralNetwork) -> None:
    with pytest.raises(InputError, match=r"'val'.*validation"):
        evaluate_widths(network, network.full_widths, Task.from_dataset(images), split="val")
    with pytest.raises(WidthsError):
        evaluate_widths(
            network,
            {**network.full_widths, network.groups[0].name: 10_000},
            Task.from_dataset(images),
        )


def test_samples_keep_their_type_and_are_standardized_by_the_training_split(
    images: Dataset,
) -> None:
    samples = Task.from_dataset(images).split("train")
    assert samples.raw(slice(0, 1)).dtype == torch.uint8
    x = samples.standardized(slice(None))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-4, rtol=0)
    assert torch.equal(samples.standardized(torch.tensor([3, 1])), x[[3, 1]])


@given(num=st.integers(2, 70), batch_size=st.integers(1, 80))
def test_batches_cover_all_samples_in_order_and_differ_by_at_most_one(
    num: int, batch_size: int
) -> None:
    dataset = dataset_of(
        np.arange(100, dtype=np.float32).reshape(100, 1, 1).repeat(3, 2), num_train=num
    )
    samples = Task.from_dataset(dataset).train
    batches = list(samples.batches(batch_size))
    sizes = [len(x) for x, _ in batches]
    assert torch.equal(torch.cat([x for x, _ in batches]), samples.standardized(slice(None)))
    assert torch.equal(torch.cat([y for _, y in batches]), samples.y)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_long_samples_come_in_smaller_batches() -> None:
    dataset = dataset_of(
        np.random.default_rng(0).normal(size=(100, 1, 1024)).astype(np.float32), num_train=90
    )
    assert [len(x) for x, _ in Task.from_dataset(dataset).train.batches()] == [45, 45]


class Viewing(nn.Module):
    """Needs the usual memory layout after its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(x)))
        return self.classifier(y.view(x.shape[0], -1))


def is_channels_last(module: nn.Module) -> bool:
    weight = next(m.weight for m in module.modules() if isinstance(m, nn.Conv2d))
    return weight.is_contiguous(memory_format=torch.channels_last)


def test_image_networks_run_in_channels_last_layout_unless_their_forward_cannot(
    network: IntegralNetwork,
) -> None:
    x = torch.randn(3, 2, 8, 8)
    expected = network(x)
    network.train()
    use_channels_last(network, x)
    assert network.training
    assert is_channels_last(network)
    torch.testing.assert_close(network.eval()(x), expected, atol=1e-5, rtol=1e-5)

    viewing = Viewing()
    before = {name: value.clone() for name, value in viewing.state_dict().items()}
    use_channels_last(viewing, x)
    assert not is_channels_last(viewing)
    assert all(torch.equal(value, before[name]) for name, value in viewing.state_dict().items())
    viewing(x)


def test_a_network_that_cannot_run_in_channels_last_layout_is_evaluated_all_the_same(
    images: Dataset,
) -> None:
    network = IntegralNetwork(Viewing(), torch.zeros(2, 2, 8, 8))
    assert (
        evaluate_widths(network, network.full_widths, Task.from_dataset(images)).num_samples == 20
    )


def test_a_race_is_lost_on_a_first_share(
    images: Dataset, network: IntegralNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "MIN_SHARE", 4)
    monkeypatch.setattr(StandardizedSamples, "batches", in_small_batches)
    samples = Task.from_dataset(images).validation
    module = network.discretize(network.full_widths)
    own = evaluate_module(module, samples)
    assert own.samples is not None
    correct = own.samples.contributions
    always = SampleScores(np.ones_like(correct), correct)
    lost = evaluate_module(module, samples, always)
    assert lost.is_partial and lost.num_samples < len(samples)
    assert lost.value == pytest.approx(correct[: lost.num_samples].mean())
    assert lost.samples is not None and len(lost.samples) == lost.num_samples
    won = evaluate_module(module, samples, own.samples)
    assert won == own and not won.is_partial


def test_a_slow_reconstruction_is_not_tried(
    images: Dataset, network: IntegralNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "MAX_RECONSTRUCTION_S", 0.0)
    builder = CandidateBuilder.from_network(network, Task.from_dataset(images))
    assert builder.reconstructor is not None
    with pytest.raises(TimeoutError):
        builder.reconstructor.discretize(network.smallest_widths, deadline_s=0.0)
    assert builder.rules == ()
    assert not builder.build(network.smallest_widths).is_reconstructed


def test_rules_are_found_once_for_all_processes(
    images: Dataset, network: IntegralNetwork, tmp_path: Path
) -> None:
    task = Task.from_dataset(images)
    builder = make_builder(network, task, tmp_path)
    keep_rules(builder, tmp_path)
    assert make_builder(network, task, tmp_path).chosen_rules == builder.rules
    (tmp_path / RULES).write_text('{"rules": []}')
    none = make_builder(network, task, tmp_path)
    assert none.rules == () and none.reconstructor is None
    (tmp_path / RULES).write_text('{"rules": [9]}')
    with pytest.raises(CorruptFileError, match="holds no reconstruction rules"):
        make_builder(network, task, tmp_path)


def test_large_images_need_fewer_samples_for_their_statistics() -> None:
    x = np.zeros((700, 3, 256, 256), dtype=np.uint8)
    x[:, :, 0, 0] = np.arange(700)[:, None] % 256
    task = Task.from_dataset(dataset_of(x, num_train=400))
    assert len(task.recalibration_samples()) == 256
    assert len(task.recalibration_samples(100)) == 100


def in_small_batches(
    samples: StandardizedSamples, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(samples), 4):
        chosen = slice(start, start + 4)
        yield samples.standardized(chosen), samples.y[chosen]
