"""The report on accuracy at seven widths: a table a task, comparisons paired by seed, goals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.intervals import Interval, mean_interval
from benchmarks.quality.arms import ARMS, OURS, RATIOS
from benchmarks.quality.plot import Curves
from benchmarks.quality.runs import NUM_SEARCHED, area, searched_volume
from benchmarks.quality.tasks import LARGE_TASKS
from benchmarks.report import Goal, Report, Table

AHEAD = {"usnet": 0.5, "separate": 0.0, "paper": 5.0}
"""Points that the mean over widths should be ahead by, on the mean of tasks."""

FRONT_FROM = 0.5
"""Smallest share of channels at which one plain training, converted, is to serve as well as a
sandwich.
"""

NOTES = (
    "All arms start from the same weights by seed and take the same steps with the same order, "
    "batch size, augmentation, optimizer, schedule, learning rate and clipping, but for what their "
    "line says; normalization statistics are re-estimated on 2,048 training samples for every "
    "module. Epochs, and which weights a width gets, were chosen on validation samples; the test "
    "samples were seen once a module. Seeds change weights, order and widths, not the split.",
    "The search that all arms with one model are put through: the seven widths and the same "
    f"{NUM_SEARCHED} with a width for each layer by itself; its front is chosen on validation, its "
    "hypervolume is that of test accuracy in % over the share of all MACs, from (1, 0 %). Seconds "
    "are processor time of one thread, or on a GPU those that passed.",
)

Outcomes = Sequence[dict[str, Any]]


def summarize(outcomes: Outcomes, settings: dict[str, Any]) -> Report:
    """Accuracy by task, arm and width; means, areas, seconds; and how far ours is ahead, paired by
    task and seed.
    """
    is_large = {task.name for task in LARGE_TASKS}.issuperset(_tasks(outcomes))
    report = Report(
        "quality-large" if is_large else "quality",
        f"Test accuracy in % of models at {', '.join(f'{ratio:g}' for ratio in RATIOS)} of all "
        f"channels.",
        {**settings, "trained_on": sorted({one["machine"] for one in outcomes})},
        raw={"runs": list(outcomes), "figures": figures(outcomes)},
    )
    report.tables += [_task_table(outcomes, task) for task in _tasks(outcomes)]
    for arm in dict.fromkeys(one["arm"] for one in outcomes):
        if arm != OURS and any(one["arm"] == OURS for one in outcomes):
            _compare(report, outcomes, arm)
    _judge_conversion(report, outcomes)
    for one in outcomes:
        for name, version in one["versions"].items():
            report.versions.setdefault(name, version)
    report.notes += [*_package_notes(outcomes), *_gain_notes(outcomes), *NOTES]
    return report


def _task_table(outcomes: Outcomes, task: str) -> Table:
    rows: list[tuple[Any, ...]] = []
    for arm, runs in _by_arm([one for one in outcomes if _task(one) == task]).items():
        by_width = (
            f"{statistics.fmean(run['test'][i] for run in runs):.2f}" for i in range(len(RATIOS))
        )
        mean = mean_interval([statistics.fmean(run["test"]) for run in runs])
        over_macs = f"{statistics.fmean(map(area, runs)):.2f}"
        volumes = [searched_volume(run) for run in runs if run["searched"]]
        searched = f"{statistics.fmean(volumes):.2f}" if volumes else ""
        seconds = f"{statistics.median(run['train_s'] for run in runs):.0f}"
        rows.append((arm, ARMS[arm].what, *by_width, mean, over_macs, searched, seconds))
    columns = (
        "arm",
        "what",
        *(f"{ratio:g}" for ratio in RATIOS),
        "mean over widths (95 % interval)",
        "mean over MACs",
        "hypervolume of the same search",
        "median s of training",
    )
    return Table(task, columns, rows)


def _package_notes(outcomes: Outcomes) -> list[str]:
    """By how much the MACs of torch-pruning's networks differ, where it was run."""
    pairs = [
        pair
        for task in _tasks(outcomes)
        for pair in _pairs(outcomes, "pruned", task, "torch-pruning")
    ]
    if not pairs:
        return []
    apart = max(abs(a / b - 1) for x, y in pairs for a, b in zip(x["macs"], y["macs"], strict=True))
    difference = (
        f"up to {100 * apart:.1f} % more or fewer MACs than" if apart else ("the very widths of")
    )
    return [
        "torch-pruning finds by itself which channels go together; its networks have "
        f"{difference} those of the other arms."
    ]


def _gain_notes(outcomes: Outcomes) -> list[str]:
    """The part that reconstructed weights have in our accuracy, where our arm was run."""
    gains = [
        statistics.fmean(one["test"]) - statistics.fmean(one["sampled"])
        for one in outcomes
        if one["arm"] == OURS
    ]
    if not gains:
        return []
    return [
        f"Of what {OURS!r} reaches, {mean_interval(gains)} points (mean of tasks and seeds) "
        "come from weights that are fitted where validation gains."
    ]


