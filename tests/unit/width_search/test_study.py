from __future__ import annotations

import math
from collections import Counter

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from inn_automl.width_search.initial_design import NUM_INITIAL
from inn_automl.width_search.study import WidthStudy
from tests.unit.width_search.search_samples import TINY, accuracy_of, device


def search(study, num, batch=8):
    asked = []
    while len(asked) < num and not study.exhausted:
        widths = study.ask(min(batch, num - len(asked)))
        asked += widths
        for one in widths:
            study.tell(one, accuracy_of(one))
    return asked


def keys(study, widths):
    return [study.device.space.key(one) for one in widths]


def trials(study):
    return study.optuna_study.trials


def test_warm_start_spans_the_feasible_uniform_widths():
    target = device(max_latency_ms=20.0)
    study = WidthStudy(target)
    first = study.ask(30)
    assert len(first) <= NUM_INITIAL and first[0] == target.space.smallest
    assert all(len(set(widths.values())) == 1 for widths in first)
    latency = [one.latency_ms for one in target.predict(first)]
    assert max(latency) == latency[1] == 20.0
    assert latency[2] == pytest.approx(14.0, abs=2.0)
    recorded = {tuple(trial.params.values()): trial for trial in trials(study)}
    full = recorded[tuple(target.space.largest.values())]
    assert full.state == TrialState.COMPLETE and full.constraints == {
        "max_latency_ms": pytest.approx(32 / 20 - 1)
    }


def test_nothing_is_asked_twice_and_everything_asked_is_feasible():
    target = device(max_latency_ms=20.0, max_params=5000, margin=0.05)
    study = WidthStudy(target, seed=3)
    asked = search(study, 50)
    assert len(asked) == 50 and max(Counter(keys(study, asked)).values()) == 1
    for one in target.predict(asked):
        assert one.latency_ms * 1.05 <= 20.0 and one.params <= 5000


def test_the_same_seed_asks_for_the_same_widths():
    found = [search(WidthStudy(device(max_latency_ms=20.0), seed=s), 30) for s in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_what_other_devices_evaluated_counts_and_is_not_asked_again():
    target = device(max_latency_ms=20.0, granularity=8)
    study = WidthStudy(target)
    elsewhere = [
        {"g0": 9, "g1": 10, "g2": 11, "g3": 8},
        target.space.largest,
        target.space.uniform(0.5),
    ]
    for one in elsewhere:
        study.tell(one, accuracy_of(one))
    asked = search(study, 20)
    assert not set(keys(study, asked)) & set(keys(study, elsewhere))
    assert all(target.space.contains(one) for one in asked)
    assert list(study.evaluated) == keys(study, elsewhere + asked)
    told = trials(study)
    assert [trial.params for trial in told[:3]] == elsewhere
    assert all(trial.state == TrialState.COMPLETE for trial in told)
    front = study.optuna_study.best_trials
    assert all(max(trial.constraints.values()) <= 0 for trial in front) and len(front) > 3


def test_a_tiny_space_is_exhausted():
    study = WidthStudy(device(groups=TINY))
    asked = search(study, 100)
    assert study.exhausted and sorted(keys(study, asked)) == sorted(
        map(tuple, study.device.space.points().tolist())
    )
    assert study.ask(5) == []


@pytest.mark.parametrize(("bound", "num"), [(7.9, 0), (8.0, 1)])
def test_bounds_that_leave_almost_nothing_end_the_search(bound, num):
    study = WidthStudy(device(max_latency_ms=bound))
    assert len(search(study, 20)) == num
    assert study.exhausted


def test_no_bounds_at_all():
    study = WidthStudy(device(), baseline=0.1)
    assert len(search(study, 20)) == 20
    assert study.reference_point == (pytest.approx(1.25 * 32.0), 0.1)
    assert WidthStudy(device(max_latency_ms=20.0)).reference_point[0] == pytest.approx(25.0)


def test_what_was_proposed_before_a_restart_comes_first():
    target = device(max_latency_ms=20.0)
    before = WidthStudy(target)
    asked = search(before, 16)
    pending = before.ask(5)
    after = WidthStudy(target, design=before.design)
    for key, metric_value in before.evaluated.items():
        after.tell(target.space.from_key(key), metric_value)
    after.resume(pending)
    assert after.ask(3) == pending[:3]
    assert after.ask(8)[:5] == pending
    assert keys(after, asked) == list(after.evaluated)
    assert len(trials(after)) == len({tuple(trial.params.values()) for trial in trials(after)})


def test_proposals_that_do_not_fit_any_more_are_dropped():
    proposed = WidthStudy(device(max_latency_ms=20.0)).ask(8)
    smaller = device(max_latency_ms=10.0, granularity=4)
    study = WidthStudy(smaller)
    study.resume(proposed)
    asked = study.ask(8)
    assert smaller.assess(np.array(keys(study, asked)))[1].all()
    assert all(smaller.space.contains(one) for one in asked)
    assert asked[0] == smaller.space.smallest == proposed[0]


@pytest.mark.parametrize("kind", ["random", "tpe", "nsga"])
def test_any_optuna_sampler_searches_within_the_bounds(kind):
    make = {
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed),
        "nsga": lambda seed: optuna.samplers.NSGAIISampler(population_size=10, seed=seed),
    }[kind]
    target = device(max_latency_ms=16.0, granularity=4)
    study = WidthStudy(target, make_sampler=make)
    asked = search(study, 30)
    assert len(set(keys(study, asked))) == 30
    assert (
        all(target.space.contains(one) for one in asked)
        and target.assess(np.array(keys(study, asked)))[1].all()
    )
    infeasible = [
        trial for trial in trials(study) if trial.constraints.get("max_latency_ms", -1) > 0
    ]
    assert infeasible and all(math.isfinite(trial.values[0]) for trial in infeasible)


def test_a_sampler_that_finds_nothing_feasible_is_helped_out():
    study = WidthStudy(
        device(max_latency_ms=8.8),
        make_sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed),
    )
    asked = search(study, 12, batch=4)
    assert len(set(keys(study, asked))) == 12
