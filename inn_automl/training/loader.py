"""Reading and varying samples ahead of training, in processes of torch's `DataLoader`.

What a batch holds depends on seeds and positions only, never on which process made it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from inn_automl.training.transforms import SampleTransform

if TYPE_CHECKING:
    from inn_automl.tasks import StandardizedSamples

MAX_WORKERS = 16
THREADS_PER_WORKER = 4
"""Threads of a CPU that one loader keeps busy: a training step of a convolutional network takes
some 50 times as long as reading and cropping its images.
"""
AHEAD = 2
"""Batches that each worker holds ready."""
TRIM_EVERY = 32
"""Batches after which freed memory goes back to the system."""
_SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Wanted:
    """Samples of one batch."""

    indices: np.ndarray
    """(n,) positions in the split."""
    seed: int
    """Of the epoch."""
    first: int
    """Position in the epoch of the first sample; with the seed it decides how samples vary."""


@dataclass(frozen=True, eq=False)
class _Batches(Dataset[Tensor]):
    """Raw samples of wanted batches, varied."""

    source: Any
    positions: np.ndarray
    transform: SampleTransform | None

    def __getitem__(self, wanted: Wanted) -> Tensor:
        raw = torch.from_numpy(self.source[self.positions[wanted.indices]])
        if self.transform is None:
            return raw
        return self.transform(raw, sample_seeds(wanted))


class _Order(Sampler[Wanted]):
    """The batches of the next round, which may be replaced before each."""

    def __init__(self) -> None:
        self.wanted: Sequence[Wanted] = ()

    def __iter__(self) -> Iterator[Wanted]:
        return iter(self.wanted)

    def __len__(self) -> int:
        return len(self.wanted)


@dataclass(eq=False)
class BatchLoader:
    """Raw batches of a split, read ahead.

    Attributes:
        samples: the split.
        transform: how each sample varies; None to read as stored.
    """

    samples: StandardizedSamples
    transform: SampleTransform | None
    _order: _Order = field(default_factory=_Order)
    _loader: DataLoader[Tensor] | None = None

    def load(self, wanted: Sequence[Wanted]) -> Iterator[Tensor]:
        """The batches, on the samples' device: (n, C, ...) of the dataset's own type.

        One round ends before the next begins; a round may be left early.
        """
        self._order.wanted = wanted
        loader = self._loader or self._make(len(wanted[0].indices))
        self._loader = loader
        with warnings.catch_warnings():
            # Workers neither compute in several threads nor take locks that others may hold.
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
            batches = iter(loader)
        for number, batch in enumerate(batches, start=1):
            yield batch.to(self.samples.device, non_blocking=True)
            if number % TRIM_EVERY == 0:
                _trim_heap()

    def close(self) -> None:
        """Ends the workers."""
        self._loader = None

    def _make(self, batch_size: int) -> DataLoader[Tensor]:
        samples = self.samples
        if self.transform is not None:
            self.transform.prepare()
        num_bytes = batch_size * samples.raw(slice(0, 1)).nbytes
        num_workers = num_loader_workers(samples, num_bytes)
        is_forking = num_workers > 0 and sys.platform == "linux"
        return DataLoader(
            _Batches(samples.source, samples.positions, self.transform),
            batch_size=None,
            sampler=self._order,
            num_workers=num_workers,
            prefetch_factor=AHEAD if num_workers else None,
            persistent_workers=num_workers > 0,
            pin_memory=samples.device.type == "cuda",
            # Other ways to start would run the user's script again in each worker.
            multiprocessing_context="fork" if is_forking else None,
        )


def num_loader_workers(samples: StandardizedSamples, batch_bytes: int) -> int:
    """Processes that read and vary the batches; 0: the training process itself.

    Args:
        batch_bytes: of one batch, which goes through shared memory.
    """
    if multiprocessing.current_process().daemon:  # which must not have children
        return 0
    threads = torch.get_num_threads()
    if samples.device.type == "cuda":
        # One processor is the default of a budget, which would let a GPU wait.
        wanted = min(threads if threads > 1 else max(1, _num_cpus() - 1), MAX_WORKERS)
    elif samples.is_in_memory:
        return 0
    else:
        wanted = min(max(1, threads // THREADS_PER_WORKER), MAX_WORKERS)
    if os.path.isdir(_SHARED_MEMORY):
        free = shutil.disk_usage(_SHARED_MEMORY).free
        wanted = min(wanted, free // 2 // max(1, (AHEAD + 1) * batch_bytes))
    return wanted


def sample_seeds(wanted: Wanted) -> list[int]:
    """A seed for each sample of a batch, from the epoch's seed and its position."""
    return [
        int(np.random.SeedSequence((wanted.seed, wanted.first + i)).generate_state(1)[0])
        for i in range(len(wanted.indices))
    ]


def _trim_heap() -> None:
    """Gives memory that was freed back to the system.

    glibc before 2.38 does not use freed blocks again that torch had aligned, and a process that
    reads batches grows by gigabytes. https://sourceware.org/bugzilla/show_bug.cgi?id=14581
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
