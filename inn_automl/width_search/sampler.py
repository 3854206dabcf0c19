"""An Optuna sampler for widths that maximizes expected hypervolume improvement (EHVI).

Latency, parameters and MACs of any widths are predicted in microseconds, latency with a known
error; the metric is predicted by a surrogate. Candidates are evolved around the predicted Pareto
front by crossover and mutation, and infeasible ones are dropped. Each proposal has the largest
expected hypervolume improvement. Widths that are still being evaluated are fantasized: they count
as having the metric value predicted for them (Kriging believer), so that a batch spreads.

Sources: Emmerich, Giannakoglou and Naujoks, "Single- and multiobjective evolutionary optimization
assisted by Gaussian random field metamodels", IEEE TEC 10(4), 2006 (EHVI). Daulton, Balandat and
Bakshy, "Differentiable Expected Hypervolume Improvement for Parallel Multi-Objective Bayesian
Optimization", NeurIPS 2020 (its form for batches). Ginsbourger, Le Riche and Carraro, "Kriging Is
Well-Suited to Parallelize Optimization", 2010 (Kriging believer). Deb, Pratap, Agarwal and
Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE TEC 6(2), 2002
(evolution of a front).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.core.precision import COORDINATE
from inn_automl.width_search.pareto import Floats, pareto_front
from inn_automl.width_search.space import Key, Points, SearchSpace
from inn_automl.width_search.surrogate import MetricSurrogate

ENUMERABLE = 2048
"""A space with at most this many points is searched whole."""
NUM_GENERATIONS, NUM_CHILDREN = 6, 300
"""Size of the evolution for a batch: at most 1,800 predictions of latency, a fraction of a
second."""
NUM_SHORTLISTED = 400
"""Candidates that are still compared while a batch fills up."""

# Nodes of the Gauss-Hermite rule that integrates over the surrogate's normal distribution.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

Assess = Callable[[Points], tuple[Floats, NDArray[np.bool_]]]
"""Points (n, d) -> predicted latency in milliseconds (n,), and whether every bound holds (n,)."""


def width_distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Makes the Optuna distribution of each coupled group: any integer that the network allows, on
    a logarithmic scale.

    A device's granularity is not part of it, nor which precisions it offers, so that what was
    evaluated for another device fits too.
    """
    return {
        name: (
            CategoricalDistribution(tuple(allowed))
            if name == COORDINATE
            else IntDistribution(allowed[0], allowed[-1], log=True)
        )
        for name, allowed in zip(space.names, space.allowed, strict=True)
    }


