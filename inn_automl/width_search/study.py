"""The width search of one device as an Optuna study: predicted latency against a metric.

The study minimizes predicted latency in milliseconds and maximizes the metric. Bounds are its
constraints: widths that are predicted to violate one are never proposed, but the study records
them with their constraint violations, so that any Optuna sampler learns from them. If predictions
change during the search (see `active_learning`), the current ones count; a trial keeps those of
the moment in which it was recorded.

The study lives in memory. The table of evaluations is the only state of a search, and a study is
rebuilt from it by telling it all evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import Trial, TrialState, create_trial

from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.width_search.device import DeviceSearch, Prediction
from inn_automl.width_search.initial_design import REFERENCE_FACTOR, InitialDesign, initial_design
from inn_automl.width_search.sampler import FrontSampler, width_distributions
from inn_automl.width_search.space import Key, Widths

_MAX_USELESS_PROPOSALS = 50
_ERROR_FRACTION = 0.5
"""Fraction of the cost model's error that a search expects: near the front, which is measured, it
errs less than elsewhere. With the whole error the search proposes too much at the fastest widths
(`python -m benchmarks search`)."""
_MEDIAN_OF_NORMAL = 0.6745
"""Median absolute value of a standard normal variable."""


class WidthStudy:
    """Proposes new feasible widths for one device and learns their metric values (ask/tell).

    Proposals follow from the seed and from what the study was told, so a study that is rebuilt
    after a crash proposes what it would have proposed.

    Args:
        device: the device to search for.
        seed: of all random choices.
        baseline: metric value that is worth nothing, e.g. that of guessing.
        make_sampler: makes another Optuna sampler from a seed for every batch; None for
            `FrontSampler` alone, which also stands in if the other one finds nothing new that is
            feasible.
        metric: of the job's task.
        design: widths to start with; None to choose them by the predictions of now.

    Attributes:
        evaluated: metric value of all that the study was told, feasible or not, in that order.
        reference_point: latency in milliseconds and metric value that hypervolume is measured
            from; fixed.
        exhausted: whether the last `ask` found nothing new that keeps the bounds.
        optuna_study: the study itself, with one trial for all widths evaluated or refused.
    """

    def __init__(
        self,
        device: DeviceSearch,
        *,
        seed: int = 0,
        baseline: float = 0.0,
        make_sampler: Callable[[int], BaseSampler] | None = None,
        metric: Metric = ACCURACY,
        design: InitialDesign | None = None,
    ) -> None:
        self.device, self.seed, self.metric = device, seed, metric
        self.design = initial_design(device) if design is None else design
        bound_ms = device.bounds.max_latency_ms
        limit_ms = self.design.slowest_ms if bound_ms is None else bound_ms
        self.reference_point = (REFERENCE_FACTOR * limit_ms, baseline)
        self.evaluated: dict[Key, float] = {}
        self.exhausted = False
        self._make_sampler, self._space = make_sampler, device.space
        self._distributions = width_distributions(self._space)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna calls its sampler even for widths that are given; this one costs nothing then.
        self._unused_sampler = RandomSampler(seed=seed)
        self.optuna_study = optuna.create_study(
            study_name=device.name,
            directions=["minimize", "maximize"],
            sampler=self._unused_sampler,
        )
        self._running: dict[Key, int] = {}
        self._refused: set[Key] = set()

    def ask(self, num: int) -> list[dict[str, int]]:
        """Proposes at most `num` widths to evaluate: feasible, and never told before.

        Fewer come back while nothing but the initial design is known, or, with `exhausted` set,
        if no more were found. Widths that were proposed before and not told yet come first.
        """
        batch = list(self._running)[:num]
        for key in self.design.keys:
            is_known = key in self.evaluated or key in self._refused or key in self._running
            if len(batch) < num and not is_known and self._enqueue(key):
                batch.append(key)
        if batch and not self.evaluated:
            return [self._space.from_key(key) for key in batch]
        samplers = self._samplers()
        while len(batch) < num:
            new = self._propose(samplers)
            if new is None:
                self.exhausted = True
                break
            batch.append(new)
        return [self._space.from_key(key) for key in batch]

    def tell(self, widths: Widths, metric_value: float) -> None:
        """Records the metric value of any widths of the network, whoever proposed them."""
        key = self._space.key(widths)
        if key in self._running or key not in self.evaluated:
            prediction = self.predict(key)
            values = [prediction.latency_ms, metric_value]
            if key in self._running:
                self.optuna_study.tell(self._running.pop(key), values)
            else:
                self.optuna_study.add_trial(
                    create_trial(
                        params=self._space.from_key(key),
                        distributions=self._distributions,
                        values=values,
                        constraints=self.device.constraint_violations(prediction),
                    )
                )
        self.evaluated[key] = metric_value

    def resume(self, widths: Sequence[Widths]) -> None:
        """Takes over proposals of an interrupted batch; the next `ask` returns them first.

        Widths that are not in the device's space, or no longer keep its bounds, are dropped.
        """
        for one in widths:
            if self._space.contains(one) and self._space.key(one) not in self.evaluated:
                self._enqueue(self._space.key(one))

    def predict(self, key: Key) -> Prediction:
        """Predicts the costs of the widths of a key on the device."""
        return self.device.predict([self._space.from_key(key)])[0]

    def reopen(self) -> None:
        """Searches on after predictions changed: new widths may keep the bounds now."""
        self.exhausted = False

    def _enqueue(self, key: Key) -> bool:
        self.optuna_study.sampler = self._unused_sampler
        self.optuna_study.enqueue_trial(self._space.from_key(key))
        return self._open(self.optuna_study.ask(self._distributions)) is not None

    def _propose(self, samplers: Sequence[tuple[BaseSampler, int]]) -> Key | None:
        for sampler, attempts in samplers:
            self.optuna_study.sampler = sampler
            for _ in range(attempts):
                key = self._open(self.optuna_study.ask(self._distributions))
                if key is not None:
                    return key
        return None

    def _samplers(self) -> list[tuple[BaseSampler, int]]:
        """Makes the samplers to try in turn, each with the useless proposals to put up with."""
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
                    latency_error=_ERROR_FRACTION * self.device.margin / _MEDIAN_OF_NORMAL,
                    metric=self.metric,
                ),
                1,
            )
        ]
        if self._make_sampler is None:
            return own
        seed = int(np.random.default_rng(entropy).integers(2**31))
        return [(self._make_sampler(seed), _MAX_USELESS_PROPOSALS), *own]

    def _open(self, trial: Trial) -> Key | None:
        """Opens a new trial if its widths are to be evaluated, else finishes it."""
        # Optuna may choose widths off the device's granularity: the nearest ones on it count.
        key = self._space.nearest_key([trial.params[name] for name in self._space.names])
        if trial.params != self._space.from_key(key):
            trial.set_user_attr("widths", self._space.from_key(key))
        if key in self._running:
            self.optuna_study.tell(trial, state=TrialState.FAIL)
            return None
        prediction = self.predict(key)
        violations = self.device.constraint_violations(prediction)
        for name, violation in violations.items():
            trial.set_constraint(name, violation)
        if key in self.evaluated or any(violation > 0 for violation in violations.values()):
            value = self.evaluated.get(key, self.reference_point[1])
            self.optuna_study.tell(trial, [prediction.latency_ms, value])
            self._refused.add(key)
            return None
        self._running[key] = trial.number
        return key
