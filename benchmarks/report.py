"""What a benchmark found: figures, goals, and all that they depend on, as JSON and as Markdown."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from inn_automl.core.storage import write_atomically
from inn_automl.core.version import __version__
from inn_automl.runtimes.environment import describe_machine

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "reports"
SCRATCH = ROOT / "build" / "benchmarks"

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "onnx",
    "onnxruntime",
    "optuna",
    "ray",
    "mlflow",
    "mnist1d",
)


@dataclass(frozen=True)
class Goal:
    """A number to reach. `met` is None where it could not be judged, e.g. because the peer is not
    there.
    """

    what: str
    to_reach: str
    found: str
    met: bool | None


@dataclass(frozen=True)
class Table:
    """Rows of figures under a heading; cells are shown as they are."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass
class Report:
    """One run of one benchmark.

    Attributes:
        theme: first part of the file's name.
        question: one sentence, what is measured.
        settings: what was asked for, JSON-ready.
        notes: how the figures came about and what they do not say.
        raw: every single sample, JSON-ready; only in the JSON file.
        image: file of a figure that lies beside the report, and what it shows; none where empty.
    """

    theme: str
    question: str
    settings: dict[str, Any]
    goals: list[Goal] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    image: tuple[str, str] | tuple[()] = ()
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=describe_machine)
    measured_at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __post_init__(self) -> None:
        self.versions = {**installed_versions(), **self.versions}
        self.machine = {
            "load_average": [round(load, 2) for load in os.getloadavg()],
            **self.machine,
        }

    @property
    def name(self) -> str:
        """Theme, hardware and date."""
        return f"{self.theme}-{hardware_name(self.machine)}-{self.measured_at:%Y-%m-%d}"

    @property
    def all_met(self) -> bool:
        """Whether no goal was missed."""
        return not any(goal.met is False for goal in self.goals)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every figure and sample."""
        return {**asdict(self), "measured_at": self.measured_at.isoformat()}

    def to_markdown(self) -> str:
        """For people: goals, tables, notes, what it was measured on."""
        verdict = {True: "yes", False: "**no**", None: "not judged"}
        parts = [f"# {self.theme}, {self.measured_at:%Y-%m-%d}", self.question]
        if self.goals:
            rows = [
                (goal.what, goal.to_reach, goal.found, verdict[goal.met]) for goal in self.goals
            ]
            parts.append(_markdown_table(("what", "to reach", "found", "reached"), rows))
        if self.image:
            name, shown = self.image
            parts.append(f"![{shown}]({name})")
        for table in self.tables:
            parts += [f"## {table.title}", _markdown_table(table.columns, table.rows)]
        if self.notes:
            parts += ["## Notes", "\n".join(f"- {note}" for note in self.notes)]
        facts = {
            **self.settings,
            **self.machine,
            **self.versions,
            "measured_at": self.measured_at.isoformat(),
        }
        parts += [
            "## Settings, machine, versions",
            _markdown_table(("what", "value"), list(facts.items())),
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> Path:
        """Writes `name.json` and `name.md`; the path of the latter.

        Raises:
            StorageError: the folder cannot be written to.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        # Lists of numbers take a line each at an indent; samples are not read one by one.
        text = re.sub(
            r"\[\s+([-\d.,eE\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text
        )
        write_atomically(folder / f"{self.name}.json", text.encode() + b"\n")
        write_atomically(folder / f"{self.name}.md", self.to_markdown().encode())
        return folder / f"{self.name}.md"


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """`--keep` and `--json`."""
    parser.add_argument(
        "--keep", action="store_true", help=f"keep the report in {KEPT.relative_to(ROOT)}/"
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def folder_of(options: argparse.Namespace) -> Path:
    """Where a report is written, and what lies beside it."""
    return KEPT if options.keep else SCRATCH


def conclude(report: Report, options: argparse.Namespace) -> int:
    """Writes and prints a report; the exit code: 1 if a goal was missed."""
    path = report.write(folder_of(options))
    print(json.dumps(report.to_dict()) if options.json else report.to_markdown())
    print(f"written to {path.relative_to(ROOT)}", file=sys.stderr)
    return 0 if report.all_met else 1


def hardware_name(machine: dict[str, Any]) -> str:
    """The processor and its number of cores, fit for a file name."""
    model = re.sub(
        r"\(.*?\)|@.*|\b(cpu|processor|gen|\d+th)\b", " ", str(machine.get("cpu_model")).lower()
    )
    words = re.findall(r"[a-z0-9]+", model)
    return "-".join([*words, str(machine.get("num_cores")), "cores"])


def installed_versions() -> dict[str, str]:
    """Python, this package and its revision, and the packages that a figure may depend on."""
    versions = {"python": platform.python_version(), "inn_automl": __version__}
    revision = _revision()
    if revision:
        versions["revision"] = revision
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.strip() or None


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
