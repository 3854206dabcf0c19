"""One lock on a file for processes that share a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inn_automl.core.errors import StorageError
from inn_automl.core.locking import file_lock

HOLD = """
import sys
from pathlib import Path
from inn_automl.core.locking import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    with file_lock(path), pytest.raises(TimeoutError), file_lock(path):
        pass
    with file_lock(path, timeout_s=None):
        pass


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(TimeoutError), file_lock(path):
            pass
        process.kill()
        process.wait()
    with file_lock(path):
        pass


def test_a_folder_that_is_a_file_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError), file_lock(tmp_path / "file" / "lock"):
        pass
