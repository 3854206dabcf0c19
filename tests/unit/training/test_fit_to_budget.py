from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import pytest
import torch

from inn_automl.data import Dataset
from inn_automl.tasks import Task
from inn_automl.training import planning, run
from inn_automl.training.planning import fit_to_budget
from inn_automl.training.recipe import Recipe
from tests.unit.training.small_trainings import (
    SANDWICH,
    TINY,
    Clock,
    assert_same,
    make,
    state_of,
)


class TestFitToBudget:
    @pytest.fixture
    def _costs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A step costs 0.1 s, of the full width alone 0.05 s, a validation 0.5 s, and nothing else
        takes any time.
        """
        clock = Clock(0.0)
        monkeypatch.setattr(planning.time, "monotonic", clock)

        def steps(
            self: run.TrainingRun, epoch: int, num_steps: int, deadline_s: float | None = None
        ) -> tuple[float, bool]:
            clock.now += (0.05 if epoch <= self.recipe.num_warmup_epochs else 0.1) * num_steps
            return 0.0, True

        def validate(
            self: run.TrainingRun, names: Collection[str] | None = None
        ) -> dict[str, float]:
            clock.now += 0.5
            self.validation_s = 0.5
            return {}

        monkeypatch.setattr(run.TrainingRun, "steps", steps)
        monkeypatch.setattr(run.TrainingRun, "validate", validate)

    @pytest.mark.usefixtures("_costs")
    def test_epochs_of_several_passes_leave_nine_tenths_to_training(self, signals: Dataset) -> None:
        # A pass is 5 steps: 0.5 s, as long as a validation. Timing takes 2 + 30 steps and a
        # validation: 3.7 s. Of the 99.3 s that are left, validation may take a tenth: 19 times.
        # So 993 steps are epochs of 11 passes, 16 of which fit with their validations.
        recipe = fit_to_budget(
            make(signals, "signal"), Task.from_dataset(signals), SANDWICH, seconds=103.0
        )
        assert recipe == dataclasses.replace(
            SANDWICH, epochs=16, epoch_samples=55 * TINY.batch_size, is_timed=True
        )

    @pytest.mark.usefixtures("_costs")
    def test_steps_of_the_full_width_alone_are_counted_as_what_they_cost(
        self, signals: Dataset
    ) -> None:
        # Timing takes 2 + 30 steps, 3 plain ones and a validation: 3.85 s. In 99.7 s there are 997
        # plain steps and 498 others, and validation may take a tenth: 19 epochs of 16 passes.
        recipe = fit_to_budget(
            make(signals, "signal"), Task.from_dataset(signals), TINY, seconds=103.5
        )
        assert recipe.epoch_samples == 80 * TINY.batch_size
        assert recipe.epochs == 15

    @pytest.mark.usefixtures("_costs")
    def test_an_upper_bound_of_epochs_makes_training_follow_its_steps(
        self, signals: Dataset
    ) -> None:
        def fitted(max_epochs: int) -> Recipe:
            return fit_to_budget(
                make(signals, "signal"),
                Task.from_dataset(signals),
                SANDWICH,
                seconds=103.7,
                max_epochs=max_epochs,
            )

        # An epoch is 5 steps and a validation: 1 s, of which 89 fit into nine tenths of the time.
        assert fitted(7) == dataclasses.replace(SANDWICH, epochs=7)
        assert fitted(85) == dataclasses.replace(SANDWICH, epochs=85)
        assert fitted(91).is_timed

    @pytest.mark.usefixtures("_costs")
    def test_little_time_is_four_epochs_of_few_samples(self, signals: Dataset) -> None:
        # Where steps are long, two of them are timed: 0.2 s. In the 1.45 s that are left there are
        # 14.
        recipe = fit_to_budget(
            make(signals, "signal"), Task.from_dataset(signals), SANDWICH, seconds=1.65
        )
        assert recipe.epoch_samples == 3 * TINY.batch_size
        assert (
            fit_to_budget(
                make(signals, "signal"), Task.from_dataset(signals), TINY, seconds=0.01
            ).epoch_samples
            == TINY.batch_size
        )

    @pytest.mark.usefixtures("_costs")
    def test_validation_takes_fewer_samples_where_it_takes_long(
        self, images: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(planning, "_MIN_VALIDATION_SAMPLES", 5)
        # Four validations of 20 samples take 2 s of 11 s: they may take 1.1 s.
        recipe = fit_to_budget(
            make(images, "convnet"), Task.from_dataset(images), SANDWICH, seconds=12.0
        )
        assert recipe.validation_samples == 11

    def test_the_network_and_the_random_state_are_left_as_they_were(self, images: Dataset) -> None:
        network = make(images, "convnet").eval()
        state, random_state = state_of(network), torch.get_rng_state()
        fit_to_budget(network, Task.from_dataset(images), TINY, seconds=10)
        found = state_of(network)
        deltas = [found.pop(name) for name in list(found) if name.startswith("width_deltas.")]
        assert deltas and not any(delta.count_nonzero() for delta in deltas)
        assert_same(found, state)
        assert torch.equal(torch.get_rng_state(), random_state)
        assert not network.training
        assert all(p.grad is None and p.is_contiguous() for p in network.parameters())

    def test_a_batch_that_does_not_fit_into_memory_is_halved(
        self, signals: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network, sizes = make(signals, "signal"), []
        state = state_of(network)
        take = run.SandwichStep.take

        def taken(step: Any, full: Any, *others: Any) -> torch.Tensor:
            sizes.append(len(full.x))
            loss = take(step, full, *others)
            if len(full.x) > 5:
                raise torch.OutOfMemoryError
            return loss

        monkeypatch.setattr(run.SandwichStep, "take", taken)
        recipe = fit_to_budget(network, Task.from_dataset(signals), TINY, seconds=1)
        assert list(dict.fromkeys(sizes)) == [16, 8, 4]
        assert recipe.batch_size == 4
        assert recipe.learning_rate == pytest.approx(TINY.learning_rate / 4)
        found = state_of(network)
        assert all(torch.equal(found[name], state[name]) for name in state)
