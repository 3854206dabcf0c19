"""`python -m benchmarks NAME ...` runs one benchmark; without a name, the quick ones with their
defaults.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

BENCHMARKS = {
    "discretize": "time to discretize a CIFAR ResNet-18, beside TorchIntegral",
    "training_step": "time of a training step at reduced widths, beside the plain discretized "
    "module",
    "quality": "accuracy at seven widths, beside US-Nets, separate networks, the paper's recipe, "
    "pruning (hours)",
    "conversion": "points lost by trained networks that are made narrower without training (10 "
    "minutes)",
    "ordering": "a path through 256 channels, beside TorchIntegral; what orders are worth (10 "
    "minutes)",
    "theory": "orders of convergence, aliasing, accuracy by partition; draws "
    "docs/explanation/theory-*.png (10 minutes)",
    "fine_tuning": "points that models gain by fine-tuning before export, by what is tuned (hours)",
    "photographs": "a job on photographs with a pretrained network, beside fine-tuning by hand "
    "(an hour)",
    "loading": "memory and throughput of reading 20 GiB of JPEGs, beside torch's loaders (an hour)",
    "budgets_kept": "finished jobs: the recommended bundles, measured again",
    "elastic": "time of an ElasticModel's switch, and requests lost meanwhile (a minute)",
    "search": "share of a known front that a search finds, beside Optuna; predicted latency (a "
    "quarter of an hour)",
    "precision": "int8 files beside fp32 ones at several widths: latency, accuracy, size (minutes)",
    "retest": "the same models measured again and again, alone and beside other work (minutes)",
    "words": "spoken words by unseen voices: a job beside a plain network (an hour)",
    "time_series": "series of the UCR archive with published accuracies (half an hour)",
    "demo": "time, memory and fronts of the demo (minutes)",
    "claim": "time to claim one of 100 and of 10,000 queued jobs in PostgreSQL (a minute)",
    "endpoints": "latency of list, show and front endpoints at 100 requests a second (a minute)",
    "heartbeats": "how many running jobs one coordinator process can hear (two minutes)",
    "upload": "memory of the coordinator while 1 GiB is uploaded",
    "fleet": "dispatching 100,000 jobs to 1,000 simulated workers (half an hour)",
    "install_size": "what the base install puts on a device's disk (a minute)",
    "service_cost": "what the service adds to a job, and the time to its first line (minutes)",
}
QUICK = ("discretize", "training_step")

USAGE = (
    "usage: python -m benchmarks [NAME [OPTION ...]]\n\n{}\n\n"
    "Without a name: {}.\nOptions of one: {}"
).format(
    "\n".join(f"  {name:14} {what}" for name, what in BENCHMARKS.items()),
    " and ".join(QUICK),
    "python -m benchmarks NAME --help",
)


def main(arguments: Sequence[str]) -> int:
    # Read when the numerical libraries are first loaded, which is later.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    name = arguments[0] if arguments else None
    if name is not None and name not in BENCHMARKS:
        print(
            f"there is no benchmark {name!r}: give one of {', '.join(BENCHMARKS)}.", file=sys.stderr
        )
        return 2
    codes = [
        importlib.import_module(f"benchmarks.{one}").main(list(arguments[1:]))
        for one in ([name] if name else QUICK)
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
