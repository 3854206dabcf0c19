"""Memory of the coordinator while a dataset of 1 GiB is uploaded.

The content is a valid .npz file of images, uploaded as the client does it; the process that checks
it afterwards is not counted: it has its own limit. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.report import Goal, Report, add_report_options, conclude
from benchmarks.stack import coordinator

MAX_GROWTH_MIB = 64.0


def run(size_mib: int) -> Report:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset = make_dataset(folder / "large.npz", size_mib)
        digest = hashlib.sha256()
        with open(dataset, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        with (
            coordinator(f"sqlite:///{folder / 'c.db'}", folder) as server,
            server.client() as client,
        ):
            client.get("/datasets")  # what the first request loads is not the upload's
            process = psutil.Process(server.pid)
            before = process.memory_info().rss
            watched = Watched(process)
            started_at = time.monotonic()
            with open(dataset, "rb") as content:
                answer = client.put(
                    f"/datasets/content/{digest.hexdigest()}",
                    params={"name": "large", "filename": "large.npz"},
                    content=content,
                )
            seconds = time.monotonic() - started_at
            peak = watched.stop()
    if answer.status_code != httpx.codes.CREATED:
        raise SystemExit(f"the upload was answered {answer.status_code}: {answer.text}")
    growth = (peak - before) / 2**20
    report = Report(
        "upload",
        "How far the coordinator's memory grows while a dataset is uploaded.",
        {"size_mib": size_mib},
    )
    report.goals.append(
        Goal(
            "memory of the coordinator",
            f"grows by less than {MAX_GROWTH_MIB:g} MiB",
            f"{growth:.1f} MiB",
            growth < MAX_GROWTH_MIB,
        )
    )
    report.notes.append(
        f"Before: {before / 2**20:.0f} MiB resident. Uploaded, stored, checked in {seconds:.1f} s "
        f"({size_mib / seconds:.0f} MiB/s)."
    )
    report.raw.update(before_bytes=before, peak_bytes=peak, seconds=seconds)
    return report


def make_dataset(path: Path, size_mib: int) -> Path:
    """An .npz file of about `size_mib` MiB: 32 x 32 colour images of ten classes."""
    num_images = size_mib * 2**20 // (3 * 32 * 32)
    x = np.random.default_rng(0).integers(0, 256, (num_images, 3, 32, 32), np.uint8)
    np.savez(path, x=x, y=np.arange(num_images) % 10)
    return path


class Watched:
    """The largest resident memory that a process had since then."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._peak, self._running = process, 0, True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._running:
            self._peak = max(self._peak, self._process.memory_info().rss)
            time.sleep(0.02)

    def stop(self) -> int:
        self._running = False
        self._thread.join()
        return self._peak


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks upload", description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    add_report_options(parser)
    options = parser.parse_args(arguments)
    return conclude(run(options.size_mib), options)


if __name__ == "__main__":
    sys.exit(main())
