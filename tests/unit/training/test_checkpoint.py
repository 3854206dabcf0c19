from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.training import checkpoint as module
from inn_automl.training.checkpoint import (
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    prefixed,
    save_checkpoint,
    under,
)


def test_tensors_and_state_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "state.safetensors"
    shared = torch.randn(3, 4)
    tensors = {
        "a": shared,
        "tied": shared,
        "transposed": shared.t(),
        "half": torch.randn(2).bfloat16(),
        "count": torch.tensor(7),
        "layout": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    state = {"score": 0.1 + 0.2, "history": [{"epoch": 1, "name": "été"}], "none": None}
    save_checkpoint(path, tensors, state)
    loaded, loaded_state = load_checkpoint(path)
    assert loaded_state == state
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, {"a": torch.ones(2)}, {"epoch": 1})

    def full(tensors: Any, filename: Path, metadata: Any) -> None:
        filename.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(StorageError, match=r"state\.safetensors"):
        save_checkpoint(path, {"a": torch.zeros(2)}, {"epoch": 2})
    assert load_checkpoint(path)[1] == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    pickled, cut, foreign = tmp_path / "pickled", tmp_path / "cut", tmp_path / "foreign"
    torch.save({"a": torch.ones(2)}, pickled)
    save_checkpoint(cut, {"a": torch.ones(100)}, {})
    cut.write_bytes(cut.read_bytes()[:-10])
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, foreign)
    for path in (pickled, cut, foreign):
        with pytest.raises(CorruptFileError, match=path.name):
            load_checkpoint(path)


def test_prefixes_keep_names_apart() -> None:
    tensors = {**prefixed("best", {"w": torch.ones(1)}), **prefixed("best2", {"w": torch.zeros(1)})}
    assert under("best", tensors) == {"w": torch.ones(1)}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimizer_goes_on_as_if_never_saved(kind: str) -> None:
    def make(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        if kind == "sgd":
            return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(parameters, lr=0.1)

    def step(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        sum((p**2).sum() for p in parameters).backward()
        optimizer.step()

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last))
    first = {"conv.weight": weight, "bias": torch.nn.Parameter(torch.randn(4))}
    optimizer = make(list(first.values()))
    step(list(first.values()), optimizer)
    saved = {
        name: value.contiguous().clone()
        for name, value in optimizer_tensors(optimizer, first).items()
    }

    second = {name: torch.nn.Parameter(p.detach().clone()) for name, p in first.items()}
    resumed = make(list(second.values()))
    load_optimizer_tensors(resumed, second, saved)
    for state, parameter in zip(
        resumed.state_dict()["state"].values(), second.values(), strict=True
    ):
        assert all(
            v.stride() == parameter.stride() for v in state.values() if v.shape == parameter.shape
        )
    step(list(first.values()), optimizer)
    step(list(second.values()), resumed)
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name])