class FrontSampler(BaseSampler):
    """Proposes widths for one batch, from what is known when it is made.

    Its proposals are new and keep every bound. Where it finds none, Optuna falls back to a random
    point.

    Args:
        space: the device's search space.
        evaluated: metric value of each evaluated point, feasible or not, in order of evaluation.
        assess: predicts latency and feasibility.
        reference_point: latency in milliseconds and metric value, as in `hypervolume`.
        seed: entropy; the same seed and knowledge give the same proposals.
        latency_error: standard deviation of the logarithm of true latency around the predicted
            one.
        metric: what `evaluated` is in.
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluated: Mapping[Key, float],
        assess: Assess,
        reference_point: tuple[float, float],
        seed: Sequence[int],
        latency_error: float = 0.0,
        metric: Metric = ACCURACY,
    ) -> None:
        self._space, self._assess, self._reference_point = space, assess, reference_point
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=int(self._rng.integers(2**31)))
        self._evaluated = dict(evaluated)
        self._latency_error, self._metric = latency_error, metric
        self._surrogate: MetricSurrogate | None = None
        self._prepared = False
        self._fantasized: set[Key] = set()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return width_distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        keys = [
            self._space.nearest_key([other.params[name] for name in self._space.names])
            for other in running
            if other.number != trial.number and len(other.params) == len(self._space.names)
        ]
        key = self.propose(keys)
        return {} if key is None else self._space.from_key(key)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def propose(self, running: Sequence[Key]) -> Key | None:
        """The best new feasible point while the `running` ones are being evaluated; None if none
        was found.
        """
        if not self._prepared:
            self._prepare()
        for key in running:
            if key not in self._fantasized:
                self._fantasize(key)
        if not len(self._pool):
            return None
        mean, std = self._predict(self._pool)
        gain = self._expected_improvement(self._pool_latency, mean, std)
        best = int(np.argmax(gain)) if gain.max() > 0 else int(np.argmax(std))
        return tuple(int(width) for width in self._pool[best])

    def _prepare(self) -> None:
        self._prepared = True
        points = np.array(list(self._evaluated), dtype=np.int64).reshape(-1, len(self._space.names))
        metric_value = np.array(list(self._evaluated.values()), dtype=np.float64)
        latency, feasible = (
            self._assess(points) if len(points) else (np.zeros(0), np.zeros(0, dtype=bool))
        )
        if len(points):
            self._surrogate = MetricSurrogate(points, metric_value, self._metric)
        # The front as the surrogate sees it: a metric value that was lucky on the validation
        # samples would hide gains.
        self._front_latency = latency[feasible]
        self._front_values = self._metric.untransform(self._predict(points[feasible])[0])
        self._pool, self._pool_latency = self._candidates(points[feasible])
        if len(self._pool) > NUM_SHORTLISTED:
            gain = self._expected_improvement(self._pool_latency, *self._predict(self._pool))
            keep = np.sort(np.argsort(-gain, kind="stable")[:NUM_SHORTLISTED])
            self._pool, self._pool_latency = self._pool[keep], self._pool_latency[keep]

    def _candidates(self, feasible: Points) -> tuple[Points, Floats]:
        """New feasible points (n, d) and their latency (n,)."""
        if self._space.num_points <= ENUMERABLE:
            return self._new_and_feasible(self._space.points(), set(self._evaluated))
        parents = feasible[pareto_front(self._front_latency, self._front_values)]
        if not len(parents):
            parents = np.array([self._space.key(self._space.smallest)])
        seen = set(self._evaluated)
        pool, latency = np.empty((0, parents.shape[1]), dtype=np.int64), np.empty(0)
        for _ in range(NUM_GENERATIONS):
            children, children_latency = self._new_and_feasible(
                self._space.vary(parents, NUM_CHILDREN, self._rng), seen
            )
            pool, latency = (
                np.concatenate([pool, children]),
                np.concatenate([latency, children_latency]),
            )
            if len(pool):
                front = pool[pareto_front(latency, self._predict(pool)[0])]
                parents = np.unique(np.concatenate([parents, front]), axis=0)
        return pool, latency

    def _new_and_feasible(self, points: Points, seen: set[Key]) -> tuple[Points, Floats]:
        new = []
        for key in map(tuple, points.tolist()):
            if key not in seen:
                seen.add(key)
                new.append(key)
        points = np.array(new, dtype=np.int64).reshape(-1, points.shape[1])
        latency, feasible = self._assess(points) if new else (np.zeros(0), np.zeros(0, dtype=bool))
        return points[feasible], latency[feasible]

    def _fantasize(self, key: Key) -> None:
        self._fantasized.add(key)
        point = np.array([key], dtype=np.int64)
        other = np.any(self._pool != point, axis=1)
        self._pool, self._pool_latency = self._pool[other], self._pool_latency[other]
        latency, feasible = self._assess(point)
        if self._surrogate is None:
            return
        mean, _ = self._surrogate.predict(point)
        self._surrogate.fantasize(point)
        self._front_latency = np.concatenate([self._front_latency, latency[feasible]])
        self._front_values = np.concatenate(
            [self._front_values, self._metric.untransform(mean[feasible])]
        )

    def _predict(self, points: Points) -> tuple[Floats, Floats]:
        """Predicts mean and standard deviation of the transformed metric, (n,) each.

        Before any evaluation, wider networks are taken to be better.
        """
        if self._surrogate is None:
            full = np.array([values[-1] for values in self._space.values])
            return np.mean(points / full, axis=1), np.zeros(len(points))
        return self._surrogate.predict(points)

    def _expected_improvement(self, latency: Floats, mean: Floats, std: Floats) -> Floats:
        """Computes the expected hypervolume improvement of candidates, (n,).

        The transformed metric and the logarithm of latency are normal; integrals are by
        Gauss-Hermite quadrature.

        Args:
            latency: (n,), predicted, in milliseconds.
            mean, std: (n,), of the transformed metric.
        """
        worst_latency, worst_value = self._reference_point
        front = pareto_front(self._front_latency, self._front_values)
        # The front is a staircase: metric value levels[i] from latency steps[i] to steps[i + 1].
        steps = np.concatenate([[-np.inf], self._front_latency[front], [worst_latency]])
        levels = np.concatenate([[worst_value], np.maximum(self._front_values[front], worst_value)])
        stretch = np.zeros((len(latency), len(levels)))
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            start = np.maximum(steps[:-1], latency[:, None] * np.exp(node * self._latency_error))
            stretch += weight * np.maximum(np.minimum(steps[1:], worst_latency) - start, 0.0)
        gain = np.zeros(len(latency))
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            metric_value = self._metric.untransform(mean + node * std)
            gain += weight * np.sum(
                stretch * np.maximum(metric_value[:, None] - levels, 0.0), axis=1
            )
        return gain
