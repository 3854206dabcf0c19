"""A surrogate of the metric: a Gaussian process on the logarithms of widths.

The error rate of a network falls roughly like a power of its widths, layer by layer, so the
process models the transformed metric (`Metric.transform`, -log(error) for accuracy) over
log(width): a constant plus a smooth, isotropic function (squared exponential) plus noise. Its
hyperparameters are the mode of their posterior (Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 2006, section 5.4).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.width_search.pareto import Floats
from inn_automl.width_search.space import Points

MAX_OBSERVATIONS = 400
"""Fitting is cubic in these; beyond them the first quarter and the most recent rest are used."""


class MetricSurrogate:
    """Predicts the transformed metric of widths.

    Args:
        widths: (n, d) evaluated widths, n at least 1.
        metric_value: (n,), in the unit of the metric; for accuracy fractions in 0..1.
    """

    def __init__(self, widths: Points, metric_value: Floats, metric: Metric = ACCURACY) -> None:
        if len(widths) > MAX_OBSERVATIONS:
            first = MAX_OBSERVATIONS // 4
            recent = len(widths) - (MAX_OBSERVATIONS - first)
            widths = np.concatenate([widths[:first], widths[recent:]])
            metric_value = np.concatenate([metric_value[:first], metric_value[recent:]])
        logs = np.log(widths)
        self._center, self._spread = logs.mean(axis=0), logs.std(axis=0) + 1e-9
        transformed = metric.transform(metric_value)
        self._mean, self._scale = float(transformed.mean()), float(transformed.std()) + 1e-9
        self._x = self._features(widths)
        self._y = (transformed - self._mean) / self._scale
        self._log_parameters = self._most_probable_parameters()
        self._factorize()

    def predict(self, widths: Points) -> tuple[Floats, Floats]:
        """Predicts the transformed metric, without evaluation noise.

        Args:
            widths: (n, d).

        Returns:
            Mean (n,) and standard deviation (n,).
        """
        x = self._features(widths)
        cross = self._kernel(x, self._x)
        explained = solve_triangular(self._cholesky, cross.T, lower=True, check_finite=False)
        deviation, constant, _, _ = np.exp(self._log_parameters)
        variance = np.maximum(deviation**2 + constant**2 - np.sum(explained**2, axis=0), 1e-12)
        return self._mean + self._scale * (cross @ self._weights), self._scale * np.sqrt(variance)

    def fantasize(self, widths: Points) -> None:
        """Conditions the process on its own mean at widths (n, d) that are being evaluated."""
        transformed, _ = self.predict(widths)
        self._x = np.concatenate([self._x, self._features(widths)])
        self._y = np.concatenate([self._y, (transformed - self._mean) / self._scale])
        self._factorize()

    def _features(self, widths: Points) -> Floats:
        features: Floats = (np.log(widths) - self._center) / self._spread
        return features

    def _kernel(self, a: Floats, b: Floats, log_parameters: Floats | None = None) -> Floats:
        parameters = self._log_parameters if log_parameters is None else log_parameters
        deviation, constant, length, _ = np.exp(parameters)
        squared = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2.0 * a @ b.T
        covariance: Floats = constant**2 + deviation**2 * np.exp(
            -0.5 * np.maximum(squared, 0.0) / length**2
        )
        return covariance

    def _most_probable_parameters(self) -> Floats:
        num, dimensions = self._x.shape
        # Deviation and constant in units of the observations' spread; length scale, which grows
        # with the root of the dimensions because distances do; noise.
        expected = np.log([1.0, 0.5, 2.0 * dimensions**0.5, 0.3])
        spread = np.array([1.0, 1.0, 0.7, 1.0])

        def negative_log_posterior(log_parameters: Floats) -> float:
            covariance = self._kernel(self._x, self._x, log_parameters)
            covariance[np.diag_indices(num)] += np.exp(2 * log_parameters[-1])
            try:
                factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
            except LinAlgError:
                return 1e6
            whitened = solve_triangular(factor, self._y, lower=True, check_finite=False)
            likelihood = 0.5 * whitened @ whitened + np.sum(np.log(np.diag(factor)))
            return float(likelihood + 0.5 * np.sum(((log_parameters - expected) / spread) ** 2))

        bounds = [(value - 4.0, value + 3.0) for value in expected]
        fit = minimize(
            negative_log_posterior,
            expected,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 15},
        )
        return np.asarray(fit.x, dtype=np.float64)

    def _factorize(self) -> None:
        covariance = self._kernel(self._x, self._x)
        covariance[np.diag_indices(len(self._x))] += np.exp(2 * self._log_parameters[-1]) + 1e-8
        self._cholesky = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._weights = cho_solve((self._cholesky, True), self._y, check_finite=False)
