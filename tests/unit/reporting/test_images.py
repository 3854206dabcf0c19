from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from inn_automl.reporting.images import write_front, write_fronts, write_learning_curves
from inn_automl.reporting.series import COLORS
from tests.unit.reporting.job_samples import make_job

STAR = "#facc15"


def num_pixels(path: Path, color: str) -> int:
    """Pixels of exactly this color: edges are blended, areas and thick lines are not."""
    pixels = np.round(255 * imread(path)[..., :3]).astype(int)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels == wanted).all(axis=-1).sum())


def test_front_shows_its_line_and_its_recommended_point(tmp_path: Path) -> None:
    result, candidates, _ = make_job()
    device = result.devices[0]
    with_star = write_front(device, tmp_path / "a.png", candidates[device.name])
    without = write_front(device.model_copy(update={"recommended": None}), tmp_path / "b.png")
    assert num_pixels(with_star, COLORS[0]) > 1000
    assert num_pixels(with_star, STAR) > 100
    assert num_pixels(without, STAR) == 0


def test_each_device_has_a_panel_in_its_color(tmp_path: Path) -> None:
    devices = {f"device-{i}": {"threads": i, "max_latency_ms": 0.8} for i in range(1, 5)}
    result, candidates, _ = make_job(devices=devices, num_candidates=40)
    path = write_fronts(result, tmp_path / "fronts.png", candidates)
    assert all(num_pixels(path, color) > 500 for color in COLORS[:4])


def test_a_bound_beyond_the_front_and_a_front_of_one_point(tmp_path: Path) -> None:
    result, _, _ = make_job(
        devices={"fast": {"threads": 1, "max_latency_ms": 500.0}}, num_candidates=10, num_points=1
    )
    assert len(result.devices[0].front) == 1
    assert num_pixels(write_front(result.devices[0], tmp_path / "front.png"), STAR) > 100


def test_learning_curves_draw_every_width(tmp_path: Path) -> None:
    _, _, history = make_job(num_candidates=10)
    path = write_learning_curves(history, tmp_path / "curves.png")
    assert all(num_pixels(path, color) > 100 for color in COLORS[:3])
    one = write_learning_curves(history[:1], tmp_path / "one.png")
    assert all(num_pixels(one, color) > 10 for color in COLORS[:3])


def test_no_plotting_state_of_the_process_is_touched(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tests.unit.reporting.job_samples import make_job; "
        "from inn_automl.reporting.images import write_front; "
        "write_front(make_job(num_candidates=10)[0].devices[0], pathlib.Path(sys.argv[1])); "
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    repository = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "x.png")],
        cwd=repository,
        check=True,
    )
