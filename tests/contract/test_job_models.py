"""The models that the service trains: its families, those of libraries, and what is listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

CheckProblem = Callable[[httpx.Response, int, str], str]

DEVICE = {
    "name": "pi4",
    "description": {
        "agent_version": "1",
        "cpu": "A72",
        "num_cores": 4,
        "runtimes": {"onnxruntime-cpu": "1.24"},
    },
}


def submit(access: Any, **asked: str) -> httpx.Response:
    spec = {"dataset": "digits", "budget": {"devices": [{"name": "board"}]}, **asked}
    response: httpx.Response = access.user.post("/v1/jobs", json={"spec": spec})
    return response


@pytest.fixture(autouse=True)
def _device(access: Any) -> None:
    assert access.agent.post("/v1/devices", json=DEVICE).status_code == 201


@pytest.mark.parametrize("weights", ["auto", "none"])
def test_models_of_libraries_are_queued(access: Any, weights: str) -> None:
    made = submit(access, model="timm:resnet18", weights=weights)
    assert made.status_code == 201
    assert (made.json()["spec"]["model"], made.json()["spec"]["weights"]) == (
        "timm:resnet18",
        weights,
    )


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ({"model": "os:system"}, "is not one that this service trains (timm:*, torchvision:*)"),
        ({"model": "timm:resnet18", "weights": "/etc/passwd"}, "reads no files by path"),
        ({"dataset": "mnist1d", "model": "timm:resnet18"}, "takes images, not signals"),
    ],
)
def test_what_is_not_listed_is_refused(
    access: Any, check_problem: CheckProblem, asked: dict[str, str], detail: str
) -> None:
    assert detail in check_problem(submit(access, **asked), 422, "invalid_spec")
