"""Ties of a front's points and the classes of its recommended one, wherever they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from inn_automl.cli.summary import classes_table, front_table
from inn_automl.core.class_table import ClassTable
from inn_automl.core.result import DeviceResult
from inn_automl.reporting.charts import confusion_chart, front_chart
from inn_automl.reporting.class_rows import MAX_CLASSES, class_rows
from inn_automl.reporting.figures import write_png
from inn_automl.reporting.page import device_classes, write_devices_page
from inn_automl.reporting.series import COLORS, front_series, is_tied_with_faster
from inn_automl.reporting.tables import classes_table as classes_columns
from inn_automl.reporting.tables import front_markdown
from inn_automl.reporting.tables import front_table as front_columns
from tests.unit.reporting.drawn import num_pixels
from tests.unit.reporting.job_samples import make_job

CELLS = [(0, 0, 30), (0, 1, 5), (1, 1, 20), (2, 2, 9), (2, 0, 1)]
TABLE = ClassTable.from_counts(["cat", "dog", "red fox"], CELLS)


@pytest.fixture(scope="module")
def device() -> DeviceResult:
    """A front whose second to fourth points are a tie, and fourth and fifth."""
    result, _, _ = make_job(devices={"laptop": {"threads": 1, "max_latency_ms": 0.8}})
    front = sorted(result.devices[0].front, key=lambda point: point.latency_ms.at_percentile)
    ids = [point.id for point in front]
    ties = {1: (2, 3), 2: (1, 3), 3: (1, 2, 4), 4: (3,)}
    points = [
        point.model_copy(
            update={
                "ties": tuple(ids[j] for j in ties.get(i, ())),
                "loss": 0.5 - 0.01 * i,
                "test_classes": TABLE,
            }
        )
        for i, point in enumerate(front)
    ]
    return result.devices[0].model_copy(update={"front": points})


def test_points_that_are_all_ties_of_each_other_share_a_letter(device: DeviceResult) -> None:
    series = front_series(device)
    assert series.ties[:6] == ("", "a", "a", "ab", "b", "")
    tied = [is_tied_with_faster(series, i) for i in range(6)]
    assert tied == [False, False, True, True, True, False]


def test_ties_are_on_screen_and_in_tables(device: DeviceResult) -> None:
    shown = front_table(device)
    assert "ties" in shown and "letter in common are ties" in shown
    assert "ties" not in front_table(make_job()[0].devices[0])
    columns = front_columns(device)
    assert columns["ties"][:4] == ["", "a", "a", "ab"] and columns["loss"][0] == 0.5
    assert "| ab |" in front_markdown(device)


def test_a_point_that_is_not_surely_better_is_hollow(device: DeviceResult) -> None:
    series = front_series(device)
    whole = [point.model_copy(update={"ties": ()}) for point in device.front]
    plain = front_series(device.model_copy(update={"front": whole}))
    specs = [str(front_chart(one).to_dict(validate=False)) for one in (series, plain)]
    assert ["not surely better" in spec for spec in specs] == [True, False]


def test_the_classes_of_the_recommended_point_are_shown(
    device: DeviceResult, tmp_path: Path
) -> None:
    rows = class_rows(device)
    assert rows[2] == {
        "class": "red fox",
        "precision": "100.0",
        "recall": "90.0",
        "F1": "94.7",
        "samples": "10",
    }
    shown = classes_table(device)
    assert "red fox" in shown and "cat as dog 5x, red fox as cat 1x" in shown
    columns = classes_columns(device)
    assert len(columns["class"]) == 3 * len(device.front)
    result, *_ = make_job()
    page = tmp_path / "devices.html"
    write_devices_page(result.model_copy(update={"devices": [device]}), {}, page)
    assert "<td>red fox</td>" in page.read_text() and "predicted class" in page.read_text()
    path = write_png(confusion_chart(TABLE, "laptop", "abc"), tmp_path / "classes.png")
    assert num_pixels(path, COLORS[0]) > 1000


def test_without_classes_nothing_is_shown() -> None:
    device = make_job()[0].devices[0]
    assert classes_table(device) == "" and class_rows(device) == []
    assert device_classes(device) is None and classes_columns(device) == {}


def test_of_many_classes_the_worst_are_shown(device: DeviceResult) -> None:
    names = [f"class {i}" for i in range(60)]
    table = ClassTable.from_counts(names, [(i, i, i + 1) for i in range(60)] + [(7, 8, 9)])
    front = [point.model_copy(update={"test_classes": table}) for point in device.front]
    many = device.model_copy(update={"front": front})
    assert len(class_rows(many)) == MAX_CLASSES
    assert "the worst 20 of 60" in classes_table(many)
    assert device_classes(many) is None
