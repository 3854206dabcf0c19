"""Child side of the pipe between a process that measures and its parent (`isolation`).

It reads one JSON request from standard input and writes JSON lines to standard output: what it is
doing, before each step (so that a parent knows which model was in hand when the process died), and
at the end one `done` or `failed` line.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

from inn_automl.core.errors import MeasurementError

Emit = Callable[[dict[str, Any]], None]


def main(serve: Callable[[dict[str, Any], Emit], None]) -> int:
    """Has `serve` answer the request.

    A MeasurementError that it raises becomes the `failed` line.
    """
    _end_with_parent()
    # Standard output is for the protocol alone: whatever a runtime prints goes to standard error.
    channel: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    in_hand: dict[str, Any] = {}

    def emit(event: dict[str, Any]) -> None:
        in_hand.update(event)
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    try:
        serve(json.load(sys.stdin), emit)
    except MeasurementError as error:
        emit({"event": "failed", "model": in_hand.get("model"), "message": str(error)})
    return 0


def _end_with_parent() -> None:
    """Has the kernel kill this process when its parent is killed: nobody would read what it
    measures, and it would disturb the next measurement. Linux only (prctl(2), PR_SET_PDEATHSIG).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
