"""Loading a dataset that does not fit into memory: synthetic JPEGs, through the cache of shards and
the loaders of a training, beside torch's own `DataLoader` over the files.

Memory is the proportional set size of all processes of a part, with torch in them and without a
network. Each part runs in processes of its own. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo import memory_by_process
from benchmarks.report import SCRATCH, Goal, Report, Table, add_report_options, conclude
from benchmarks.shapes import draw_sample
from inn_automl.core.storage import read_json, write_json

GIB_IN_FULL, MAX_MEMORY_GIB, MIN_RATIO = 20.0, 2.0, 0.9
NUM_ORIGINALS, NUM_CLASSES, BATCH_SIZE = 200, 6, 64
SIDE_FACTOR = 1.5
"""Originals of 360 to 630 pixels: about 70 kB a file, as of a camera's small setting."""
PARTS = ("cache", "ours", "plain")
SMALL_SHARE = 0.25
"""Of the files, for a second look at the memory."""
SAMPLED_EVERY_S = 0.5


def write_jpegs(folder: Path, gib: float) -> int:
    """Writes files of `gib` GiB in all unless they are there; how many there are.

    They repeat some hundred images, each with a comment of its own: no two are the same file, and
    each is decoded as any other.
    """
    index = folder / "written.json"
    if index.exists():
        return int(read_json(index)["num_files"])
    originals = list(map(_original, range(NUM_ORIGINALS)))
    num_files, left = 0, gib * 2**30
    while left > 0:
        data = originals[num_files % NUM_ORIGINALS]
        comment = f"image {num_files:09d}".encode()
        marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        path = folder / "images" / f"class{num_files % NUM_CLASSES}"
        path = path / f"{num_files // NUM_CLASSES // 1000:04d}-{num_files:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:2] + marker + data[2:])
        num_files, left = num_files + 1, left - len(data)
    write_json(index, {"num_files": num_files})
    return num_files


