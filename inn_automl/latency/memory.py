"""Peak memory of a process that loads and runs one model: `python -m inn_automl.latency.memory`.

Reads a request and writes events as `child` says; the last one is

    {"event": "done", "idle_bytes": ..., "peak_bytes": ...}

Both are resident memory of the whole process: with the runtime imported and no model loaded, and
the highest since then. On Linux the kernel's own high-water mark is set back in between
(clear_refs, see proc(5)), so that what importing took at its highest does not hide what the model
takes. `ru_maxrss` of getrusage(2) would not do there: it begins at the parent's. Elsewhere it is
all there is. Memory of an accelerator is not in these numbers.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inn_automl import runtimes
from inn_automl.core.errors import MeasurementError
from inn_automl.latency import child


def highest_bytes() -> int | None:
    """Peak resident memory of this process so far; None if the platform does not report it."""
    try:
        for line in (
            Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        ):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource  # not on every platform
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_highest() -> None:
    """Resets the high-water mark to the memory that is resident now, if the kernel can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def serve(request: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> None:
    """Answers a request, which names one model.

    Raises:
        MeasurementError: the model cannot be loaded or run.
    """
    runtime = runtimes.create(request["runtime"], request["threads"])
    runtime.start()
    ((name, path),) = request["models"].items()
    emit({"event": "loading", "model": name})
    gc.collect()
    forget_highest()
    idle_bytes = highest_bytes()
    run = runtime.load(Path(path), request["batch_size"])
    try:
        for _ in range(request["num_runs"]):
            run()
    except Exception as error:  # whatever the runtime raises, it is this model that it cannot run
        reason = " ".join(str(error).split())
        raise MeasurementError(
            f"the runtime cannot run the model ({reason}): export it again."
        ) from None
    emit({"event": "done", "idle_bytes": idle_bytes, "peak_bytes": highest_bytes()})


if __name__ == "__main__":
    sys.exit(child.main(serve))
