"""Charts of a job as Vega-Lite specifications: fronts, cost model, layers, learning curves.

One chart serves twice: `inn_automl.reporting.figures` writes it as PNG and as an interactive page.
"""

from inn_automl.reporting.charts.classes import confusion_chart
from inn_automl.reporting.charts.evidence import layers_chart, learning_curves_chart, parity_chart
from inn_automl.reporting.charts.fronts import front_chart, front_panels, fronts_chart
from inn_automl.reporting.charts.style import styled

__all__ = [
    "confusion_chart",
    "front_chart",
    "front_panels",
    "fronts_chart",
    "layers_chart",
    "learning_curves_chart",
    "parity_chart",
    "styled",
]
