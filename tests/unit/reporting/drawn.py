"""What a chart or a picture holds, for tests to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def marks(chart: Any) -> Iterator[dict[str, Any]]:
    """Every layer of a chart, with its rows under `rows`."""
    spec = chart.to_dict()

    def walk(node: dict[str, Any], data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        data = node.get("data", data)
        for key in ("layer", "hconcat", "concat"):
            for child in node.get(key, ()):
                yield from walk(child, data)
        if "mark" in node:
            yield {**node, "rows": data.get("values") or spec["datasets"][data["name"]]}

    yield from walk(spec, {})


def mark(chart: Any, name: str) -> dict[str, Any]:
    (found,) = [layer for layer in marks(chart) if layer.get("name") == name]
    return found


def rows(chart: Any, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mark(chart, name)["rows"]
    return found


def num_pixels(path: Path, color: str) -> int:
    """Pixels of exactly this color: edges are blended, areas and thick lines are not."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels == wanted).all(axis=-1).sum())
