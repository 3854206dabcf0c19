"""The classes of a device's recommended model as rows of a table."""

from __future__ import annotations

from inn_automl.core.class_table import ClassScore
from inn_automl.core.result import DeviceResult, FrontPoint

MAX_CLASSES = 20
"""Classes of a table that people read: of more, the worst by F1."""


def recommended_point(device: DeviceResult) -> FrontPoint | None:
    """The recommended point of a device's front; None if there is none."""
    return next((point for point in device.front if point.id == device.recommended), None)


def shown_classes(device: DeviceResult) -> tuple[ClassScore, ...]:
    """The classes of the recommended point that a table shows, in their order; empty for other
    tasks than classification.
    """
    point = recommended_point(device)
    if point is None or point.test_classes is None:
        return ()
    worst = sorted(point.test_classes.classes, key=lambda one: one.f1)[:MAX_CLASSES]
    return tuple(one for one in point.test_classes.classes if one in worst)


def class_rows(device: DeviceResult) -> list[dict[str, str]]:
    """The shown classes of the recommended point, as people read them."""
    return [
        {
            "class": one.name,
            "precision": f"{100 * one.precision:.1f}",
            "recall": f"{100 * one.recall:.1f}",
            "F1": f"{100 * one.f1:.1f}",
            "samples": str(one.support),
        }
        for one in shown_classes(device)
    ]
