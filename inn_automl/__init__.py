"""inn_automl: a dataset and a hardware budget in, measured Pareto fronts and downloadable models out.

Importing this package costs nothing: what needs torch is imported from the subpackage that holds it, e.g.
`from inn_automl.integral import IntegralNetwork`.
"""

from __future__ import annotations

__version__ = "0.1.0"
