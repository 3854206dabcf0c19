"""Front points of one job in one process, switched while they serve: `ElasticModel`. Needs NumPy
and ONNX Runtime.
"""

from __future__ import annotations

from inn_automl.serving.choice import Choice
from inn_automl.serving.model import ElasticModel
from inn_automl.serving.observations import Observed

__all__ = ["Choice", "ElasticModel", "Observed"]
