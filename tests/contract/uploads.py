"""Uploads to the service, and the files that it stores."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def put(
    access: Any,
    content: bytes,
    name: str = "waves",
    filename: str = "waves.npz",
    sha256: str | None = None,
) -> Any:
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    return access.user.put(
        f"/v1/datasets/content/{sha256}",
        params={"name": name, "filename": filename},
        content=content,
    )


def files(folder: Path) -> set[str]:
    """Files that were stored; not the lock of the folder for uploads under way."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
