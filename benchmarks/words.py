"""Spoken words by voices that training has not heard: a job, beside a plain network over log-mel
spectrograms.

Eight words, 1,760 recordings of one second by ten synthetic voices (`benchmarks.words_data`), 480
by three others as the test split. The job is the command `inn-automl run` with minutes of training;
no voice is both in its training and its validation split. Needs espeak-ng
(`apt-get install espeak-ng`). Finished jobs leave files in `--runs`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.plain_words import train_plain
from benchmarks.report import SCRATCH, Goal, Report, Table, add_report_options, conclude
from benchmarks.signal_jobs import MAX_EVALUATIONS, median_at, run_job, shown
from benchmarks.words_data import REPORTED, TUNING, write_words
from inn_automl.core.storage import read_json, write_json
from inn_automl.tasks.classification import wilson

WIDEST_TO_REACH, QUARTER_TO_REACH = 97.9, 96.0
RATIOS = (1.0, 0.5, 0.25)
VOICE = r"/([^/]+)-\d+\.wav$"
"""Finds the voice in the path of a recording."""


def plain(data: Path, folder: Path, *, epochs: int, seed: int) -> dict[str, Any]:
    """What the plain network reached, from its file where an earlier call has left it."""
    path = folder / f"plain-{epochs}-epochs-seed{seed}.json"
    if path.exists():
        found: dict[str, Any] = read_json(path)
        return found
    outcome = asdict(train_plain(data, epochs=epochs, seed=seed))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, outcome)
    return outcome


def summarize(
    outcomes: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]], settings: dict[str, Any]
) -> Report:
    report = Report(
        "words",
        "Accuracy on spoken words by voices that training has not heard, of a job and of a plain "
        "network over log-mel spectrograms.",
        settings,
        raw={"jobs": list(outcomes), "plain": list(peers)},
    )
    for what, ratio, to_reach in (
        ("at the widest", 1.0, WIDEST_TO_REACH),
        ("at a quarter of the widths", 0.25, QUARTER_TO_REACH),
    ):
        found = median_at(outcomes, ratio)
        report.goals.append(
            Goal(what, f"at least {to_reach} %", f"{found:.1f} %", found >= to_reach)
        )
    rows: list[tuple[Any, ...]] = [
        (
            one["seed"],
            *(shown(one, ratio) for ratio in RATIOS),
            one["at"]["1"]["params"],
            len(one["front"]),
            one["minutes"]["training"],
            one["minutes"]["job"],
            one["load_average"],
        )
        for one in outcomes
    ]
    columns = (
        "seed", "full width, %", "half, %", "a quarter, %", "parameters", "points of the front",
        "training, minutes", "job, minutes", "load",
    )  # fmt: skip
    title = "The job, on unseen voices, with 95 % intervals"
    report.tables.append(Table(title, columns, rows))
    rows = []
    for one in peers:
        low, high = wilson(round(one["accuracy"] * one["num_samples"]), one["num_samples"])
        accuracy = f"{100 * one['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        rows.append((accuracy, one["params"], one["epochs"], round(one["seconds"])))
    if peers:
        columns = ("accuracy, %", "parameters", "epochs", "seconds")
        report.tables.append(Table("The plain network", columns, rows))
        middle = 100 * statistics.median(one["accuracy"] for one in peers)
        report.notes.append(f"The plain network's median is {middle:.1f} %.")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks words", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training (default: 5)")
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1, 2], help="of jobs (default: 0 1 2)"
    )
    parser.add_argument(
        "--plain-epochs", type=int, default=25, help="of the plain network; 0 for none"
    )
    parser.add_argument(
        "--tuning", action="store_true", help="other words and voices, to choose settings by"
    )
    parser.add_argument(
        "--runs", type=Path, default=SCRATCH / "words", metavar="DIR", help="kept here"
    )
    parser.add_argument(
        "--evaluations", type=int, default=MAX_EVALUATIONS, help="of a search (default: 100)"
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    name = "tuning" if options.tuning else "reported"
    data, folder = SCRATCH / f"words-{name}", options.runs / name
    write_words(data, TUNING if options.tuning else REPORTED)
    peers = [
        plain(data, folder, epochs=options.plain_epochs, seed=seed)
        for seed in options.seeds
        if options.plain_epochs
    ]
    outcomes = [
        run_job(
            data,
            folder / f"seed{seed}",
            minutes=options.minutes,
            seed=seed,
            ratios=RATIOS,
            evaluations=options.evaluations,
            words=("--group-pattern", VOICE),
        )
        for seed in options.seeds
    ]
    settings = {
        "minutes": options.minutes,
        "seeds": options.seeds,
        "set": name,
        "evaluations": options.evaluations,
    }
    return conclude(summarize(outcomes, peers, settings), options)


if __name__ == "__main__":
    sys.exit(main())
