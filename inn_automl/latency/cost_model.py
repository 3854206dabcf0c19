"""Cost model: predicts the latency of widths that were not measured, from a few dozen that were.

Latency is close to a sum over layers of work times the time a piece of that work takes, which
cannot be negative; what is left over (caches, fixed costs that depend on shapes) is smooth in the
widths. So the candidates are non-negative least squares with a smaller and a larger ridge, the
same with a Gaussian process on its relative residual, and a Gaussian process alone; whichever
cross-validates best is chosen. Gradient boosting is not among them: it is constant beyond the
samples, and between a few dozen of them.

All of them minimize relative errors: 0.1 ms is much for a model of 0.2 ms and nothing for one of
20 ms.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inn_automl.core.errors import CorruptFileError, MeasurementError
from inn_automl.core.result import CostModelErrors

Floats = NDArray[np.float64]
_Fitted = Callable[[Floats], Floats]
_Fit = Callable[[Floats, Floats], _Fitted]

MAX_MEDIAN_ERROR, MIN_SPEARMAN = 0.1, 0.9
"""Limits of the errors on held-out widths, beyond which a cost model is not reliable."""

_NUM_FOLDS = 5
_FEWEST = 3


def reliability_problem(errors: CostModelErrors) -> str | None:
    """The reason why a cost model with these errors is not reliable, for a message.

    Returns:
        A part of a sentence; None if the cost model is reliable.
    """
    if errors.median_relative > MAX_MEDIAN_ERROR:
        return f"its median error is {errors.median_relative:.1%}, above {MAX_MEDIAN_ERROR:.0%}"
    if errors.spearman < MIN_SPEARMAN:
        return f"its rank correlation is {errors.spearman:.3f}, below {MIN_SPEARMAN:g}"
    return None


class CostModel:
    """Latency of a network on one device, at the percentile that it is fitted on.

    Attributes:
        kind: the kind of model that was chosen.
        errors: on held-out widths. Each of the samples is held out once, and the choice of the
            model is made again without it, so this is the error of all that `fit` does.
    """

    kind: str
    errors: CostModelErrors

    def fit(self, features: ArrayLike, latency_ms: ArrayLike) -> CostModel:
        """Fits the model, the same for the same samples.

        Args:
            features: (n, f), not negative; see `features.latency_features`.
            latency_ms: (n,), positive, measured.

        Returns:
            self.

        Raises:
            MeasurementError: fewer than 3 samples, shapes that do not fit, or values out of range.
        """
        self._features, self._latency_ms = _checked(features, latency_ms)
        x, y = self._features, self._latency_ms
        self._fit_as(_best_kind(x, y), _out_of_fold(x, y, _choose_and_fit))
        return self

    def _fit_as(self, kind: str, held_out: Floats) -> None:
        self.kind = kind
        self._log_errors = np.log(held_out / self._latency_ms)
        self.errors = _errors(held_out, self._latency_ms)
        self._predict = _KINDS[kind](self._features, self._latency_ms)

    def with_more(self, features: ArrayLike, latency_ms: ArrayLike) -> CostModel:
        """Another model of the same kind, fitted on other samples in a twentieth of the time
        that choosing takes.

        Its error is that of this kind: each sample is held out once.

        Args:
            features, latency_ms: all samples, as for `fit`.

        Raises:
            MeasurementError: as `fit`.
        """
        other = CostModel()
        other._features, other._latency_ms = _checked(features, latency_ms)
        other._fit_as(
            self.kind, _out_of_fold(other._features, other._latency_ms, _KINDS[self.kind])
        )
        return other

    def predict(self, features: ArrayLike) -> Floats:
        """Latency in milliseconds (n,) of features (n, f)."""
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self._features.shape[1]:
            raise ValueError(f"features must be (n, {self._features.shape[1]}), not {x.shape}")
        return self._predict(x)

    def margin(self, coverage: float = 0.9) -> float:
        """Factor that a measured latency stays below, relative to its prediction, in a fraction
        `coverage` of cases.

        From the held-out errors, with the correction of split conformal prediction for their
        number (Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018).
        Never below 1.
        """
        return math.exp(max(0.0, _conformal(-self._log_errors, coverage)))

    def predict_interval(self, features: ArrayLike, coverage: float = 0.9) -> tuple[Floats, Floats]:
        """Interval that contains a measured latency in a fraction `coverage` of cases.

        Args:
            features: (n, f).

        Returns:
            Lower and upper ends in milliseconds, (n,) each.
        """
        predicted = self.predict(features)
        factor = math.exp(_conformal(np.abs(self._log_errors), coverage))
        return predicted / factor, predicted * factor

    def to_json(self) -> str:
        """The samples: all that there is to keep, since fitting is deterministic."""
        return json.dumps(
            {"features": self._features.tolist(), "latency_ms": self._latency_ms.tolist()}
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> CostModel:
        """Fits a cost model to the samples that `to_json` wrote.

        Raises:
            CorruptFileError: the text is something else.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            return cls().fit(value["features"], value["latency_ms"])
        except (ValueError, TypeError, KeyError, MeasurementError) as error:
            raise CorruptFileError(
                f"these are no samples of a latency cost model ({error}): profile the device again."
            ) from None


