"""Other work, for benchmarks that are about it: `python -m benchmarks.hog cpu|memory`.

It works and rests for random fractions of a second, as what else runs on a machine does, until it
is killed.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from benchmarks.report import ROOT

KINDS = ("cpu", "memory")
SHORTEST_S, LONGEST_S = 0.1, 1.0
_BUFFER_BYTES = 64 * 2**20


@contextmanager
def hogs(kinds: Sequence[str]) -> Iterator[None]:
    """One process of each kind, while the context lasts."""
    with ExitStack() as stack:
        for kind in kinds:
            process = subprocess.Popen([sys.executable, "-m", "benchmarks.hog", kind], cwd=ROOT)
            stack.callback(process.wait)
            stack.callback(process.kill)
        time.sleep(1.0 if kinds else 0.0)  # they import first
        yield


def main(kind: str) -> None:
    source, target = np.ones(_BUFFER_BYTES // 8), np.empty(_BUFFER_BYTES // 8)
    small = source[:2000]
    while True:
        end = time.monotonic() + random.uniform(SHORTEST_S, LONGEST_S)
        while time.monotonic() < end:
            if kind == "memory":
                np.copyto(target, source)
            else:
                for _ in range(100):
                    np.sqrt(small)
        time.sleep(random.uniform(SHORTEST_S, LONGEST_S))


if __name__ == "__main__":
    main(sys.argv[1])
