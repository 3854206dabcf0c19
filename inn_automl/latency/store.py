"""Measurements that later jobs start from: cached by what was measured (a family's layers) and where
(the machine).

A predictor works on the figures of layers, not on weights, so what one job measured serves every
other job whose network has the same layers, however wide and trained. A machine changes, though
(another governor, another neighbour), so nothing is used before a few fresh measurements agree
with it: see `verify`.

One JSON file holds what is known of one architecture under one setting, for every machine. It is
written whole; of two jobs that end at the same moment the later one's rows remain, and no more is
lost than a shortcut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from inn_automl.core.precision import DEFAULT
from inn_automl.core.spec import DeviceBudget

MAX_ROWS, MAX_MACHINES, MAX_FILES = 72, 8, 64
"""Most networks cached of a machine, machines of an architecture, and architectures: 40 MB at the
very most.
"""

AGREES, MAX_SCALE, MAX_SPREAD = 0.05, 2.0, 0.1
"""Fresh measurements confirm cached ones when their median ratio is within 5 % of 1; up to a factor
of 2 the cached ones are rescaled, if the single ratios spread (median absolute deviation) by no more
than 10 % around it."""

_SETTINGS = ("runtime", "threads", "batch_size", "percentile")
_MACHINE = ("runtime", "runtime_version", "provider", "gpu", "cpu_model", "num_cores", "governor")


class Files(Protocol):
    """Where the files are: an `ObjectStore` is one."""

    def exists(self, path: str) -> bool: ...
    def read(self, path: str) -> bytes: ...
    def write(self, path: str, data: bytes) -> object: ...
    def files(self) -> Mapping[str, int]: ...
    def delete(self, path: str) -> None: ...


class LayerFigures(NamedTuple):
    """What `features.latency_features` reads of a layer."""

    macs: int
    params: int
    in_channels: int
    out_channels: int
    input_elements: int
    output_elements: int


@dataclass(frozen=True)
class CachedMeasurement:
    """A network that was measured, as its layers; `features.latency_features` takes it as costs."""

    layers: tuple[LayerFigures, ...]
    latency_ms: float


class _Layer(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def macs(self) -> int: ...
    @property
    def params(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def input_elements(self) -> int: ...
    @property
    def output_elements(self) -> int: ...


class _Costs(Protocol):
    @property
    def layers(self) -> Sequence[_Layer]: ...


@dataclass(frozen=True)
class Verdict:
    """What fresh measurements say of cached ones.

    Args:
        scale: what the cached latencies are to be multiplied by; None: they are of no use.
        sentence: the same for people.
    """

    scale: float | None
    sentence: str


def cached_measurement(costs: _Costs, latency_ms: float) -> CachedMeasurement:
    """A measured network as it is cached."""
    layers = (
        LayerFigures(*(getattr(layer, name) for name in LayerFigures._fields))
        for layer in costs.layers
    )
    return CachedMeasurement(tuple(layers), float(latency_ms))


def cache_key(
    device: DeviceBudget,
    family: str,
    input_shape: Sequence[int],
    costs: _Costs,
    precision: str = DEFAULT,
) -> dict[str, Any]:
    """What must be the same where cached rows are to serve: settings, and the layers apart from
    their channels.
    """
    return {
        **{name: getattr(device, name) for name in _SETTINGS},
        "precision": precision,
        "family": family,
        "input_shape": list(input_shape),
        "layers": [
            [
                layer.kind,
                layer.input_elements // layer.in_channels,
                layer.output_elements // layer.out_channels,
            ]
            for layer in costs.layers
        ],
    }


def machine_fingerprint(device: DeviceBudget, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a machine is recognized by, from what a measurement says of its environment."""
    return {
        "agent": device.agent,
        **{name: environment[name] for name in _MACHINE if name in environment},
    }


def verify(fresh_ms: ArrayLike, predicted_ms: ArrayLike) -> Verdict:
    """Compares fresh measurements (n,) with what a predictor of cached ones says of the same widths
    (n,).
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
    """Rows of earlier jobs.

    Methods raise StorageError where the files fail; a file that cannot be understood counts as
    missing.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def load(
        self, architecture: Mapping[str, Any], machine: Mapping[str, Any]
    ) -> list[CachedMeasurement]:
        """What is known of an architecture on a machine, oldest first."""
        return next(
            (rows for other, rows in self._read(architecture) if other == dict(machine)), []
        )

    def contains(self, architecture: Mapping[str, Any]) -> bool:
        """Whether anything is known of an architecture, on whatever machine."""
        return bool(self._read(architecture))

    def save(
        self,
        architecture: Mapping[str, Any],
        machine: Mapping[str, Any],
        rows: Sequence[CachedMeasurement],
        *,
        cached: Sequence[CachedMeasurement] = (),
    ) -> None:
        """Makes rows the newest ones that are known of an architecture on a machine.

        Args:
            cached: what stays of the earlier ones; newer rows of the same layers replace them.
        """
        rows = _spread([*{row.layers: row for row in [*cached, *rows]}.values()])
        others = [
            (other, known) for other, known in self._read(architecture) if other != dict(machine)
        ]
        machines = [*others, (dict(machine), rows)][-MAX_MACHINES:]
        path = _path(architecture)
        present = self._files.files()
        if path not in present and len(present) >= MAX_FILES:
            self._files.delete(min(present))  # names are hashes: as good as any
        value = {
            "architecture": dict(architecture),
            "machines": [
                {"machine": other, "rows": [[row.latency_ms, row.layers] for row in known]}
                for other, known in machines
            ],
        }
        self._files.write(path, json.dumps(value, separators=(",", ":")).encode())

    def _read(
        self, architecture: Mapping[str, Any]
    ) -> list[tuple[dict[str, Any], list[CachedMeasurement]]]:
        path = _path(architecture)
        if not self._files.exists(path):
            return []
        try:
            machines = json.loads(self._files.read(path))["machines"]
            return [(dict(one["machine"]), [_row(row) for row in one["rows"]]) for one in machines]
        except (ValueError, KeyError, TypeError):
            return []


def _spread(rows: list[CachedMeasurement]) -> list[CachedMeasurement]:
    """At most `MAX_ROWS`: of the two that are most alike the older one leaves, until no more are
    left.
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


def _path(architecture: Mapping[str, Any]) -> str:
    text = json.dumps(architecture, sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _row(value: Any) -> CachedMeasurement:
    latency_ms, layers = value
    if not 0 < float(latency_ms) < float("inf"):
        raise ValueError(f"latency {latency_ms!r}")
    return CachedMeasurement(
        tuple(LayerFigures(*(int(n) for n in layer)) for layer in layers), float(latency_ms)
    )
