"""The width search of one device: an Optuna study over widths, with latency predicted and accuracy
told.

The study minimizes predicted latency in milliseconds and maximizes accuracy. Bounds are its
constraints: widths that are predicted to break one are never handed out for evaluation, but the
study records them, with by how much, so that any Optuna sampler learns from them. Where
predictions follow measurements (see `active_learning`), what counts is what is predicted now; on
record is what was predicted when the accuracy became known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.core.precision import COORDINATE
from inn_automl.search.active_learning import ActiveLearning
from inn_automl.search.bounds import Bounds, constraint_violations
from inn_automl.search.pareto import Floats
from inn_automl.search.sampler import FrontSampler, width_distributions
from inn_automl.search.space import Key, Points, SearchSpace, Widths

NUM_INITIAL = 12
"""Uniform widths that a study starts with, shared among the precisions."""
REFERENCE_FACTOR = 1.25
"""Hypervolume is measured from beyond the bound, so that accuracy gained right at the bound
counts.
"""
_LADDER_STEPS = 200
_REFUSED, _BEGUN = "refused", "begun"
"""What the storage knows of a trial that was never evaluated, and of the study's beginning."""
_MAX_USELESS_ASKS = 50
_ERROR_SHARE = 0.5
"""Share of the cost model's error that a search counts on: near the front, which is measured, it
errs less than elsewhere. With the whole error it proposes too much at the fastest widths (`python
-m benchmarks search`)."""
_MEDIAN_OF_NORMAL = 0.6745
"""Median size of a standard normal variable."""


@dataclass(frozen=True)
class Prediction:
    """What widths are predicted to cost on a device; latency in milliseconds at the percentile of
    its bound.
    """

    latency_ms: float
    params: int
    macs: int
    size_bytes: int
    offered: bool = True
    """Whether the device offers the precision; what others evaluated may have another one."""
    memory_bytes: int | None = None
    """None where no bound asks for it."""


@dataclass(frozen=True)
class DeviceSearch:
    """A device as the search sees it.

    Args:
        name: unique in a job.
        space: the widths to search.
        bounds: what a model must keep here.
        predict: costs of each of the given widths.
        latency_margin: share by which predicted latency must stay below its bound, because the
            cost model errs.
        refinement: measures while the search goes on, and then states the margin; None:
            predictions stay as they are.
    """

    name: str
    space: SearchSpace
    bounds: Bounds
    predict: Callable[[Sequence[Widths]], Sequence[Prediction]]
    latency_margin: float = 0.0
    active_learning: ActiveLearning | None = None

    @property
    def margin(self) -> float:
        """The share by which predicted latency must stay below its bound now."""
        return self.latency_margin if self.active_learning is None else self.active_learning.margin

    def constraint_violations(self, prediction: Prediction) -> dict[str, float]:
        """By what share a prediction, with the margin on its latency, exceeds each bound: see
        `bounds.constraint_violations`.

        A precision that the device does not offer exceeds a bound of its own.
        """
        over = constraint_violations(
            self.bounds,
            latency_ms=prediction.latency_ms * (1.0 + self.margin),
            params=prediction.params,
            macs=prediction.macs,
            size_bytes=prediction.size_bytes,
            memory_bytes=prediction.memory_bytes,
        )
        return over if prediction.offered else {**over, COORDINATE: 1.0}

    def feasible(self, prediction: Prediction) -> bool:
        """Whether a prediction keeps every bound."""
        return all(share <= 0 for share in self.constraint_violations(prediction).values())

    def assess(self, points: Points) -> tuple[Floats, NDArray[np.bool_]]:
        """Predicted latency in milliseconds (n,) of points (n, d), and whether they keep every
        bound (n,).
        """
        predictions = self.predict([self.space.from_key(point) for point in points.tolist()])
        return (
            np.array([prediction.latency_ms for prediction in predictions], dtype=np.float64),
            np.array([self.feasible(prediction) for prediction in predictions], dtype=bool),
        )


