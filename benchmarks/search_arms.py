"""The searches that `benchmarks.search` compares: the package's own, and Optuna's samplers with
the same means.
"""

from __future__ import annotations

import functools
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from benchmarks.search_truth import DEVICES, Truth
from inn_automl.core.spec import SearchBudget
from inn_automl.latency.cost_model import CostModel
from inn_automl.latency.design import initial_design
from inn_automl.latency.features import latency_features
from inn_automl.pipeline.latency_model import NUM_INITIAL_WIDTHS
from inn_automl.width_search.choice import rank_finalists
from inn_automl.width_search.device import DeviceSearch, Prediction
from inn_automl.width_search.initial_design import NUM_INITIAL, REFERENCE_FACTOR
from inn_automl.width_search.pareto import hypervolume, pareto_front
from inn_automl.width_search.run import run_search
from inn_automl.width_search.space import Key, Widths

MAX_EVALUATIONS, MAX_MEASUREMENTS, BATCH_SIZE = 100, 60, 10
MAX_PROPOSALS = 1000
"""Samplers of small spaces propose much again."""
OURS = "ours"


@dataclass(frozen=True)
class Found:
    """What one run of an arm found, as shares of the true front's hypervolume.

    Args:
        share: of what was evaluated and measured.
        evaluated_share: of what was evaluated, as if all of it had been measured.
        strict_share: as `share`, within the box that the true front spans.
    """

    share: float
    evaluated_share: float
    strict_share: float
    num_evaluations: int
    num_measurements: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Arm:
    what: str
    run: Callable[[Problem, int], Found]


class Problem:
    """The space as arms see it, and as they are judged on it."""

    def __init__(self, truth: Truth, device: str = DEVICES[0].name) -> None:
        self.truth, self.space = truth, truth.space
        self.latency_ms = truth.latency_ms[device]
        self.index = truth.index()
        self.costs = [
            truth.network.costs(truth.space.from_key(key)) for key in truth.points.tolist()
        ]
        self.features = np.stack([latency_features(cost.layers) for cost in self.costs])
        known = np.isfinite(self.latency_ms)
        self.reference = (REFERENCE_FACTOR * float(self.latency_ms[known].max()), 0.1)
        self.front = np.flatnonzero(known)[
            pareto_front(self.latency_ms[known], truth.accuracy[known])
        ]
        self.box = (
            float(self.latency_ms[self.front].max()),
            float(truth.accuracy[self.front].min()),
        )

    @functools.cached_property
    def _fitted(self) -> dict[tuple[int, ...], CostModel]:
        return {}

    def fit(self, rows: Sequence[int]) -> CostModel:
        """The cost model of measured rows; the arms of one seed begin with the same."""
        key = tuple(rows)
        if key not in self._fitted:
            self._fitted[key] = CostModel().fit(self.features[rows], self.latency_ms[rows])
        return self._fitted[key]

    def row(self, widths: Widths) -> int:
        return self.index[self.space.key(widths)]

    def initial_design_rows(self, seed: int = 0) -> list[int]:
        """Rows that a job would measure before its search; on a device that was measured in part,
        seed 0 has all.
        """
        return [
            self.row(widths) for widths in initial_design(self.space, NUM_INITIAL_WIDTHS, seed=seed)
        ]

    def judge(
        self, evaluated: Sequence[int], measured: Sequence[int], num_measurements: int
    ) -> Found:
        shown = sorted(set(evaluated) & set(measured))
        return Found(
            self._share(shown, self.reference),
            self._share(sorted(set(evaluated)), self.reference),
            self._share(shown, self.box),
            len(set(evaluated)),
            num_measurements,
        )

    def _share(self, rows: Sequence[int], reference: tuple[float, float]) -> float:
        found, true = (
            hypervolume(self.latency_ms[list(r)], self.truth.accuracy[list(r)], reference)
            for r in (rows, self.front)
        )
        return found / true


