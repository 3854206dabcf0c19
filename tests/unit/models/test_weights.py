"""Files of weights, and how their tensors are fitted to a network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inn_automl.core.errors import CorruptFileError, InputError
from inn_automl.core.result import WeightsOrigin
from inn_automl.models import build
from inn_automl.models.initial_weights import InitialWeights
from inn_automl.models.weight_fitting import FittedWeights, fit_weights
from inn_automl.models.weights import read_weights

MODEL = "timm:test_resnet"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """Of a network with 1000 classes, in its order."""
    torch.manual_seed(1)
    return build(MODEL, (3, 64, 64), 1000).state_dict()


def fit(given: dict[str, Tensor], *, channels: int = 3, classes: int = 5) -> FittedWeights:
    torch.manual_seed(2)
    module = build(MODEL, (channels, 64, 64), classes)
    return fit_weights(given, module, classes, what="the weights 'w.pth'", model=MODEL)


def test_all_but_the_head_is_taken(tensors: dict[str, Tensor]) -> None:
    fitted = fit(tensors)
    assert fitted.new == ("fc.weight", "fc.bias")
    assert torch.equal(fitted.tensors["conv1.0.weight"], tensors["conv1.0.weight"])
    assert fitted.notes == (
        "its head (fc.weight, fc.bias) is replaced by one of 5 (it had 1000 outputs)",
    )


def test_a_head_of_the_same_classes_is_kept(tensors: dict[str, Tensor]) -> None:
    fitted = fit(tensors, classes=1000)
    assert (fitted.new, fitted.notes) == ((), ())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(tensors: dict[str, Tensor], prefix: str) -> None:
    fitted = fit({prefix + name: tensor for name, tensor in tensors.items()})
    assert fitted.new == ("fc.weight", "fc.bias")
    assert fitted.notes[0] == f"the prefix {prefix!r} of its names is taken off"


def test_a_backbone_beside_another_head(tensors: dict[str, Tensor]) -> None:
    given = {f"backbone.{name}": one for name, one in tensors.items() if name[:3] != "fc."}
    fitted = fit({**given, "projector.weight": torch.zeros(4, 4)})
    assert fitted.new == ("fc.weight", "fc.bias")
    assert "1 tensors that it lacks are left out, as 'projector.weight'" in fitted.notes


def test_tensors_of_other_names_are_taken_in_order(tensors: dict[str, Tensor]) -> None:
    given = {
        f"part{index}.{name.rpartition('.')[2]}": one
        for index, (name, one) in enumerate(tensors.items())
        if not name.endswith("num_batches_tracked")
    }
    for channels in (3, 1):
        fitted = fit(given, channels=channels)
        assert fitted.new == ("fc.weight", "fc.bias")
        assert "taken in order" in fitted.notes[0]
        assert torch.equal(fitted.tensors["bn1.running_var"], tensors["bn1.running_var"])
    shuffled = dict(sorted(given.items(), key=lambda item: item[0].rpartition(".")[2]))
    with pytest.raises(InputError, match="another network"):
        fit(shuffled)


def test_grey_images_see_what_grey_colours_would(tensors: dict[str, Tensor]) -> None:
    fitted = fit(tensors, channels=1)
    weight = fitted.tensors["conv1.0.weight"]
    torch.testing.assert_close(weight, tensors["conv1.0.weight"].sum(1, keepdim=True))
    assert "takes 3 channels, and is adapted to 1" in fitted.notes[0]


def _another(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(build("timm:test_efficientnet", (3, 64, 64), 1000).state_dict())


def _without(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.replace("bn1.w", "bn_1.w"): one for name, one in tensors.items() if "fc" not in name
    }


def _wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "bn1.weight": torch.ones(7)}


def _deeper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "layer1.7.bn1.weight": torch.ones(7)}


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (_another, ["another network than model 'timm:test_resnet'", "tensors fit (", "Give"]),
        (_without, ["'bn1.weight' is missing (nearest: 'bn_1.weight')"]),
        (_wide, ["'bn1.weight' has shape (7,), not ("]),
        (_deeper, ["'layer1.7.bn1.weight' is unknown to the network", "(100% of its numbers)"]),
    ],
)
def test_weights_of_another_network_are_refused(
    tensors: dict[str, Tensor],
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    messages: list[str],
) -> None:
    with pytest.raises(InputError) as caught:
        fit(change(tensors), classes=1000)
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": {"ema": t}}]
)
def test_files_of_torch(
    tensors: dict[str, Tensor], tmp_path: Path, wrap: Callable[[Any], Any]
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(tensors), path)
    file = read_weights(path)
    assert list(file.tensors) == list(tensors)
    assert (file.licence, file.source, len(file.sha256)) == (None, None, 64)


def test_averaged_weights_come_first(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": {"a": torch.zeros(1)}, "ema": {"a": torch.ones(1)}}, path)
    assert read_weights(path).tensors["a"].item() == 1


def test_a_safetensors_file_may_say_its_licence(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2)}, path, {"license": "mit", "source": "https://example.org/w"})
    file = read_weights(path)
    assert (file.licence, file.source) == ("mit", "https://example.org/w")


class _Runs:
    """Would run a command where a file is read without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("false",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": _Runs()}, "holds more than tensors"),
        ([torch.ones(2)], "holds no tensors by name, but a list"),
        ({"epoch": 3}, "but the keys epoch"),
        ({"a": torch.tensor([1.0, torch.nan])}, "'a' in .* not finite"),
    ],
)
def test_files_without_plain_tensors_are_refused(
    tmp_path: Path, value: object, message: str
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(value, path)
    with pytest.raises(InputError, match=message):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files_that_are_damaged_or_missing_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(path)
    path.write_bytes(b"PK\x03\x04 anything")
    with pytest.raises(InputError, match=r"weights\."):
        read_weights(path)


def test_initial_weights_come_back_from_their_file(tmp_path: Path) -> None:
    origin = WeightsOrigin(source="here", licence="mit", sha256="0" * 64, notes=("a", "b"))
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    initial = InitialWeights({"weight": torch.ones(2, 3)}, ("bias",), origin)
    initial.save(tmp_path / "start.safetensors")
    found = InitialWeights.load(tmp_path / "start.safetensors")
    bias = module.bias.detach().clone()
    found.load_into(module)
    assert torch.equal(module.weight.detach(), torch.ones(2, 3))
    assert torch.equal(module.bias.detach(), bias)
    assert (found.new, found.origin) == (("bias",), origin)
    (tmp_path / "start.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptFileError, match="holds no initial weights"):
        InitialWeights.load(tmp_path / "start.safetensors")