def _compare(report: Report, outcomes: Outcomes, arm: str) -> None:
    columns = ("task", "mean over widths", *(f"{ratio:g}" for ratio in RATIOS))
    rows: list[tuple[Any, ...]] = []
    means: list[Interval] = []
    for task in _tasks(outcomes):
        pairs = _pairs(outcomes, arm, task)
        if pairs:
            means.append(
                mean_interval(
                    [statistics.fmean(a["test"]) - statistics.fmean(b["test"]) for a, b in pairs]
                )
            )
            rows.append(
                (task, means[-1], *(f"{_ahead(pairs, i):+.2f}" for i in range(len(RATIOS))))
            )
    if not means:
        return
    by_width = [statistics.fmean(float(row[2 + i]) for row in rows) for i in range(len(RATIOS))]
    mean = statistics.fmean(one.mean for one in means)
    rows.append(("mean of tasks", f"{mean:+.2f}", *(f"{one:+.2f}" for one in by_width)))
    report.tables.append(
        Table(f"Points that {OURS!r} is ahead of {arm!r}, paired by seed", columns, rows)
    )
    if arm in AHEAD:
        behind = [
            row[0] for row, one in zip(rows, means, strict=False) if one.count > 1 and one.high < 0
        ]
        text = f"{mean:+.2f}" + (
            f"; behind on {', '.join(behind)}" if behind else "; nowhere significantly behind"
        )
        found = Goal(
            f"ahead of {arm}, mean of widths and tasks",
            f"at least {AHEAD[arm]:g} points",
            text,
            mean >= AHEAD[arm],
        )
        report.goals.append(replace(found, met=found.met and not behind))
    if arm == "separate":
        report.goals.append(
            Goal(
                "at least equal to separate training at every width, mean of tasks",
                "at least 0 points",
                f"{min(by_width):+.2f} at {RATIOS[by_width.index(min(by_width))]:g}",
                min(by_width) >= 0,
            )
        )
        seconds = _time_share(
            [pair for task in _tasks(outcomes) for pair in _pairs(outcomes, arm, task)]
        )
        found_text = f"{seconds:.2f} of it"
        report.goals.append(
            Goal(
                "training time beside separate training",
                "at most 1/3",
                found_text,
                seconds <= 1 / 3,
            )
        )


def _judge_conversion(report: Report, outcomes: Outcomes) -> None:
    """A whole front from one plain training, beside the sandwich-trained model."""
    kept = [i for i, ratio in enumerate(RATIOS) if ratio >= FRONT_FROM]
    pairs = {task: _pairs(outcomes, "usnet", task, "converted") for task in _tasks(outcomes)}
    ahead = [statistics.fmean(_ahead(of, i) for i in kept) for of in pairs.values() if of]
    if not ahead:
        return
    mean = statistics.fmean(ahead)
    both = [pair for of in pairs.values() for pair in of]
    seconds = sum(a["train_s"] for a, _ in both) / sum(b["train_s"] for _, b in both)
    report.goals.append(
        Goal(
            f"a whole front from one plain training: converted ahead of usnet, mean of widths from "
            f"{FRONT_FROM:g}",
            "at least 0 points ahead",
            f"{mean:+.2f} ({min(ahead):+.2f} to {max(ahead):+.2f} by task) in {seconds:.2f} of its "
            f"training time",
            mean >= 0,
        )
    )


def figures(outcomes: Outcomes) -> dict[str, Any]:
    """By task, arm and seed: accuracy by width, their mean, seconds of training."""
    found: dict[str, Any] = {}
    for one in outcomes:
        by_seed = found.setdefault(_task(one), {}).setdefault(one["arm"], {})
        by_seed[str(one["seed"])] = {
            "accuracy": dict(zip((f"{ratio:g}" for ratio in RATIOS), one["test"], strict=True)),
            "mean": statistics.fmean(one["test"]),
            "mean_over_macs": area(one),
            "searched_hypervolume": searched_volume(one) if one["searched"] else None,
            "train_s": one["train_s"],
        }
    return found


def _task(outcome: dict[str, Any]) -> str:
    return f"{outcome['task']['dataset']}, {outcome['task']['family']}"


def _tasks(outcomes: Outcomes) -> list[str]:
    return list(dict.fromkeys(map(_task, outcomes)))


def _by_arm(outcomes: Outcomes) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(outcomes, key=lambda one: int(one["seed"])):
        found.setdefault(one["arm"], []).append(one)
    return {arm: found[arm] for arm in ARMS if arm in found}


def _pairs(
    outcomes: Outcomes, arm: str, task: str, of: str = OURS
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    runs = {(one["arm"], one["seed"]): one for one in outcomes if _task(one) == task}
    return [
        (run, runs[arm, seed])
        for (own, seed), run in runs.items()
        if own == of and (arm, seed) in runs
    ]


def _ahead(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], index: int) -> float:
    return statistics.fmean(a["test"][index] - b["test"][index] for a, b in pairs)


def _time_share(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> float:
    """Of the training of the second of each pair, what that of the first took, all together."""
    return float(sum(a["train_s"] for a, _ in pairs) / sum(b["train_s"] for _, b in pairs))


def curves(outcomes: Outcomes) -> dict[str, Curves]:
    """Test accuracy by task, arm and seed, as the figure draws it."""
    return {
        task: {
            arm: [run["test"] for run in runs]
            for arm, runs in _by_arm([one for one in outcomes if _task(one) == task]).items()
        }
        for task in _tasks(outcomes)
    }
