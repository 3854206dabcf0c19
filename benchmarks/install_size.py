"""What `pip install inn-automl` puts on a device: `python -m benchmarks.install_size`.

Builds the wheel of this checkout, installs it without extras into a fresh virtual environment that
has no pip of its own, with the versions of `infra/constraints.txt`, and adds up the files of each
package by its own record.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.report import ROOT, Goal, Report, Table, add_report_options, conclude

MOST_BYTES = 150_000_000


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_report_options(parser)
    parser.add_argument(
        "--with",
        dest="requirement",
        help="one more requirement, or another version: openvino, onnxruntime==1.27.0",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        sizes = _install(Path(folder), options.requirement)
    report = Report(
        "install_size",
        "How much does the base install, which a device agent needs, put on a disk?",
        {"constraints": "infra/constraints.txt", "also": options.requirement},
    )
    source, compiled = (sum(pair[i] for pair in sizes.values()) for i in (0, 1))
    report.goals = [
        Goal(
            "installed without bytecode",
            "under 150 MB",
            f"{source / 1e6:.1f} MB",
            source < MOST_BYTES,
        ),
        Goal(
            "as pip does by itself",
            "under 150 MB",
            f"{(source + compiled) / 1e6:.1f} MB",
            source + compiled < MOST_BYTES,
        ),
    ]
    ordered = sorted(sizes.items(), key=lambda item: -sum(item[1]))
    rows = [
        (name, f"{a / 1e6:.1f}", f"{b / 1e6:.1f}") for name, (a, b) in ordered if a + b >= 100_000
    ]
    report.tables = [Table("By package, MB", ("package", "files", "bytecode"), rows)]
    report.notes = [
        "Sums of the files' sizes; 1 MB is a million bytes. Packages below 0.1 MB are left out of "
        "the table."
    ]
    report.raw = {"bytes": {name: list(pair) for name, pair in ordered}}
    return conclude(report, options)


def _install(folder: Path, requirement: str | None) -> dict[str, tuple[int, int]]:
    """Bytes of each package's files, and of the bytecode that pip compiles beside them."""
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    # From a copy: building leaves folders behind.
    source = folder / "source"
    source.mkdir()
    archive = subprocess.run(
        ["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    more = [requirement] if requirement else []
    pinned = (ROOT / "infra" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    asked = re.split(r"[^A-Za-z0-9._-]", requirement or " ")[0].lower()
    path = folder / "constraints.txt"
    path.write_text(
        "\n".join(line for line in pinned if line.lower().split("==")[0] != asked), encoding="utf-8"
    )
    constraints = ["-c", str(path)]
    subprocess.run(
        [*pip, "--python", str(python), "install", *constraints, str(source), *more], check=True
    )
    sizes = {}
    for distribution in metadata.distributions(
        path=[str(next((folder / "venv").glob("lib/*/site-packages")))]
    ):
        paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
        found = [(path.suffix == ".pyc", path.stat().st_size) for path in paths if path.is_file()]
        sizes[distribution.name] = (
            sum(size for is_compiled, size in found if not is_compiled),
            sum(size for is_compiled, size in found if is_compiled),
        )
    return sizes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
