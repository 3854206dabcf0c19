"""Precision as a coordinate of the search, on made-up devices: int8 is faster on wide networks,
and a bit worse.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.samplers import TPESampler

from inn_automl.core.errors import WidthsError
from inn_automl.core.precision import is_a_choice, join_point, split_point
from inn_automl.core.spec import DeviceBudget, SearchBudget
from inn_automl.width_search.device import DeviceSearch, Prediction
from inn_automl.width_search.evaluations import EvaluationTable, inherit_evaluations
from inn_automl.width_search.initial_design import NUM_INITIAL
from inn_automl.width_search.outcome import SearchOutcome
from inn_automl.width_search.pareto import hypervolume
from inn_automl.width_search.run import run_search
from inn_automl.width_search.space import SearchSpace, Widths
from inn_automl.width_search.study import WidthStudy
from tests.unit.width_search.search_samples import GROUPS, Group, accuracy_of, predict

BOTH = ("fp32", "int8")
LOST = 0.004
FEW = (Group("a", 6, range(2, 7)), Group("b", 5, range(2, 6)))


def evaluate(batch: Sequence[Widths]) -> list[float]:
    points = [split_point(point) for point in batch]
    return [accuracy_of(widths) - LOST * (precision == "int8") for widths, precision in points]


def device(
    name: str = "laptop",
    precisions: Sequence[str] = BOTH,
    groups: Sequence[Group] = GROUPS,
    **budget: Any,
) -> DeviceSearch:
    def costs(batch: Sequence[Widths]) -> list[Prediction]:
        found = []
        for widths, precision in map(split_point, batch):
            (one,) = predict([widths])
            latency_ms = one.latency_ms if precision == "fp32" else 6.0 + 0.4 * one.latency_ms
            size_bytes = one.size_bytes if precision == "fp32" else one.size_bytes // 4
            found.append(
                Prediction(
                    latency_ms, one.params, one.macs, size_bytes, offered=precision in precisions
                )
            )
        return found

    bounds = DeviceBudget.model_validate({"name": name, "precisions": precisions, **budget})
    return DeviceSearch(
        name, SearchSpace(groups, bounds.granularity, bounds.precisions, BOTH), bounds, costs
    )


def search(folder: Path, *devices: DeviceSearch, evaluations: int = 40) -> SearchOutcome:
    budget = SearchBudget(max_evaluations=evaluations, batch_size=10, patience=9)
    return run_search(devices, evaluate, budget, folder, seed=1, baseline=0.1)


def test_points_carry_their_precision() -> None:
    assert split_point(join_point({"a": 3}, "int8")) == ({"a": 3}, "int8")
    assert split_point({"a": 3}) == ({"a": 3}, "fp32")
    assert [is_a_choice(names) for names in (("fp32",), ("int8",), BOTH)] == [False, True, True]


def test_a_space_of_fp32_alone_is_what_it_was() -> None:
    plain, same = SearchSpace(GROUPS, 4), SearchSpace(GROUPS, 4, ("fp32",))
    assert plain.names == same.names == tuple(group.name for group in GROUPS)
    rngs = np.random.default_rng(0), np.random.default_rng(0)
    assert (plain.sample(9, rngs[0]) == same.sample(9, rngs[1])).all()


def test_a_space_has_every_precision_at_all_widths() -> None:
    space = SearchSpace(FEW, 2, BOTH)
    assert space.num_points == 2 * SearchSpace(FEW, 2).num_points == len(space.points())
    assert space.smallest["precision"] == 8 and space.largest["precision"] == 32
    assert space.uniform(1.0) == space.largest
    assert space.uniform(1.0, "int8") == {**space.largest, "precision": 8}
    key = space.key({"a": 4, "b": 5, "precision": 8})
    assert key == (4, 5, 8) and space.nearest_key((4, 5, 30)) == (4, 5, 32)
    varied = space.vary(np.array([key]), 200, np.random.default_rng(0))
    assert {int(bits) for bits in varied[:, -1]} == {8, 32}


def test_a_device_without_int8_knows_its_points_but_does_not_hold_them() -> None:
    space = SearchSpace(FEW, 1, ("fp32",), BOTH)
    point = {"a": 4, "b": 5, "precision": 8}
    assert space.key(point) == (4, 5, 8) and not space.contains(point)
    with pytest.raises(WidthsError, match="width 16 of 'precision'"):
        space.key({**point, "precision": 16})


def test_a_group_may_not_take_the_name_of_the_coordinate() -> None:
    with pytest.raises(WidthsError, match="give its module another name"):
        SearchSpace([Group("precision", 4, range(2, 5))], 1, BOTH)


def test_warm_start_covers_both_precisions_in_turns() -> None:
    study = WidthStudy(device())
    asked = study.ask(NUM_INITIAL)
    assert [point["precision"] for point in asked[:4]] == [32, 8, 32, 8]
    for bits in (8, 32):
        mine = [tuple(point.values())[:-1] for point in asked if point["precision"] == bits]
        assert len(mine) >= NUM_INITIAL // 2 - 1
        assert min(mine) == (8,) * 4 and max(mine) >= (29,) * 4  # 29 to 32 fill the same lanes


def test_the_search_finds_where_each_precision_wins(tmp_path: Path) -> None:
    one = device()
    outcome = search(tmp_path / "both", one, evaluations=60).devices[0]
    front = [outcome.candidates[i] for i in outcome.front]
    chosen = [split_point(candidate.widths)[1] for candidate in front]
    assert set(chosen) == {"fp32", "int8"}
    assert chosen[0] == "fp32"  # the narrowest takes 8 ms, and 9.2 in int8
    keys = itertools.product(
        (8, 12, 16, 20, 24, 28, 32), (8, 16, 24, 32), (8, 16, 24, 32), (8, 16, 24, 32), (8, 32)
    )
    points = [one.space.from_key(key) for key in keys]
    latency = [prediction.latency_ms for prediction in one.predict(points)]
    assert outcome.hypervolume[-1] >= 0.98 * hypervolume(
        latency, evaluate(points), outcome.reference_point
    )


def test_what_one_device_cannot_run_is_infeasible_there_and_counts_elsewhere(
    tmp_path: Path,
) -> None:
    outcome = search(tmp_path, device("both"), device("floats", ("fp32",)))
    both, floats = outcome.devices
    assert [one.widths for one in both.candidates] == [one.widths for one in floats.candidates]
    bits = {one.widths["precision"] for one in both.candidates if one.feasible}
    assert bits == {8, 32}
    assert {one.widths["precision"] for one in floats.candidates if one.feasible} == {32}
    assert all(not one.prediction.offered for one in floats.candidates if not one.feasible)


def test_a_size_bound_is_about_the_file_of_the_precision(tmp_path: Path) -> None:
    outcome = search(tmp_path, device(max_size_bytes=6_000)).devices[0]
    best = max(
        (one for one in outcome.candidates if one.feasible), key=lambda one: one.metric_value
    )
    assert best.prediction.size_bytes <= 6_000 and best.widths["precision"] == 8


def test_any_optuna_sampler_takes_the_coordinate() -> None:
    study = WidthStudy(
        device(),
        make_sampler=lambda seed: TPESampler(seed=seed, multivariate=True),
    )
    for _ in range(3):
        for point in study.ask(8):
            study.tell(point, evaluate([point])[0])
    assert {key[-1] for key in study.evaluated} == {8, 32}


def test_a_search_goes_on_after_a_kill_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole", device(), evaluations=30)
    calls = 0

    def killed(batch: Sequence[Widths]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return evaluate(batch)

    budget = SearchBudget(max_evaluations=30, batch_size=10, patience=9)
    run_search([device()], killed, budget, tmp_path / "cut", seed=1, baseline=0.1)
    resumed = search(tmp_path / "cut", device(), evaluations=30)
    assert resumed.evaluations == whole.evaluations


@pytest.mark.parametrize("precisions", [("fp32",), ("int8",), BOTH])
@pytest.mark.parametrize("before", [("fp32",), BOTH])
def test_evaluations_are_inherited_by_any_choice(
    before: tuple[str, ...], precisions: tuple[str, ...], tmp_path: Path
) -> None:
    plain = {"a": 6, "b": 5}
    old = SearchSpace(FEW, 1, before)
    with EvaluationTable(tmp_path / "old.jsonl", old.largest) as table:
        for precision in before:
            table.add(join_point(plain, precision) if before == BOTH else plain, 0.5, "laptop")
    inherit_evaluations(tmp_path / "old.jsonl", tmp_path / "new.jsonl", precisions)
    new = SearchSpace(FEW, 1, precisions)
    with EvaluationTable(tmp_path / "new.jsonl", new.largest) as table:
        found = [one.widths for one in table.evaluations]
        assert table.num_own == 0
    kept = [name for name in before if name in precisions]
    assert found == [join_point(plain, name) if precisions != ("fp32",) else plain for name in kept]
    assert json.loads((tmp_path / "new.jsonl").read_text().splitlines()[0])["inherited"] == len(
        kept
    )
