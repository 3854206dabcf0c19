"""Backends by name: what trains and evaluates, from the entry points `inn_automl.backends`.

Nothing is imported before it is requested by its name.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from inn_automl.core.errors import UnknownNameError

if TYPE_CHECKING:
    from inn_automl.core.spec import TrainingBudget
    from inn_automl.pipeline.backend import Backend

GROUP = "inn_automl.backends"


def check_backend(name: str) -> None:
    """Checks that a backend of that name is installed.

    Raises:
        UnknownNameError: it is not.
    """
    known = entry_points(group=GROUP).names
    if name not in known:
        raise UnknownNameError("backend", name, known)


def make_backend(name: str, budget: TrainingBudget, address: str | None = None) -> Backend:
    """Makes the backend of that name, with the processors of the budget.

    Args:
        name: of an entry point.
        budget: its `cpus` and `gpus` are the backend's.
        address: a Ray cluster to join; None to start one here.

    Raises:
        UnknownNameError: no such backend is installed.
        BackendError: the backend cannot be used here.
    """
    check_backend(name)
    entry_point = next(iter(entry_points(group=GROUP, name=name)))
    with _sigterm_restored():
        backend: Backend = entry_point.load()(cpus=budget.cpus, gpus=budget.gpus, address=address)
    return backend


@contextmanager
def _sigterm_restored() -> Iterator[None]:
    """Puts the caller's SIGTERM handler back: `ray.init` installs its own, which aborts."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if is_main and before is not None:
            signal.signal(signal.SIGTERM, before)
