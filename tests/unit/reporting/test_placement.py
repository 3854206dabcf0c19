from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.reporting.placement import along_steps, free_spot

fraction = st.floats(0, 1)
SIZE = (0.3, 0.2)


@given(
    target=st.tuples(fraction, fraction),
    obstacles=st.lists(st.tuples(fraction, fraction, st.floats(0, 5)), max_size=30),
)
def test_label_stays_inside_and_never_covers_what_it_names(
    target: tuple[float, float], obstacles: list[tuple[float, float, float]]
) -> None:
    x, y = free_spot(SIZE, target, obstacles)
    assert SIZE[0] / 2 <= x <= 1 - SIZE[0] / 2 + 1e-9
    assert SIZE[1] / 2 <= y <= 1 - SIZE[1] / 2 + 1e-9
    assert abs(x - target[0]) > SIZE[0] / 2 or abs(y - target[1]) > SIZE[1] / 2


def test_label_leaves_a_line_free_and_stays_near() -> None:
    line = along_steps([(0.0, 0.1), (0.4, 0.5), (0.8, 0.9), (1.0, 0.9)])
    target = (0.4, 0.5)
    x, y = free_spot(SIZE, target, [(*spot, 3.0) for spot in line])
    assert not [
        spot for spot in line if abs(spot[0] - x) <= SIZE[0] / 2 and abs(spot[1] - y) <= SIZE[1] / 2
    ]
    assert abs(x - target[0]) + abs(y - target[1]) < 0.5


def test_steps_go_right_then_up() -> None:
    points = along_steps([(0.0, 0.0), (0.1, 0.1)], spacing=0.05)
    assert points == [pytest.approx(p) for p in [(0.0, 0.0), (0.05, 0.0), (0.1, 0.0), (0.1, 0.05)]]
