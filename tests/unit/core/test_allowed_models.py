from __future__ import annotations

import pytest

from inn_automl.core.allowed_models import DEFAULT_ALLOWED, check_allowed
from inn_automl.core.errors import SpecError
from inn_automl.core.spec import JobSpec, parse


def spec(**changes: object) -> JobSpec:
    budget = {"devices": [{"name": "one"}]}
    return parse(JobSpec, {"dataset": "digits", "budget": budget, **changes}, where="the job")


@pytest.mark.parametrize("model", [None, "resnet", "timm:resnet18.a1_in1k", "torchvision:vgg11"])
@pytest.mark.parametrize("weights", [None, "auto", "none"])
def test_families_and_libraries_are_allowed(model: str | None, weights: str | None) -> None:
    check_allowed(spec(model=model, weights=weights), DEFAULT_ALLOWED)


def test_a_factory_is_allowed_by_its_name_or_a_pattern() -> None:
    check_allowed(spec(model="ours.nets:make"), ["ours.*"])
    with pytest.raises(SpecError, match=r"'ours\.nets:make' is not .* \(timm:\*, torchvision:\*\)"):
        check_allowed(spec(model="ours.nets:make"), DEFAULT_ALLOWED)
    with pytest.raises(SpecError, match="none but its own families"):
        check_allowed(spec(model="timm:resnet18"), ())


def test_weights_of_a_path_are_refused() -> None:
    with pytest.raises(SpecError, match="reads no files by path"):
        check_allowed(spec(weights="weights.pth"), DEFAULT_ALLOWED)