def _original(index: int) -> bytes:
    image, _, quality = draw_sample("train", index, seed=9)
    image = image.convert("RGB").resize([round(SIDE_FACTOR * side) for side in image.size])
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def fill_cache(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Decodes every file once."""
    started_at = time.monotonic()
    dataset = _dataset(folder, options.size)
    seconds = time.monotonic() - started_at
    return {"samples_per_s": len(dataset.x) / seconds, "seconds": seconds}


def read_ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The batches of a training that crops and flips, from the cache."""
    import torch

    from inn_automl.tasks import Task
    from inn_automl.training.batches import BatchSampler
    from inn_automl.training.recipe import Recipe

    torch.set_num_threads(options.threads)
    dataset = _dataset(folder, options.size)
    recipe = Recipe(batch_size=BATCH_SIZE, augment=True, transforms=("resized_crop", "flip"))
    samples = Task.from_dataset(dataset).split("train")
    sampler = BatchSampler.from_recipe(samples, recipe, dataset.num_classes)

    def batches() -> Iterator[int]:
        for seed in range(10**6):
            for batch, _ in sampler.draw(seed, sampler.steps_per_epoch, is_paired=False):
                yield len(batch.x)

    return _throughput(batches(), options.seconds)


def read_plain(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Torch's loaders over the files, with Pillow and the same crops and flips."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2  # type: ignore[import-untyped]

    from benchmarks.plain_fine_tuning import SMALLEST_CROP, ImageFolder

    torch.set_num_threads(options.threads)
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(options.size, scale=(SMALLEST_CROP, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    loader = DataLoader(
        ImageFolder(folder / "images", transform),
        BATCH_SIZE,
        shuffle=True,
        num_workers=options.plain_workers,
        persistent_workers=True,
    )

    def batches() -> Iterator[int]:
        while True:
            for images, _ in loader:
                yield len(images)

    return _throughput(batches(), options.seconds)


def _dataset(folder: Path, size: int) -> Any:
    from inn_automl.core.data_options import DataOptions
    from inn_automl.data import load_dataset

    return load_dataset(folder / "images", options=DataOptions(input_size=(size, size)))


def _throughput(batches: Iterator[int], seconds: float) -> dict[str, Any]:
    """Samples a second, after the batches that fill the queues."""
    for _ in range(8):
        next(batches)
    num_samples, started_at = 0, time.monotonic()
    while time.monotonic() - started_at < seconds:
        num_samples += next(batches)
    took_s = time.monotonic() - started_at
    return {"samples_per_s": num_samples / took_s, "seconds": took_s}


class Peak:
    """The most memory that all processes below this one took together, in GiB."""

    def __init__(self) -> None:
        self.gib = 0.0
        self.by_process: dict[str, float] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(SAMPLED_EVERY_S):
                found = memory_by_process()
                if sum(found.values()) > self.gib:
                    self.gib, self.by_process = sum(found.values()), found

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def run_part(part: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One part in processes of its own: what it found, and the memory that it took."""
    command = [
        sys.executable, "-m", "benchmarks.loading", "--part", part, "--folder", str(folder),
        "--size", str(options.size), "--seconds", str(options.seconds),
        "--threads", str(options.threads), "--plain-workers", str(options.plain_workers),
    ]  # fmt: skip
    environment = {**os.environ, "INN_AUTOML_CACHE_DIR": str(folder / "cache")}
    peak = Peak()
    with peak.watched():
        ended = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return {**found, "peak_gib": peak.gib, "by_process": peak.by_process}


def run_parts(
    gib: float, repeats: int, parts: Sequence[str], options: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """The cache is filled once; what reads is repeated, in turns."""
    folder = options.folder / f"{gib:g}-gib"
    folder.mkdir(parents=True, exist_ok=True)
    num_files = write_jpegs(folder, gib)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in parts}
    for turn in range(repeats):
        for part in parts:
            if part == "cache" and turn:
                continue
            found[part].append({"files": num_files, **run_part(part, folder, options)})
            print(f"{gib:g} GiB, {part}: {found[part][-1]}", file=sys.stderr, flush=True)
    return found


def summarize(
    small: dict[str, list[dict[str, Any]]],
    found: dict[str, list[dict[str, Any]]],
    settings: dict[str, Any],
) -> Report:
    """
    Args:
        small: the same of `SMALL_SHARE` of the files: how memory grows with them.
    """
    report = Report(
        "loading",
        "Memory and throughput of reading a dataset on disk, beside torch's loaders.",
        {**settings, "files": found["cache"][0]["files"]},
        raw={"small": small, "found": found},
    )
    gib = settings["gib"]
    growth = {
        part: (_peak(found, part) - _peak(small, part)) / (gib * (1 - SMALL_SHARE))
        for part in ("cache", "ours")
    }
    peaks = {
        part: _peak(found, part) + max(0.0, slope) * max(0.0, GIB_IN_FULL - gib)
        for part, slope in growth.items()
    }
    peak = max(peaks.values())
    ratios = [
        ours["samples_per_s"] / plain["samples_per_s"]
        for ours, plain in zip(found["ours"], found["plain"], strict=True)
    ]
    ratio = float(np.median(ratios))
    report.goals += [
        Goal(
            f"memory of all processes at {GIB_IN_FULL:g} GiB, without a network",
            f"at most {MAX_MEMORY_GIB:g} GiB",
            f"{peak:.2f} GiB",
            peak <= MAX_MEMORY_GIB,
        ),
        Goal(
            "samples a second, beside torch's loaders",
            f"at least {MIN_RATIO:g} of theirs",
            f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ratio >= MIN_RATIO,
        ),
    ]
    report.tables.append(_table(small, found, peaks, gib))
    filling_s = found["cache"][0]["seconds"] * GIB_IN_FULL / gib
    report.notes += [
        f"Decoding {GIB_IN_FULL:g} GiB once takes {filling_s / 60:.0f} minutes at this speed.",
        "Memory in GiB, with the 0.3 GiB or so of torch in it; pages that the system keeps of "
        "files it has read are not counted.",
    ]
    return report


def _table(
    small: dict[str, list[dict[str, Any]]],
    found: dict[str, list[dict[str, Any]]],
    peaks: dict[str, float],
    gib: float,
) -> Table:
    rows = [
        (
            {"cache": "decoding into the cache, once", "ours": "training batches from the cache",
             "plain": "torch's loaders over the files"}[part],
            f"{np.median([one['samples_per_s'] for one in found[part]]):.0f}",
            f"{_peak(small, part):.2f}" if part in small else "",
            f"{_peak(found, part):.2f}",
            f"{peaks[part]:.2f}" if part in peaks else "",
        )
        for part in PARTS
    ]  # fmt: skip
    columns = (
        "part",
        "samples a second",
        f"memory at {gib * SMALL_SHARE:g} GiB",
        f"at {gib:g} GiB",
        f"at {GIB_IN_FULL:g} GiB, on a line through both",
    )
    return Table("Parts", columns, rows)


def _peak(found: dict[str, list[dict[str, Any]]], part: str) -> float:
    return max(float(one["peak_gib"]) for one in found[part])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks loading", description=__doc__)
    parser.add_argument(
        "--gib", type=float, default=GIB_IN_FULL, help="of JPEGs (default: %(default)g)"
    )
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="of the network")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each reading")
    parser.add_argument("--repeats", type=int, default=3, help="of the readings, in turns")
    parser.add_argument("--threads", type=int, default=2, help="of the training")
    parser.add_argument("--plain-workers", type=int, default=2, help="of torch's loaders")
    parser.add_argument("--folder", type=Path, default=SCRATCH / "loading", metavar="DIR")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    add_report_options(parser)
    options = parser.parse_args(arguments)
    if options.part:
        work = {"cache": fill_cache, "ours": read_ours, "plain": read_plain}[options.part]
        print(json.dumps(work(options.folder, options)))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    free_gib = shutil.disk_usage(options.folder).free / 2**30
    if free_gib < 3 * options.gib:
        parser.error(
            f"{options.folder} has {free_gib:.0f} GiB left, and JPEGs and cache take up to "
            f"{3 * options.gib:g}: free some, or give a smaller --gib."
        )
    small = run_parts(options.gib * SMALL_SHARE, 1, ("cache", "ours"), options)
    found = run_parts(options.gib, options.repeats, PARTS, options)
    settings = {
        name: getattr(options, name)
        for name in ("gib", "size", "seconds", "repeats", "threads", "plain_workers")
    }
    return conclude(summarize(small, found, settings), options)


if __name__ == "__main__":
    sys.exit(main())
