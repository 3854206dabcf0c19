from __future__ import annotations

import numpy as np
import pytest

from inn_automl.width_search import sampler as module
from inn_automl.width_search.pareto import hypervolume
from inn_automl.width_search.sampler import FrontSampler
from inn_automl.width_search.space import SearchSpace
from tests.unit.width_search.search_samples import GROUPS, TINY, accuracy_of, device


def sampler_of(target, num_known=20, seed=0, known=None):
    points = (
        target.space.sample(num_known, np.random.default_rng(1)).tolist()
        if known is None
        else known
    )
    evaluated = {tuple(point): accuracy_of(target.space.from_key(point)) for point in points}
    return FrontSampler(target.space, evaluated, target.assess, (25.0, 0.25), (seed,)), evaluated


def test_proposals_are_new_feasible_and_different():
    target = device(max_latency_ms=20.0)
    sampler, evaluated = sampler_of(target)
    proposed = []
    for _ in range(10):
        proposed.append(sampler.propose(proposed))
    assert len(set(proposed)) == 10 and not set(proposed) & set(evaluated)
    assert target.assess(np.array(proposed))[1].all()


def test_the_same_seed_proposes_the_same_even_if_started_in_the_middle():
    target = device(max_latency_ms=20.0)
    whole, again = sampler_of(target)[0], sampler_of(target)[0]
    first = [whole.propose([])]
    for _ in range(5):
        first.append(whole.propose(first))
    assert again.propose(first[:3]) == first[3]
    assert sampler_of(target, seed=1)[0].propose([]) != first[0]


def test_a_batch_adds_more_hypervolume_than_random_widths_do():
    target = device(max_latency_ms=20.0)
    sampler, evaluated = sampler_of(target)
    proposed = []
    for _ in range(10):
        proposed.append(sampler.propose(proposed))

    def worth(points):
        known = np.array([*evaluated, *points])
        latency, feasible = target.assess(known)
        metric_value = np.array([accuracy_of(target.space.from_key(point)) for point in known])
        return hypervolume(latency[feasible], metric_value[feasible], (20.0, 0.25))

    feasible = [
        p
        for p in target.space.sample(200, np.random.default_rng(5))
        if target.assess(p[None])[1][0]
    ]
    by_chance = [worth([tuple(p.tolist()) for p in feasible[i : i + 10]]) for i in range(0, 50, 10)]
    assert worth(proposed) - worth([]) > 1.5 * (max(by_chance) - worth([]))


def test_small_spaces_are_searched_whole_and_end():
    target = device(groups=TINY)
    sampler, _ = sampler_of(target, known=[(2, 1)])
    proposed = []
    while (key := sampler.propose(proposed)) is not None:
        proposed.append(key)
    assert sorted([*proposed, (2, 1)]) == sorted(map(tuple, target.space.points().tolist()))


def test_few_feasible_widths_in_a_large_space_are_found():
    target = device(
        max_latency_ms=9.3
    )  # three of the first group's lanes, and the smallest of the others but one
    sampler, _ = sampler_of(target, known=[(8, 8, 8, 8)])
    proposed = []
    while (key := sampler.propose(proposed)) is not None:
        proposed.append(key)
    every = SearchSpace(GROUPS, 4).points()
    lanes = {tuple(point) for point in every[target.assess(every)[1]].tolist()}
    assert lanes - {(8, 8, 8, 8)} <= set(proposed)


def test_nothing_feasible_proposes_nothing():
    sampler, _ = sampler_of(device(max_latency_ms=7.9), known=[(8, 8, 8, 8)])
    assert sampler.propose([]) is None


def test_before_any_evaluation_it_still_proposes():
    sampler, _ = sampler_of(device(max_latency_ms=20.0), known=[])
    first = sampler.propose([])
    assert first is not None and sampler.propose([first]) not in (None, first)


def test_expected_improvement_is_the_mean_over_the_surrogates_distribution():
    target = device()
    sampler, _ = sampler_of(target)
    sampler.propose([])
    sampler._front_latency, sampler._front_values = (
        np.array([10.0, 14.0, 18.0]),
        np.array([0.5, 0.7, 0.8]),
    )
    latency, mean, std = (
        np.array([8.0, 12.0, 24.0, 30.0]),
        np.array([1.0, 1.5, 2.0, 5.0]),
        np.array([0.5, 0.3, 0.4, 1.0]),
    )
    draws = np.random.default_rng(0).standard_normal(20_000)
    before = hypervolume(sampler._front_latency, sampler._front_values, (25.0, 0.25))
    for i, found in enumerate(sampler._expected_improvement(latency, mean, std)):
        metric_value = 1 - np.exp(-(mean[i] + std[i] * draws[:1500]))
        grown = [
            hypervolume(
                [*sampler._front_latency, latency[i]], [*sampler._front_values, a], (25.0, 0.25)
            )
            - before
            for a in metric_value
        ]
        assert found == pytest.approx(np.mean(grown), rel=0.08, abs=1e-9)


def test_breeding_finds_what_enumeration_finds(monkeypatch):
    groups = [type(GROUPS[0])(f"g{i}", 32, range(8, 33, 4)) for i in range(3)]
    target = device(groups=groups, max_latency_ms=14.0)
    best = sampler_of(target)[0].propose([])
    monkeypatch.setattr(module, "ENUMERABLE", 0)
    bred = sampler_of(target)[0].propose([])
    assert bred == best


def test_an_uncertain_latency_lets_what_may_be_faster_than_the_front_gain():
    target = device()
    sampler, _ = sampler_of(target)
    unsure = FrontSampler(
        target.space, sampler._evaluated, target.assess, (25.0, 0.25), (0,), latency_error=0.2
    )
    for one in (sampler, unsure):
        one._prepare()
        one._front_latency, one._front_values = np.array([10.0]), np.array([0.9])
    # Slower than the front and never more accurate: worth something only if latency may turn out
    # lower.
    latency, mean, std = np.array([11.0]), np.array([-np.log(1 - 0.8999)]), np.array([0.0])
    assert sampler._expected_improvement(latency, mean, std)[0] == 0.0
    draws = latency * np.exp(0.2 * np.random.default_rng(0).standard_normal(200_000))
    expected = np.mean(np.maximum(10.0 - draws, 0.0)) * (0.8999 - 0.25)
    assert unsure._expected_improvement(latency, mean, std)[0] == pytest.approx(expected, rel=0.2)
