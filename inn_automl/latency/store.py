"""Cache of measurements that later jobs start from.

A cost model is fitted on the figures of layers, not on weights. So what one job measured serves
every other job whose network has the same layers, however wide and trained. A machine changes,
though (another governor, another neighbour): cached measurements are used only if a few fresh ones
agree with them, see `verify`.

One JSON file holds what is known of one architecture under one setting, for every machine. It is
written whole. If two jobs end at the same moment, the rows of the later one remain; what is lost is
a shortcut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from inn_automl.core.costs import LayerCost
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.precision import DEFAULT
from inn_automl.core.spec import DeviceBudget

MAX_ROWS, MAX_MACHINES, MAX_FILES = 72, 8, 64
"""Limits of networks per machine, machines per architecture, and architectures: 40 MB in all."""

AGREES, MAX_SCALE, MAX_SPREAD = 0.05, 2.0, 0.1
"""Fresh measurements confirm cached ones if their median ratio is within 5 % of 1. Up to a factor
of 2 the cached ones are rescaled, if the single ratios spread around it (median absolute deviation)
by at most 10 %."""

_FIGURES = (
    "macs",
    "params",
    "in_channels",
    "out_channels",
    "input_elements",
    "output_elements",
)
"""Attributes of layers that differ between two networks of one architecture."""


@dataclass(frozen=True)
class CachedMeasurement:
    """A network that was measured: its layers and its latency."""

    layers: tuple[LayerCost, ...]
    latency_ms: float

    @property
    def figures(self) -> tuple[tuple[int, ...], ...]:
        """The figures of the layers, by which networks of one architecture differ."""
        return tuple(tuple(getattr(layer, name) for name in _FIGURES) for layer in self.layers)


@dataclass(frozen=True)
class MachineFingerprint:
    """Identity of a machine: measurements of another one do not count.

    All but `agent` are taken from the environment of a measurement; None for what it does not say.
    """

    agent: str | None = None
    runtime: str | None = None
    runtime_version: str | None = None
    provider: str | None = None
    gpu: str | None = None
    cpu_model: str | None = None
    num_cores: int | None = None
    governor: str | None = None

    @classmethod
    def from_environment(
        cls, device: DeviceBudget, environment: Mapping[str, Any]
    ) -> MachineFingerprint:
        """The fingerprint of the machine that a device was measured on."""
        names = [one.name for one in fields(cls) if one.name != "agent"]
        return cls(agent=device.agent, **{name: environment.get(name) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """Judgement of fresh measurements on cached ones.

    Args:
        scale: factor that the cached latencies are to be multiplied by; None if they are useless.
        sentence: the same for people.
    """

    scale: float | None
    sentence: str


def benchmark_settings(device: DeviceBudget) -> dict[str, Any]:
    """The settings of a device that its latencies depend on."""
    return {
        name: getattr(device, name) for name in ("runtime", "threads", "batch_size", "percentile")
    }


def cache_key(
    device: DeviceBudget,
    model: str,
    input_shape: Sequence[int],
    layers: Sequence[LayerCost],
    precision: str = DEFAULT,
) -> dict[str, Any]:
    """Key of cached measurements: settings, and layers apart from their widths.

    Args:
        model: name of the model family.
        input_shape: of one sample.
        layers: of the network at any widths.
    """
    return {
        **benchmark_settings(device),
        "precision": precision,
        "model": model,
        "input_shape": list(input_shape),
        "layers": [
            [
                layer.kind,
                layer.input_elements // layer.in_channels,
                layer.output_elements // layer.out_channels,
            ]
            for layer in layers
        ],
    }


def verify(fresh_ms: ArrayLike, predicted_ms: ArrayLike) -> Verdict:
    """Judges cached measurements by fresh ones.

    Args:
        fresh_ms: (n,), measured now.
        predicted_ms: (n,), of the same widths, by a cost model fitted on the cached measurements.
    """
    ratio = np.asarray(fresh_ms, dtype=np.float64) / np.asarray(predicted_ms, dtype=np.float64)
    scale = float(np.median(ratio))
    spread = float(np.median(np.abs(ratio / scale - 1)))
    figures = (
        f"{len(ratio)} fresh measurements took {scale:.2f} times as long, give or take {spread:.0%}"
    )
    if spread > MAX_SPREAD or not 1 / MAX_SCALE <= scale <= MAX_SCALE:
        return Verdict(None, f"measurements of earlier jobs are dropped ({figures})")
    if abs(scale - 1) <= AGREES:
        return Verdict(1.0, f"measurements of earlier jobs are used ({figures})")
    return Verdict(scale, f"measurements of earlier jobs are used, rescaled ({figures})")


class MeasurementCache:
    """Measurements of earlier jobs, by cache key and machine.

    Methods raise StorageError where the files fail. A file that cannot be understood counts as
    missing.
    """

    def __init__(self, files: ObjectStore) -> None:
        self._files = files

    def load(self, key: Mapping[str, Any], machine: MachineFingerprint) -> list[CachedMeasurement]:
        """The measurements of an architecture on a machine, oldest first."""
        return next((rows for other, rows in self._read(key) if other == machine), [])

    def contains(self, key: Mapping[str, Any]) -> bool:
        """Return whether any latency of an architecture is stored, of any machine."""
        return bool(self._read(key))

    def save(
        self,
        key: Mapping[str, Any],
        machine: MachineFingerprint,
        rows: Sequence[CachedMeasurement],
        *,
        cached: Sequence[CachedMeasurement] = (),
    ) -> None:
        """Adds the newest measurements of an architecture on a machine.

        Args:
            cached: the earlier ones that stay; newer rows of the same widths replace them.
        """
        rows = _spread([*{row.figures: row for row in [*cached, *rows]}.values()])
        others = [(other, known) for other, known in self._read(key) if other != machine]
        machines = [*others, (machine, rows)][-MAX_MACHINES:]
        path = _path(key)
        present = self._files.files()
        if path not in present and len(present) >= MAX_FILES:
            self._files.delete(min(present))  # names are hashes: as good as any
        value = {
            "key": dict(key),
            "machines": [
                {"machine": other.to_dict(), "measurements": measurements_to_json(known)}
                for other, known in machines
            ],
        }
        self._files.write(path, json.dumps(value, separators=(",", ":")).encode())

    def _read(
        self, key: Mapping[str, Any]
    ) -> list[tuple[MachineFingerprint, list[CachedMeasurement]]]:
        path = _path(key)
        if not self._files.exists(path):
            return []
        try:
            return [
                (MachineFingerprint(**one["machine"]), measurements_from_json(one["measurements"]))
                for one in json.loads(self._files.read(path))["machines"]
            ]
        except (ValueError, KeyError, TypeError):
            return []


def measurements_to_json(rows: Sequence[CachedMeasurement]) -> dict[str, Any]:
    """Measurements of one architecture; names and kinds of the layers are written once."""
    layers = [[layer.name, layer.kind] for layer in rows[0].layers] if rows else []
    return {"layers": layers, "rows": [[row.latency_ms, row.figures] for row in rows]}


def measurements_from_json(value: Mapping[str, Any]) -> list[CachedMeasurement]:
    """Reads what `measurements_to_json` made.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    rows = []
    for latency_ms, figures in value.get("rows", []):
        if not 0 < float(latency_ms) < float("inf"):
            raise ValueError(f"latency {latency_ms!r}")
        layers = (
            LayerCost(name, kind, *map(int, one))
            for (name, kind), one in zip(value["layers"], figures, strict=True)
        )
        rows.append(CachedMeasurement(tuple(layers), float(latency_ms)))
    return rows


def _spread(rows: list[CachedMeasurement]) -> list[CachedMeasurement]:
    """Keeps at most `MAX_ROWS`, spread over the widths.

    While there are more, the older one of the two most similar rows is removed.
    """
    points = np.log(
        [[layer.out_channels for layer in row.layers] + [row.layers[0].in_channels] for row in rows]
    )
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    distance[np.triu_indices(len(rows))] = np.inf  # each pair once, by its newer row
    left = np.ones(len(rows), dtype=bool)
    while left.sum() > MAX_ROWS:
        older = int(np.argmin(distance.min(axis=0)))
        left[older] = False
        distance[older, :] = distance[:, older] = np.inf
    return [row for row, is_left in zip(rows, left, strict=True) if is_left]


def _path(key: Mapping[str, Any]) -> str:
    text = json.dumps(key, sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
