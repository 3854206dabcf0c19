"""Starts a process that measures, watches it, and explains in words why it failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from inn_automl.core.errors import MeasurementError

_POLL_S = 0.05

Event = dict[str, Any]


def run_timing(
    request: dict[str, Any], *, stalled_s: float, on_event: Callable[[Event], None]
) -> Event:
    """Runs a `timing` process; arguments, result and errors are those of `_run`."""
    return _run("inn_automl.latency.timing", request, stalled_s, on_event)


def run_memory(
    request: dict[str, Any], *, stalled_s: float, on_event: Callable[[Event], None]
) -> Event:
    """Runs a `memory` process; arguments, result and errors are those of `_run`."""
    return _run("inn_automl.latency.memory", request, stalled_s, on_event)


def _run(
    module: str, request: dict[str, Any], stalled_s: float, on_event: Callable[[Event], None]
) -> Event:
    """Gives a request to a fresh process and waits for its answer.

    The process writes to a file which is read now and then, and not to a pipe: a reader that woke
    up at each line would disturb what is being timed.

    Args:
        stalled_s: the process is killed if it reports nothing new for this long.
        on_event: called with the latest event, a few times a second.

    Returns:
        The `done` event.

    Raises:
        MeasurementError: a model cannot be loaded or run, or the process died or hung; names the
            model in hand.
    """
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(json.dumps(request).encode())
        stdin.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=_environment(),
        )
        try:
            stalled = not _watch(process, stdout, stalled_s, on_event)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        event = _last_event(stdout)
        if event.get("event") == "done":
            return event
        raise MeasurementError(
            _explain(event, process.returncode, stalled_s if stalled else None, _tail(stderr))
        )


def _environment() -> dict[str, str]:
    # The package may have been imported from a checkout that is not installed; what lies in the
    # current folder must not be imported in place of a library.
    paths = [
        str(Path(__file__).parents[2]),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def _watch(
    process: subprocess.Popen[bytes],
    stdout: IO[bytes],
    stalled_s: float,
    on_event: Callable[[Event], None],
) -> bool:
    """Waits for the end of the process; False if it stalled."""
    size, quiet_s, last = 0, 0.0, time.monotonic()
    while process.poll() is None:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            # A machine that was suspended has let time pass for which the process is not to blame.
            now = time.monotonic()
            quiet_s += min(now - last, 1.0)
            last = now
            if (new_size := os.fstat(stdout.fileno()).st_size) != size:
                size, quiet_s = new_size, 0.0
                on_event(_last_event(stdout))
            elif quiet_s > stalled_s:
                return False
    return True


def _last_event(stdout: IO[bytes]) -> Event:
    """The last whole line; an empty event if there is none yet."""
    size = os.fstat(stdout.fileno()).st_size
    length = 512
    while True:
        # `pread` leaves the offset alone, which the process shares and writes at.
        lines = os.pread(stdout.fileno(), length, max(0, size - length)).split(b"\n")
        if len(lines) > 2 or (length >= size and len(lines) == 2):
            event: Event = json.loads(lines[-2])
            return event
        if length >= size:
            return {}
        length *= 8


def _tail(stderr: IO[bytes]) -> str:
    """The last line that the process wrote to standard error."""
    size = os.fstat(stderr.fileno()).st_size
    lines = (
        os.pread(stderr.fileno(), 4096, max(0, size - 4096))
        .decode("utf-8", "replace")
        .strip()
        .splitlines()
    )
    return f" ({lines[-1].strip()})" if lines else ""


def _explain(event: Event, returncode: int, stalled_s: float | None, tail: str) -> str:
    model = event.get("model")
    if event.get("event") == "failed":
        return f"model {model!r} cannot be measured: {event['message']}"
    if model:
        start = f"model {model!r} cannot be measured: while {event['event']} it the process"
    else:
        start = "nothing can be measured: before the first model was loaded the process"
    if stalled_s is not None:
        return (
            f"{start} did nothing for {stalled_s:g} s{tail}: use a smaller model or batch, or "
            "allow more time."
        )
    if returncode == -signal.SIGKILL:
        return (
            f"{start} was killed{tail}, often for want of memory: free some, or use a smaller "
            "model or batch."
        )
    if returncode < 0:
        how = f"crashed with {signal.Signals(-returncode).name}"
    else:
        how = f"ended with exit code {returncode}"
    return (
        f"{start} {how}{tail}: check that the runtime is installed whole and runs this file by "
        "itself."
    )