class TableLatency:
    """What `stages.device_latency.DeviceLatency` does, with a table to measure in."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self.rows = problem.initial_design_rows(seed)
        self._num_planned = len(self.rows)
        self.last_batch = -1
        self._fit()

    @property
    def margin(self) -> float:
        return self.cost_model.errors.median_relative

    @property
    def num_made(self) -> int:
        return len(self.rows) - self._num_planned

    @property
    def num_left(self) -> int:
        return MAX_MEASUREMENTS - len(self.rows)

    def is_measured(self, widths: Widths) -> bool:
        return self._problem.row(widths) in self.rows

    def measure(self, batch: int, widths: Sequence[Widths]) -> None:
        self.rows += [self._problem.row(one) for one in widths]
        self.last_batch = batch
        self._fit()

    def predict(self, batch: Sequence[Widths]) -> list[Prediction]:
        rows = [self._problem.row(widths) for widths in batch]
        costs = [self._problem.costs[row] for row in rows]
        return [
            Prediction(float(self.predicted_ms[row]), cost.params, cost.macs, 4 * cost.params)
            for row, cost in zip(rows, costs, strict=True)
        ]

    def _fit(self) -> None:
        problem = self._problem
        first = problem.fit(self.rows[: self._num_planned])
        self.cost_model = first
        if self.num_made:
            self.cost_model = first.with_more(
                problem.features[self.rows], problem.latency_ms[self.rows]
            )
        self.predicted_ms: NDArray[np.float64] = self.cost_model.predict(problem.features)
        self.predicted_ms[self.rows] = problem.latency_ms[self.rows]


def search_ours(problem: Problem, seed: int) -> Found:
    latency = TableLatency(problem, seed)
    accuracy = problem.truth.accuracy
    device = DeviceSearch(
        DEVICES[0].name, problem.space, DEVICES[0], latency.predict, active_learning=latency
    )
    budget = SearchBudget(
        max_evaluations=MAX_EVALUATIONS, batch_size=BATCH_SIZE, patience=MAX_EVALUATIONS
    )
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_search(
            [device],
            lambda batch: [float(accuracy[problem.row(widths)]) for widths in batch],
            budget,
            Path(folder),
            seed=seed,
            baseline=problem.reference[1],
        )
    evaluated = [problem.row(one.widths) for one in outcome.evaluations]
    return problem.judge(evaluated, latency.rows, len(latency.rows))


def search_with(
    make_sampler: Callable[[int], BaseSampler], problem: Problem, seed: int, *, num_warm: int = 0
) -> Found:
    """An Optuna study of predicted latency and accuracy; what is proposed again costs nothing.

    Args:
        num_warm: uniform widths to begin with, as the package's own search does.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    latency = TableLatency(problem, seed)
    names, values = problem.space.names, problem.space.values
    evaluated: dict[Key, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of samplers that are experimental
        study = optuna.create_study(directions=["minimize", "maximize"], sampler=make_sampler(seed))
        for ratio in np.linspace(0.0, 1.0, num_warm):
            uniform = problem.space.uniform(float(ratio))
            study.enqueue_trial(
                {name: v.index(uniform[name]) for name, v in zip(names, values, strict=True)}
            )
        for _ in range(MAX_PROPOSALS):
            if len(evaluated) == MAX_EVALUATIONS:
                break
            trial = study.ask()
            key = tuple(
                v[trial.suggest_int(name, 0, len(v) - 1)]
                for name, v in zip(names, values, strict=True)
            )
            row = evaluated.setdefault(key, problem.index[key])
            study.tell(
                trial, [float(latency.predicted_ms[row]), float(problem.truth.accuracy[row])]
            )
    rows = list(evaluated.values())
    ranked = rank_finalists(
        latency.predicted_ms[rows],
        problem.truth.accuracy[rows],
        relative_error=latency.cost_model.errors.p90_relative,
    )
    unknown = [rows[i] for i in ranked if rows[i] not in latency.rows]
    measured = [*latency.rows, *unknown[: latency.num_left]]
    return problem.judge(rows, measured, len(measured))


def _peer(what: str, make_sampler: Callable[[int], BaseSampler], num_warm: int = 0) -> Arm:
    return Arm(what, functools.partial(search_with, make_sampler, num_warm=num_warm))


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=20, seed=seed)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, seed=seed)


ARMS: dict[str, Arm] = {
    OURS: Arm("the search of a job", search_ours),
    "random": _peer("Optuna, random", lambda seed: RandomSampler(seed=seed)),
    "nsga2": _peer("Optuna, NSGA-II with a population of 20", _nsga2),
    "nsga2-warm": _peer("the same from 12 uniform widths", _nsga2, NUM_INITIAL),
    "tpe": _peer("Optuna, multivariate TPE", _tpe),
    "tpe-warm": _peer("the same from 12 uniform widths", _tpe, NUM_INITIAL),
    "gp": _peer("Optuna, Gaussian process", lambda seed: GPSampler(seed=seed)),
}
