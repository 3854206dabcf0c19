from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from inn_automl.reporting.charts import (
    front_chart,
    front_panels,
    fronts_chart,
    learning_curves_chart,
)
from inn_automl.reporting.charts.front_layers import RECOMMENDED
from inn_automl.reporting.figures import write_figures, write_png
from inn_automl.reporting.page import write_html
from inn_automl.reporting.series import COLORS, front_series
from tests.unit.reporting.drawn import num_pixels
from tests.unit.reporting.job_samples import make_job


def test_front_shows_its_line_and_its_recommended_point(tmp_path: Path) -> None:
    result, candidates, _ = make_job()
    device = result.devices[0]
    series = front_series(device, candidates[device.name])
    with_star = write_png(front_chart(series), tmp_path / "a.png")
    none = front_series(device.model_copy(update={"recommended": None}))
    without = write_png(front_chart(none), tmp_path / "b.png")
    assert num_pixels(with_star, COLORS[0]) > 1000
    assert num_pixels(with_star, RECOMMENDED) > 100
    assert num_pixels(without, RECOMMENDED) == 0


def test_each_device_has_a_panel_in_its_color(tmp_path: Path) -> None:
    devices = {f"device-{i}": {"threads": i, "max_latency_ms": 0.8} for i in range(1, 5)}
    result, candidates, _ = make_job(devices=devices, num_candidates=40)
    panels = front_panels([front_series(d, candidates[d.name]) for d in result.devices])
    path = write_png(panels, tmp_path / "fronts.png")
    assert all(num_pixels(path, color) > 500 for color in COLORS[:4])


def test_a_bound_beyond_the_front_and_a_front_of_one_point(tmp_path: Path) -> None:
    result, _, _ = make_job(
        devices={"fast": {"threads": 1, "max_latency_ms": 500.0}}, num_candidates=10, num_points=1
    )
    assert len(result.devices[0].front) == 1
    path = write_png(front_chart(front_series(result.devices[0])), tmp_path / "front.png")
    assert num_pixels(path, RECOMMENDED) > 100


def test_learning_curves_draw_every_width(tmp_path: Path) -> None:
    _, _, history = make_job(num_candidates=10)
    path = write_png(learning_curves_chart(history), tmp_path / "curves.png")
    assert all(num_pixels(path, color) > 100 for color in COLORS[:3])
    one = write_png(learning_curves_chart(history[:1]), tmp_path / "one.png")
    assert all(num_pixels(one, color) > 10 for color in COLORS[:3])


def test_drawing_needs_neither_torch_nor_a_plotting_state(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tests.unit.reporting.job_samples import make_job; "
        "from inn_automl.reporting.figures import write_figures; "
        "write_figures(make_job(num_candidates=10)[0], pathlib.Path(sys.argv[1])); "
        "assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules"
    )
    repository = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "figures")],
        cwd=repository,
        check=True,
    )


def test_html_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    result, _, _ = make_job()
    chart = fronts_chart([front_series(device) for device in result.devices])
    path = write_html(chart, tmp_path / "deep" / "fronts.html")
    html = path.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link)[^>]+(src|href)=", html)
    assert [p.name for p in path.parent.iterdir()] == ["fronts.html"]


def test_all_figures_of_a_job(tmp_path: Path) -> None:
    result, candidates, history = make_job(num_candidates=30, num_points=5)
    write_figures(result, tmp_path, candidates, history)
    names = ("front.html", "front.png", "layers.png", "parity.png")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "devices.html",
        "fronts.html",
        "fronts.png",
        "learning_curves.png",
        *(f"laptop-1-thread/{name}" for name in names),
        *(f"laptop-2-threads/{name}" for name in names),
    }


def test_a_job_that_measured_nothing_still_has_figures(tmp_path: Path) -> None:
    result, _, _ = make_job(num_candidates=10)
    empty = [
        device.model_copy(update={"front": [], "recommended": None}) for device in result.devices
    ]
    write_figures(result.model_copy(update={"devices": empty}), tmp_path)
    assert "no candidate was measured" in (tmp_path / "fronts.html").read_text(encoding="utf-8")
    assert not (tmp_path / "learning_curves.png").exists()
