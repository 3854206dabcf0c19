"""What a run reads from its environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from inn_automl_workers.settings import WorkerSettings

from inn_automl.core.errors import SpecError


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORAGE_URL", "SCRATCH", "CACHE", "ALLOWED_MODELS"):
        monkeypatch.delenv(f"INN_AUTOML_{name}", raising=False)
    monkeypatch.setenv("INN_AUTOML_COORDINATOR_URL", "http://here")
    monkeypatch.setenv("INN_AUTOML_JOB_ID", "job_1")
    monkeypatch.setenv("INN_AUTOML_LEASE_TOKEN", "secret")


def test_children_do_not_see_the_token() -> None:
    settings = WorkerSettings.from_environment()
    assert settings.lease_token == "secret" and "secret" not in repr(settings)
    assert "INN_AUTOML_LEASE_TOKEN" not in os.environ


def test_folders_and_storage_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = WorkerSettings.from_environment()
    assert (settings.storage_url, settings.scratch) == (None, None)
    assert settings.cache.name == f"inn-automl-cache-{os.getuid()}"
    monkeypatch.setenv("INN_AUTOML_LEASE_TOKEN", "secret")
    monkeypatch.setenv("INN_AUTOML_STORAGE_URL", "s3://bucket")
    monkeypatch.setenv("INN_AUTOML_SCRATCH", "/scratch")
    monkeypatch.setenv("INN_AUTOML_CACHE", "/cache")
    settings = WorkerSettings.from_environment()
    assert (settings.storage_url, settings.scratch, settings.cache) == (
        "s3://bucket",
        Path("/scratch"),
        Path("/cache"),
    )


def test_models_of_libraries_are_allowed_and_others_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert WorkerSettings.from_environment().allowed_models == ("timm:*", "torchvision:*")
    monkeypatch.setenv("INN_AUTOML_ALLOWED_MODELS", '["ours.nets:make"]')
    monkeypatch.setenv("INN_AUTOML_LEASE_TOKEN", "secret")
    assert WorkerSettings.from_environment().allowed_models == ("ours.nets:make",)
    monkeypatch.setenv("INN_AUTOML_ALLOWED_MODELS", "ours.nets:make")
    monkeypatch.setenv("INN_AUTOML_LEASE_TOKEN", "secret")
    with pytest.raises(SpecError, match="no JSON list of patterns"):
        WorkerSettings.from_environment()