def _checked(features: ArrayLike, latency_ms: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(features, dtype=np.float64), np.asarray(latency_ms, dtype=np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise MeasurementError(
            f"features {x.shape} and latencies {y.shape} do not fit: give (n, f) and (n,)."
        )
    if len(y) < _FEWEST:
        raise MeasurementError(
            f"latency cannot be predicted from {len(y)} measured widths: measure at least "
            f"{_FEWEST}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x >= 0).all() and (y > 0).all()):
        raise MeasurementError(
            "features must be finite and not negative, latencies finite and positive: measure "
            "again."
        )
    return x, y


def _out_of_fold(x: Floats, y: Floats, fit: _Fit) -> Floats:
    """Predictions (n,), each by a model that was fitted without its sample."""
    order = np.random.default_rng(0).permutation(len(y))
    predicted = np.empty_like(y)
    for fold in np.array_split(order, min(_NUM_FOLDS, len(y))):
        rest = np.setdiff1d(order, fold)
        predicted[fold] = fit(x[rest], y[rest])(x[fold])
    return predicted


def _best_kind(x: Floats, y: Floats) -> str:
    def loss(kind: str) -> float:
        return float(np.mean(np.abs(np.log(_out_of_fold(x, y, _KINDS[kind]) / y))))

    return min(_KINDS, key=loss)


def _choose_and_fit(x: Floats, y: Floats) -> _Fitted:
    return _KINDS[_best_kind(x, y)](x, y)


def _errors(predicted: Floats, y: Floats) -> CostModelErrors:
    from scipy.stats import rankdata

    relative = np.abs(predicted / y - 1)
    ranks = rankdata(predicted), rankdata(y)
    # Where all are equal there is no order to get right.
    ordered = all(np.ptp(r) > 0 for r in ranks)
    return CostModelErrors(
        median_relative=float(np.median(relative)),
        p90_relative=float(np.percentile(relative, 90)),
        spearman=float(np.corrcoef(*ranks)[0, 1]) if ordered else 0.0,
        num_fitted=len(y) - math.ceil(len(y) / min(_NUM_FOLDS, len(y))),
        num_held_out=len(y),
        held_out_ms=tuple(
            (float(measured), float(one)) for measured, one in zip(y, predicted, strict=True)
        ),
        interval=(
            math.exp(-_conformal(np.log(predicted / y), 0.95)),
            math.exp(_conformal(np.log(y / predicted), 0.95)),
        ),
    )


def _conformal(errors: Floats, coverage: float) -> float:
    rank = math.ceil((len(errors) + 1) * coverage)
    return float(np.sort(errors)[min(rank, len(errors)) - 1])


def _least_squares(ridge: float) -> _Fit:
    """Non-negative least squares of relative errors.

    Args:
        ridge: penalty of a feature's largest contribution, relative to the squared relative error
            of one sample. It spreads work over features that the samples cannot distinguish.
    """

    def fit(x: Floats, y: Floats) -> _Fitted:
        from scipy.optimize import nnls

        unit = math.exp(float(np.log(y).mean()))
        # Layers of one shape have the same features. One column with this factor is worth as much
        # as all of them.
        columns, first, counts = np.unique(x, axis=1, return_index=True, return_counts=True)
        used = columns.max(axis=0) > 0
        columns, first = columns[:, used], first[used]
        scale = columns.max(axis=0) / np.sqrt(counts[used])
        num = len(first)
        solution, _ = nnls(
            np.vstack(
                [columns / scale / (y / unit)[:, None], ridge * math.sqrt(len(y)) * np.eye(num)]
            ),
            np.concatenate([np.ones(len(y)), np.zeros(num)]),
            maxiter=100 * num,
        )
        weights = unit * solution / scale
        least = 1e-3 * float(y.min())  # never zero: logarithms are taken of it
        return lambda z: np.maximum(z[:, first] @ weights, least)

    return fit


def _process(x: Floats, target: Floats, *, linear: bool) -> _Fitted:
    """A Gaussian process from log features to a target."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    logs = np.log1p(x)
    used = np.ptp(logs, axis=0) > 1e-9
    mean, spread = (
        logs[:, used].mean(axis=0),
        logs[:, used].std(axis=0) * math.sqrt(max(1, used.sum())),
    )

    def standardize(z: Floats) -> Floats:
        return np.column_stack([(np.log1p(z)[:, used] - mean) / spread, np.zeros(len(z))])

    kernel = ConstantKernel(0.1, (1e-4, 1e2)) * Matern(1.0, (0.05, 1e2), nu=2.5) + WhiteKernel(
        1e-2, (1e-6, 1e0)
    )
    if linear:
        kernel += ConstantKernel(1.0, (1e-4, 1e3)) * DotProduct(1.0, (1e-3, 1e2))
    offset, unit = float(target.mean()), max(float(target.std()), 1e-9)
    process = GaussianProcessRegressor(kernel)
    with warnings.catch_warnings():
        # A length scale or a noise at the end of its range is an answer too.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(standardize(x), (target - offset) / unit)
    return lambda z: offset + unit * process.predict(standardize(z))


def _least_squares_and_process(x: Floats, y: Floats) -> _Fitted:
    base = _least_squares(0.1)(x, y)
    residual = _process(x, np.log(y / base(x)), linear=False)
    return lambda z: base(z) * np.exp(residual(z))


def _process_of_log(x: Floats, y: Floats) -> _Fitted:
    log_latency = _process(x, np.log(y), linear=True)
    return lambda z: np.exp(log_latency(z))


_KINDS: dict[str, _Fit] = {
    "least squares": _least_squares(0.02),
    "stiff least squares": _least_squares(0.1),
    "least squares and process": _least_squares_and_process,
    "process": _process_of_log,
}
