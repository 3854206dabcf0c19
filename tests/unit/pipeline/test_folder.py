"""A job's folder: whose it is, and which formats are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inn_automl.core.errors import JobDirectoryError, SpecError
from inn_automl.core.spec import JobSpec, parse
from inn_automl.pipeline.extending import FinishedJob
from inn_automl.pipeline.folder import FORMAT, claim_folder

SPEC = parse(
    JobSpec, {"dataset": "digits", "budget": {"devices": [{"name": "a"}]}}, where="the test's job"
)
METADATA = {"model": "mlp"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def old_folder(folder: Path, changes: dict[str, Any]) -> dict[str, bytes]:
    record = {"spec": {"dataset": "digits", "family": "mlp"}, "seconds": {}, **changes}
    (folder / "job.json").write_text(json.dumps(record))
    (folder / "result.json").write_text("{}")
    return contents(folder)


@pytest.mark.parametrize("changes", [{}, {"format": 1}, {"format": FORMAT + 1}, {"format": "2"}])
def test_a_folder_of_another_format_is_refused_and_stays_untouched(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    before = old_folder(tmp_path, changes)
    with pytest.raises(JobDirectoryError) as caught, claim_folder(tmp_path, SPEC, METADATA):
        pass
    with pytest.raises(JobDirectoryError):
        FinishedJob.read(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message and repr(changes.get("format")) in message
    assert f"format {FORMAT}" in message and "\n" not in message
    assert contents(tmp_path) == before


def test_a_folder_is_claimed_by_one_job_at_a_time(tmp_path: Path) -> None:
    with (
        claim_folder(tmp_path, SPEC, METADATA),
        pytest.raises(JobDirectoryError),
        claim_folder(tmp_path, SPEC, METADATA),
    ):
        pass
    with claim_folder(tmp_path, SPEC, METADATA):
        pass
    with pytest.raises(JobDirectoryError) as caught, claim_folder(tmp_path, SPEC, {"model": "vit"}):
        pass
    assert "'mlp'" in str(caught.value) and "'vit'" in str(caught.value)


def test_another_job_is_told_by_the_key_that_differs(tmp_path: Path) -> None:
    with claim_folder(tmp_path, SPEC, METADATA):
        pass
    devices = [{"name": "a", "max_size_bytes": 100}]
    other = parse(JobSpec, {"dataset": "digits", "budget": {"devices": devices}}, where="the job")
    with pytest.raises(JobDirectoryError) as caught, claim_folder(tmp_path, other, METADATA):
        pass
    assert "budget.devices.0.max_size_bytes was None, is 100" in str(caught.value)


def test_a_refused_job_leaves_its_folder_free(tmp_path: Path) -> None:
    with pytest.raises(SpecError), claim_folder(tmp_path, SPEC, METADATA):
        raise SpecError("the budget cannot be met.")
    with claim_folder(tmp_path, SPEC, {"model": "vit"}):
        (tmp_path / "training").mkdir()
    with pytest.raises(SpecError), claim_folder(tmp_path, SPEC, {"model": "vit"}):
        raise SpecError("refused after something was spent.")
    assert (tmp_path / "job.json").exists()
