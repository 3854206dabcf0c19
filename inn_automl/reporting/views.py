"""Charts that MLflow's own UI opens with: saved views of its runs page, written as experiment
tags.

MLflow keeps a saved view as a tag `mlflow.sharedViewState.<key>` of the experiment: a JSON
envelope with a name and the page's state, compressed. The format is not documented and belongs to
the version of the UI (3.17 here), so a view is a convenience: the same metrics, and our own
figures among the artifacts, are there without it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import NAMESPACE_URL, uuid5

from inn_automl.core.metric import ACCURACY, Metric

TAG_PREFIX = "mlflow.sharedViewState."


def front_view(
    name: str, run_filter: str, *, created_at_ms: int, metrics: Sequence[Metric] = (ACCURACY,)
) -> str:
    """The value of the tag: a view that draws the fronts of all runs that `run_filter` matches.

    Args:
        name: what the page's list of saved views shows.
        run_filter: a filter in MLflow's search syntax.
        created_at_ms: milliseconds since the epoch.
        metrics: what the metric values of the fronts are in.
    """
    fronts, search = _uuid("Pareto fronts"), _uuid("Progress of the search")
    state = {
        "searchFilter": run_filter,
        "selectedColumns": [],
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunCharts": [
            *(chart for metric in metrics for chart in _fronts(fronts, metric)),
            _line(search, "Dominated hypervolume by batch", "search/hypervolume", None),
            _line(
                search,
                "Predicted by measured latency of held-out widths (ms)",
                "cost_model/predicted_ms",
                "cost_model/measured_ms",
            ),
        ],
        "compareRunSections": [
            _section("Pareto fronts"),
            _section("Progress of the search"),
            # The UI adds a chart for each metric that has none, under the prefix of its name:
            # there, but folded.
            *(_section(prefix, display=False) for prefix in ("front", "cost_model", "recommended")),
        ],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), level=9)).decode()
    envelope = {
        "name": name,
        "createdAt": created_at_ms,
        "updatedAt": created_at_ms,
        "state": f"deflate;{packed}",
    }
    return json.dumps(envelope)


def created_at_ms(value: str) -> int:
    """Time at which the view in a tag's value was made; 0 where the value is no view."""
    try:
        return int(json.loads(value)["createdAt"])
    except (ValueError, KeyError, TypeError):
        return 0


def charts_fragment(experiment_id: str, key: str) -> str:
    """The part of a link after the server's address that opens the view `key` of an experiment.

    The link must not carry a filter of its own: the UI then leaves the view aside.
    """
    query = {
        "workflowType": "machine_learning",
        "compareRunsMode": "CHART",
        "viewStateShareKey": key,
    }
    return f"/#/experiments/{experiment_id}/runs?{urlencode(query)}"


def run_fragment(experiment_id: str, run_id: str) -> str:
    """The part of a link after the server's address that opens one run."""
    query = urlencode({"workflowType": "machine_learning"})
    return f"/#/experiments/{experiment_id}/runs/{run_id}?{query}"


def _fronts(section: str, metric: Metric) -> list[dict[str, Any]]:
    return [
        _line(
            section,
            f"Validation {metric.label} by latency (ms)",
            f"front/{metric.key}",
            "front/latency_ms",
        ),
        _line(
            section,
            f"Test {metric.label} by latency (ms)",
            f"front/test_{metric.key}",
            "front/latency_ms",
        ),
    ]


def _line(section: str, title: str, metric: str, x_metric: str | None) -> dict[str, Any]:
    """A line chart of a metric by another metric, or by step; values that share a step belong
    together.
    """
    return {
        "type": "LINE",
        "uuid": _uuid(title),
        "metricSectionId": section,
        "displayName": title,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 20,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "metric" if x_metric else "step",
        "selectedXAxisMetricKey": x_metric or "",
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "displayPoints": True,
    }


def _section(name: str, *, display: bool = True) -> dict[str, Any]:
    return {
        "uuid": _uuid(name),
        "name": name,
        "display": display,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 2,
    }


def _uuid(name: str) -> str:
    """Stable, so that the same view is the same text."""
    return str(uuid5(NAMESPACE_URL, f"inn_automl/{name}"))
