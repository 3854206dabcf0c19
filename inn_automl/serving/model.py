"""A model that resizes itself while it serves.

One continuous network is every width at once (K. Solodskikh et al., "Integral Neural Networks",
CVPR 2023), so that one device whose conditions change can be served by whichever width its moment
allows.
"""

from __future__ import annotations

import logging
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from inn_automl.core.errors import InputError, UnknownNameError
from inn_automl.export.elastic import ElasticConfig, ElasticPoint, read_elastic
from inn_automl.serving.choice import Choice, choose, latency_at
from inn_automl.serving.observations import Observations, Observed
from inn_automl.serving.sessions import MAX_BYTES, Sessions

logger = logging.getLogger(__name__)

CHECK_EVERY = 20
"""Runs after which an adapting model looks whether its point is still the right one."""


@dataclass(frozen=True)
class _Target:
    """A latency target of the application."""

    ms: float
    percentile: float
    adapt: bool


class ElasticModel:
    """The front points of a job on one device, one of which serves.

    Any number of threads may call `run`, and others change the point meanwhile: a run ends on the
    point that it began with, and never waits for a switch. Until a target or a point is set, the
    fastest point serves.

    Args:
        path: elastic.zip of a job.
        device: whose measured latencies decide; may be left out where the job had one device.
        threads: within an operator; by default those that the device's latencies were measured
            with.
        max_bytes: of memory, about, for points that are ready to serve. The fastest ones that fit
            are ready from the start, and a switch to them takes microseconds; a switch to another
            takes what loading it takes.

    Attributes:
        config: all that the file says of its points.
        device: as chosen.
        points: those that were measured on the device, the fastest first.

    Raises:
        InputError: no such device, or several and none was named; or no number of threads.
        StorageError: the file cannot be read.
        CorruptFileError: it is no elastic model, was changed since it was written, or cannot be
            run here.

    Example:
        >>> import numpy as np
        >>> from inn_automl import ElasticModel
        >>> model = ElasticModel("result/elastic.zip", device="laptop-1-thread")
        >>> choice = model.set_latency(5.0)
        >>> model.run(np.zeros((1, 1, 40), np.float32)).shape
        (1, 10)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str | None = None,
        threads: int | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        file = read_elastic(path)
        self.config: ElasticConfig = file.config
        self.device = _device(self.config, device)
        evidence = self.config.devices[self.device]
        if threads is not None and (
            isinstance(threads, bool) or not isinstance(threads, int) or threads < 1
        ):
            raise InputError(f"threads = {threads!r} is no number of threads: give 1 or more.")
        measured = [point for point in self.config.points if self.device in point.latency]
        self.points: tuple[ElasticPoint, ...] = tuple(
            sorted(measured, key=lambda point: point.latency[self.device].at_percentile)
        )
        self._by_id = {point.id: point for point in self.points}
        self._batch_size = evidence.batch_size
        self._observations = Observations(self._by_id)
        self._target: _Target | None = None
        self._choice: Choice | None = None
        self._switching = threading.Lock()  # held by who changes the point, never by who runs it
        self._sessions = Sessions(file, threads or evidence.threads, evidence.batch_size, max_bytes)
        self._sessions.prepare(self.points)
        self._serving = self._sessions.get(self.points[0])
        # starts with its first task
        self._background = ThreadPoolExecutor(1, thread_name_prefix="elastic-model")
        self._checking: Future[None] | None = None

    @property
    def point(self) -> ElasticPoint:
        """The one that serves now."""
        return self._serving.point

    @property
    def choice(self) -> Choice | None:
        """Latest choice under the target; None while a point is set by hand."""
        return self._choice

    @property
    def observed(self) -> dict[str, Observed]:
        """Latencies of each point's latest runs, by its id; only runs of as many samples as were
        measured count.
        """
        return self._observations.percentiles()

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits of samples, or what else the model predicts, in its own units.

        Args:
            x: `(N, *input_shape)`, raw values of the dataset; other types of numbers become
                float32.

        Returns:
            `(N, *config.output.shape)`, float32.

        Raises:
            InputError: an input of another shape, or not of numbers.
        """
        batch = self._checked(x)
        serving = self._serving  # read once: a switch from here on is the next run's
        start = perf_counter()
        output = serving.run(batch)
        latency_ms = 1e3 * (perf_counter() - start)
        if len(batch) == self._batch_size:
            num_runs = self._observations.add(serving.point.id, latency_ms)
            if num_runs % CHECK_EVERY == 0:
                self._check_later()
        return output

    def set_point(self, point: str) -> ElasticPoint:
        """Lets a point serve until something else is set.

        Raises:
            UnknownNameError: there is no such point on the device.
        """
        if point not in self._by_id:
            raise UnknownNameError("point", point, self._by_id, f"device {self.device!r}")
        with self._switching:
            self._target = self._choice = None
            self._serving = self._sessions.get(self._by_id[point])
            return self._serving.point

    def set_latency(
        self, ms: float, percentile: float | None = None, *, adapt: bool = False
    ) -> Choice:
        """Lets the most accurate point serve whose latency keeps a target; the fastest, if none
        does.

        Args:
            ms: most milliseconds for one run of as many samples as were measured.
            percentile: percentage of the runs that may take no longer: 50, 95, 99 or that of the
                device's budget, which is the default.
            adapt: whether the evidence is scaled by how the latest runs here compare with it, now
                and every CHECK_EVERY runs from then on, so that the target holds while conditions
                change.

        Returns:
            The point, whether it keeps the target, and what it is expected to take.

        Raises:
            InputError: no positive number of milliseconds, or a percentile that was not measured.
        """
        if (
            isinstance(ms, bool)
            or not isinstance(ms, int | float)
            or not math.isfinite(ms)
            or ms <= 0
        ):
            raise InputError(
                f"a latency target of {ms!r} ms cannot be met: give a positive number of "
                f"milliseconds."
            )
        summary = self.points[0].latency[self.device]
        percentile = summary.percentile if percentile is None else float(percentile)
        latency_at(summary, percentile)  # refuses one that was not measured
        with self._switching:
            self._target = _Target(float(ms), percentile, adapt)
            return self._follow(self._target)

    def slowdown(self, percentile: float | None = None) -> float:
        """Factor by which the latest runs were slower at a percentile than the evidence; 1 if
        there were too few.

        Raises:
            InputError: a percentile that was not measured.
        """
        summary = self.points[0].latency[self.device]
        chosen = summary.percentile if percentile is None else float(percentile)
        latency_at(summary, chosen)
        return self._observations.slowdown(
            chosen, lambda point: latency_at(self._by_id[point].latency[self.device], chosen)
        )

    def _follow(self, target: _Target, current: str | None = None) -> Choice:
        """Switches to what a target asks for; the lock is held."""
        slowdown = self.slowdown(target.percentile) if target.adapt else 1.0
        choice = choose(
            self.points,
            self.device,
            target.ms,
            target.percentile,
            slowdown=slowdown,
            current=current,
        )
        self._serving = self._sessions.get(choice.point)
        self._choice = choice
        return choice

    def _check_later(self) -> None:
        """Follows an adapting target in the background, so that no run waits for it."""
        target = self._target
        if (
            target is not None
            and target.adapt
            and (self._checking is None or self._checking.done())
        ):
            self._checking = self._background.submit(self._check)

    def _check(self) -> None:
        with self._switching:
            target = self._target
            if target is None or not target.adapt:  # set again meanwhile
                return
            try:
                self._follow(target, self._serving.point.id)
            except Exception:
                logger.exception(
                    "%s stays the point that serves, because no other could be loaded",
                    self.point.id,
                )

    def _checked(self, x: np.ndarray) -> np.ndarray:
        """The samples as the sessions take them."""
        try:
            batch = np.ascontiguousarray(x, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the input is not an array of numbers ({error}): give raw float32 values."
            ) from None
        shape = self.config.input.shape
        if batch.shape[1:] != shape or not len(batch):
            wanted = ", ".join(map(str, shape))
            raise InputError(
                f"the input has the shape {batch.shape}: give (N, {wanted}), N samples of which at "
                f"least one."
            )
        return batch


def _device(config: ElasticConfig, name: str | None) -> str:
    if name is None:
        if len(config.devices) != 1:
            names = ", ".join(sorted(config.devices)) or "none"
            raise InputError(
                f"the model was measured on several devices or on none: give one as device "
                f"({names})."
            )
        return next(iter(config.devices))
    if name not in config.devices:
        raise UnknownNameError("device", name, config.devices)
    return name
