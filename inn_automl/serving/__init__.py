"""A downloaded model in use: all front points of a job in one process, switched while they serve
(`ElasticModel`), and one bundle on files (`Predictor`). Needs NumPy and ONNX Runtime.
"""

from __future__ import annotations

from inn_automl.serving.choice import Choice
from inn_automl.serving.model import ElasticModel
from inn_automl.serving.observations import Observed
from inn_automl.serving.prediction import Prediction, Predictor

__all__ = ["Choice", "ElasticModel", "Observed", "Prediction", "Predictor"]
