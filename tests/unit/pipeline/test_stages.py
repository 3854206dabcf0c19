"""Every stage is a module with a function from the job's context and a record to a record."""

from __future__ import annotations

import dataclasses
import importlib
import inspect

import pytest

from inn_automl.core.stage import Stage
from inn_automl.pipeline import records

FUNCTIONS = {
    Stage.CHECKING: "check",
    Stage.TRAINING: "train",
    Stage.PROFILING: "profile",
    Stage.SEARCHING: "search",
    Stage.MEASURING: "measure",
    Stage.FINE_TUNING: "fine_tune",
    Stage.PUBLISHING: "publish",
}


def test_all_stages_have_functions() -> None:
    assert [Stage.STARTING, *FUNCTIONS] == list(Stage)


@pytest.mark.parametrize("stage", list(FUNCTIONS))
def test_a_stage_goes_from_record_to_record(stage: Stage) -> None:
    module = importlib.import_module(f"inn_automl.pipeline.{stage}")
    signature = inspect.signature(getattr(module, FUNCTIONS[stage]))
    context, given = signature.parameters.values()
    assert context.annotation == "JobContext"
    assert hasattr(records, given.annotation)
    assert hasattr(records, signature.return_annotation) or stage == Stage.PUBLISHING


def test_records_are_frozen() -> None:
    found = [one for one in vars(records).values() if dataclasses.is_dataclass(one)]
    assert len(found) >= 8
    for record in found:
        assert record.__dataclass_params__.frozen  # type: ignore[union-attr]
