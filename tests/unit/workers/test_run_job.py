"""A run around the pipeline: datasets, the folder's lock, and what it says of its failures."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import threading
from pathlib import Path

import httpx
import pytest
from inn_automl_workers.artifacts import describe_file
from inn_automl_workers.dataset_cache import fetch_dataset
from inn_automl_workers.failures import failure_of
from inn_automl_workers.job_folder import wait_for_folder
from inn_automl_workers.reporter import Reporter

from inn_automl.core.errors import (
    BackendError,
    ConnectionLostError,
    CorruptFileError,
    ImpossibleBudgetError,
    StorageError,
    TrainingError,
)


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (ImpossibleBudgetError("x"), "impossible_budget", False),
        (TrainingError("x"), "training_failed", False),
        (BackendError("x"), "backend_failed", True),
        (ConnectionLostError("x"), "connection_lost", True),
        (StorageError("x"), "storage_failed", True),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_failed", True),
        (ZeroDivisionError("x"), "internal", True),
        (SystemExit(1), "internal", True),
    ],
)
def test_failures_say_whether_another_attempt_helps(
    error: BaseException, code: str, retryable: bool
):
    reporter = Reporter(
        "http://here", "job", "token", transport=httpx.MockTransport(lambda _: httpx.Response(200))
    )
    failure = failure_of(error, reporter)
    assert (failure.code, failure.retryable) == (code, retryable)
    assert failure.detail


def test_a_dataset_is_fetched_once_and_verified(tmp_path: Path):
    stored, cache = tmp_path / "store" / "data.npz", tmp_path / "cache"
    stored.parent.mkdir()
    stored.write_bytes(b"samples")
    sha256 = hashlib.sha256(b"samples").hexdigest()
    for _ in range(2):
        path = fetch_dataset(stored.as_uri(), sha256, "data.npz", cache)
        assert path == Path(sha256) / "data.npz" and (cache / path).read_bytes() == b"samples"
    stored.write_bytes(b"others")
    with pytest.raises(CorruptFileError, match="not what was uploaded"):
        fetch_dataset(stored.as_uri(), sha256, "data.npz", cache)


def test_a_run_waits_for_the_one_before_it(tmp_path: Path):
    with open(tmp_path / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BackendError, match="earlier run"):
            wait_for_folder(tmp_path, timeout_s=0.05)
        threading.Timer(0.1, lambda: fcntl.flock(held, fcntl.LOCK_UN)).start()
        wait_for_folder(tmp_path, timeout_s=30.0)


def test_artifacts_are_described(tmp_path: Path):
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "a.zip").write_bytes(b"zip")
    artifact = describe_file(tmp_path, tmp_path / "bundles" / "a.zip")
    assert (artifact.path, artifact.size_bytes) == ("bundles/a.zip", 3)
    assert artifact.sha256 == hashlib.sha256(b"zip").hexdigest()
    with pytest.raises(StorageError, match="cannot be read"):
        describe_file(tmp_path, tmp_path / "none")