@dataclass
class WidthStudy:
    """Hands out new feasible widths for one device and learns their accuracy.

    What it hands out follows from the seed and from what it was told, so a study that is opened
    again after a crash goes on as it would have. Widths that were handed out before the crash, and
    never told, are handed out first.

    Args:
        device: what is searched.
        storage: where Optuna keeps the study, under the device's name; an existing one is
            continued.
        seed: of all random choices.
        baseline: accuracy that is worth nothing, e.g. that of guessing.
        make_sampler: another Optuna sampler, made from a seed for every batch; by default
            `FrontSampler`. It also stands in where the other finds nothing new that is feasible.
        metric: what accuracies are in; the word stands for any task's metric value.

    Attributes:
        evaluated: accuracy of all that this object was told, feasible or not, in that order. After
            a restart it must be told everything again; what the storage has on record is not
            recorded twice.
        reference: latency in milliseconds and accuracy that hypervolume is measured from; fixed.
        exhausted: whether the last `ask` found that nothing new keeps the bounds.
    """

    device: DeviceSearch
    storage: BaseStorage
    seed: int = 0
    baseline: float = 0.0
    make_sampler: Callable[[int], BaseSampler] | None = None
    metric: Metric = ACCURACY
    evaluated: dict[Key, float] = field(default_factory=dict, init=False)
    exhausted: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._space = self.device.space
        self._distributions = width_distributions(self._space)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna calls its sampler even for widths that are given; this one costs nothing then.
        self._unused_sampler = RandomSampler(seed=self.seed)
        self._study = optuna.create_study(
            study_name=self.device.name,
            storage=self.storage,
            directions=["minimize", "maximize"],
            sampler=self._unused_sampler,
            load_if_exists=True,
        )
        self._running: dict[Key, int] = {}
        self._recorded: set[Key] = set()
        self._refused: set[Key] = set()
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == TrialState.COMPLETE:
                known = self._refused if _REFUSED in trial.user_attrs else self._recorded
                known.add(self._key(trial))
            elif trial.state == TrialState.RUNNING:
                self._adopt(trial)
            elif trial.state == TrialState.WAITING:
                self._study.tell(self._study.ask(), state=TrialState.FAIL)
        self._warm, slowest_ms = self._begun()
        bound_ms = self.device.bounds.max_latency_ms
        limit_ms = slowest_ms if bound_ms is None else bound_ms
        self.reference_point = (REFERENCE_FACTOR * limit_ms, self.baseline)

    def ask(self, num: int) -> list[dict[str, int]]:
        """At most `num` widths to evaluate: feasible, and never told before.

        Fewer come back while nothing but the warm start is known, or, with `exhausted` set, when
        no more were found.
        """
        batch = list(self._running)[:num]
        for key in self._warm:
            if (
                len(batch) < num
                and key not in self._recorded | self._refused
                and key not in self._running
            ):
                self._study.sampler = self._unused_sampler
                self._study.enqueue_trial(self._space.from_key(key))
                if self._open(self._study.ask(self._distributions)) is not None:
                    batch.append(key)
        if batch and not self.evaluated:
            return [self._space.from_key(key) for key in batch]
        samplers = self._samplers()
        while len(batch) < num:
            new = self._new(samplers)
            if new is None:
                self.exhausted = True
                break
            batch.append(new)
        return [self._space.from_key(key) for key in batch]

    def tell(self, widths: Widths, metric_value: float) -> None:
        """Records the accuracy of any widths of the network, asked for here or evaluated for
        another device.
        """
        key = self._space.key(widths)
        if key in self._running or key not in self._recorded:
            prediction = self.predict(key)
            values = [prediction.latency_ms, metric_value]
            if key in self._running:
                self._study.tell(self._running.pop(key), values)
            else:
                self._study.add_trial(
                    create_trial(
                        params=self._space.from_key(key),
                        distributions=self._distributions,
                        values=values,
                        constraints=self.device.constraint_violations(prediction),
                    )
                )
            self._recorded.add(key)
        self.evaluated[key] = metric_value

    def predict(self, key: Key) -> Prediction:
        """What the widths of a key are predicted to cost on the device."""
        return self.device.predict([self._space.from_key(key)])[0]

    def refined(self) -> None:
        """Predictions have changed: there may be something new that keeps the bounds."""
        self.exhausted = False

    def _new(self, samplers: Sequence[tuple[BaseSampler, int]]) -> Key | None:
        for sampler, attempts in samplers:
            self._study.sampler = sampler
            for _ in range(attempts):
                trial = self._study.ask(self._distributions)
                key = self._open(trial)
                if key is not None:
                    return key
        return None

    def _samplers(self) -> list[tuple[BaseSampler, int]]:
        """The samplers to try in turn, and how many useless proposals to bear with."""
        # A sampler lives for one batch and its randomness follows from what is known, so that none
        # is lost in a crash.
        entropy = (self.seed, len(self.evaluated))
        own: list[tuple[BaseSampler, int]] = [
            (
                FrontSampler(
                    self._space,
                    self.evaluated,
                    self.device.assess,
                    self.reference_point,
                    entropy,
                    latency_error=_ERROR_SHARE * self.device.margin / _MEDIAN_OF_NORMAL,
                    metric=self.metric,
                ),
                1,
            )
        ]
        if self.make_sampler is None:
            return own
        seed = int(np.random.default_rng(entropy).integers(2**31))
        return [(self.make_sampler(seed), _MAX_USELESS_ASKS), *own]

    def _open(self, trial: Trial) -> Key | None:
        """The widths of a new trial, if they are to be evaluated; otherwise finishes it with what
        is known.
        """
        # Optuna may choose widths beside the device's granularity: what counts are the nearest
        # ones on it.
        key = self._space.nearest_key([trial.params[name] for name in self._space.names])
        if trial.params != self._space.from_key(key):
            trial.set_user_attr("widths", self._space.from_key(key))
        if key in self._running:
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        prediction = self.predict(key)
        over = self.device.constraint_violations(prediction)
        for name, share in over.items():
            trial.set_constraint(name, share)
        if key in self.evaluated or any(share > 0 for share in over.values()):
            if key not in self.evaluated:
                trial.set_user_attr(_REFUSED, True)
            self._study.tell(trial, [prediction.latency_ms, self.evaluated.get(key, self.baseline)])
            self._refused.add(key)
            return None
        self._running[key] = trial.number
        return key

    def _adopt(self, trial: FrozenTrial) -> None:
        """Takes over a trial that an earlier process left running; gives it up if it was not
        handed out yet.
        """
        complete = len(trial.params) == len(self._space.names)
        key = self._key(trial) if complete else ()
        handed_out = (
            complete
            and self._space.contains(self._space.from_key(key))
            and key not in self._recorded
        )
        if handed_out and key not in self._running and self.device.feasible(self.predict(key)):
            self._running[key] = trial.number
        else:
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _key(self, trial: FrozenTrial) -> Key:
        return self._space.key(trial.user_attrs.get("widths", trial.params))

    def _begun(self) -> tuple[list[Key], float]:
        """The warm start that this study began with: later measurements do not change what a
        search started from.
        """
        known = self._study.user_attrs.get(_BEGUN)
        if known is None:
            warm, slowest_ms = self._warm_start()
            self._study.set_user_attr(
                _BEGUN, {"warm": [list(key) for key in warm], "slowest_ms": slowest_ms}
            )
            return warm, slowest_ms
        return [tuple(key) for key in known["warm"]], float(known["slowest_ms"])

    def _warm_start(self) -> tuple[list[Key], float]:
        """Uniform widths to start with, and the latency of the slowest uniform ones in
        milliseconds.

        Of each precision the fastest, the slowest and the middle feasible ones come first, then
        others evenly spaced in latency, then the full network where it is infeasible: it is
        recorded, not evaluated. Precisions take turns.
        """
        num = -(-NUM_INITIAL // len(self._space.precisions))
        warm: list[list[Key]] = []
        slowest_ms = 0.0
        for precision in self._space.precisions:
            ladder = list(dict.fromkeys(self._uniform_keys(precision)))
            latency, feasible = self.device.assess(np.array(ladder, dtype=np.int64))
            slowest_ms = max(slowest_ms, float(latency.max()))
            order = [int(i) for i in np.argsort(latency, kind="stable") if feasible[i]]
            chosen: list[Key] = []
            if order:
                span = np.linspace(latency[order[0]], latency[order[-1]], num)
                nearest = [
                    ladder[order[int(np.argmin(np.abs(latency[order] - target)))]]
                    for target in span
                ]
                chosen = [nearest[0], nearest[-1], nearest[num // 2], *nearest]
            warm.append([*dict.fromkeys([*chosen, ladder[-1]])])
        turns = itertools.chain.from_iterable(itertools.zip_longest(*warm))
        return [key for key in turns if key is not None], slowest_ms

    def _uniform_keys(self, precision: str) -> list[Key]:
        ratios = np.linspace(0.0, 1.0, _LADDER_STEPS + 1)
        return [self._space.key(self._space.uniform(float(ratio), precision)) for ratio in ratios]
