from __future__ import annotations

import dataclasses
from collections.abc import Collection

import pytest
import torch

from inn_automl.data import Dataset
from inn_automl.tasks import Task
from inn_automl.training import planning, run
from inn_automl.training.planning import fit_to_budget
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
    def test_epochs_fill_the_seconds(self, signals: Dataset) -> None:
        # An epoch is 5 steps and a validation: 1 s. Timing takes 2 + 30 steps and a validation:
        # 3.7 s.
        recipe = fit_to_budget(
            make(signals, "signal"), Task.from_dataset(signals), SANDWICH, seconds=103.8
        )
        assert recipe == dataclasses.replace(SANDWICH, epochs=90)

    @pytest.mark.usefixtures("_costs")
    @pytest.mark.parametrize(("seconds", "epochs"), [(43.9, 42), (3.2, 2), (3.05, 1)])
    def test_epochs_of_the_full_width_alone_are_counted_as_what_they_cost(
        self, signals: Dataset, seconds: float, epochs: int
    ) -> None:
        # Half of the epochs take 0.75 s. Timing takes 2 + 13 (3 of a short time) steps, 3 plain
        # ones, a validation.
        recipe = fit_to_budget(
            make(signals, "signal"), Task.from_dataset(signals), TINY, seconds=seconds
        )
        assert recipe == dataclasses.replace(TINY, epochs=epochs)

    @pytest.mark.usefixtures("_costs")
    def test_an_upper_bound_holds(self, signals: Dataset) -> None:
        assert (
            fit_to_budget(
                make(signals, "signal"), Task.from_dataset(signals), TINY, seconds=100, max_epochs=7
            ).epochs
            == 7
        )

    @pytest.mark.usefixtures("_costs")
    def test_where_no_epoch_fits_a_part_of_one_is_planned(self, signals: Dataset) -> None:
        # Timing takes no more than it must: 5 steps and a validation, 1 s. Of what is left, 0.81 s
        # can be used.
        recipe = fit_to_budget(
            make(signals, "signal"), Task.from_dataset(signals), SANDWICH, seconds=1.9
        )
        assert (recipe.epochs, recipe.epoch_samples) == (1, 3 * TINY.batch_size)
        assert (
            fit_to_budget(
                make(signals, "signal"), Task.from_dataset(signals), TINY, seconds=0.01
            ).epoch_samples
            == TINY.batch_size
        )

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
