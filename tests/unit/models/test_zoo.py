"""The zoo: networks of timm, torchvision and users behind the interface of a family."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inn_automl.core.errors import InputError, SpecError, UnknownNameError
from inn_automl.models import build, get_family, serving_family
from inn_automl.models.zoo import hub, library_of
from inn_automl.models.zoo.library import check_runs, with_input_channels

TINY = "timm:test_resnet"


def little(num_outputs: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A user's factory."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_outputs),
    )


def broken(num_outputs: int, input_shape: tuple[int, ...]) -> nn.Module:
    raise KeyError("stem")


def no_module(num_outputs: int, input_shape: tuple[int, ...]) -> int:
    return num_outputs


NOT_CALLABLE = 3


@pytest.mark.parametrize(
    "name", [TINY, "torchvision:squeezenet1_1", "torchvision:googlenet", f"{__name__}:little"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_have_the_classes_and_channels_of_the_data(name: str, channels: int) -> None:
    module = build(name, (channels, 64, 64), 5).eval()
    check_runs(module, name, (channels, 64, 64), 5)
    family = get_family(name)
    assert (family.name, family.depths, family.width_multipliers) == (name, (1,), (1.0,))


def test_a_network_of_a_fixed_size_is_made_for_the_data_where_it_can_be() -> None:
    module = build("timm:test_vit", (3, 64, 96), 4).eval()
    check_runs(module, "timm:test_vit", (3, 64, 96), 4)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("timm:tf_eficientnet_lite0", UnknownNameError, "did you mean 'tf_efficientnet_lite0'"),
        ("timm:resnet18.a9_in1k", UnknownNameError, "did you mean 'resnet18.a"),
        ("torchvision:resnet17", UnknownNameError, "did you mean 'resnet18'"),
        ("torchvision:fasterrcnn_resnet50_fpn", UnknownNameError, "unknown model of torchvision"),
        ("no_such_package:make", SpecError, "cannot be imported here"),
        (f"{__name__}:littl", UnknownNameError, "did you mean 'little'"),
        (f"{__name__}:broken", SpecError, r"failed with KeyError \('stem'\)"),
        (f"{__name__}:no_module", SpecError, "returned int"),
        (f"{__name__}:NOT_CALLABLE", SpecError, "is of type int"),
    ],
)
def test_what_is_no_network_is_refused_by_name(
    name: str, error: type[SpecError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        build(name, (3, 64, 64), 5)
    assert len(str(caught.value)) < 700


def test_a_message_on_a_long_list_names_the_nearest_alone() -> None:
    with pytest.raises(UnknownNameError) as caught:
        get_family("timm:resnet19")
    assert "resnet18" in str(caught.value) and "vit_base" not in str(caught.value)


def test_data_that_a_network_does_not_take_are_refused() -> None:
    with pytest.raises(SpecError, match=r"does not take samples of shape \(1, 40\): use"):
        serving_family(TINY, "signal", (1, 40), 3)
    with pytest.raises(SpecError, match="does not serve super-resolution"):
        serving_family(TINY, "image", (3, 8, 8), 0, task="super-resolution", scale=2)
    with pytest.raises(SpecError, match="has one width"):
        build(TINY, (3, 64, 64), 5, width=0.5)
    with pytest.raises(SpecError, match="square images only"):
        build("torchvision:vit_b_16", (3, 64, 96), 5)
    alexnet = build("torchvision:alexnet", (3, 16, 16), 5)
    with pytest.raises(SpecError, match=r"does not run on samples of shape \(3, 16, 16\)"):
        check_runs(alexnet, "torchvision:alexnet", (3, 16, 16), 5)
    tiny = build(TINY, (3, 64, 64), 5)
    with pytest.raises(SpecError, match=r"gives \(2, 5\) for 2 samples .*, not \(2, 6\)"):
        check_runs(tiny, TINY, (3, 64, 64), 6)


def test_channels_of_what_has_no_plain_convolution_cannot_be_replaced() -> None:
    with pytest.raises(SpecError, match="has no convolution"):
        with_input_channels(nn.Linear(3, 2), 1)
    with pytest.raises(SpecError, match="grouped"):
        with_input_channels(nn.Conv2d(4, 4, 1, groups=4), 1)


def test_what_libraries_say_of_their_weights() -> None:
    library, name = library_of("timm:tf_efficientnet_lite0")
    config = library.config(name)
    assert config is not None
    assert (config.input_size, config.crop_fraction, config.mean) == ((224, 224), 0.875, (0.5,) * 3)
    assert (config.licence, config.is_fixed) == ("apache-2.0", False)
    assert config.source == "https://huggingface.co/timm/tf_efficientnet_lite0.in1k"
    library, name = library_of("torchvision:resnet18")
    config = library.config(name)
    assert config is not None
    assert (config.input_size, config.crop_fraction) == ((224, 224), 224 / 256)
    assert (config.licence, config.is_fixed) == ("BSD-3-Clause", False)
    assert "resnet18" in config.source
    library, name = library_of("torchvision:vit_b_16")
    config = library.config(name)
    assert config is not None and config.is_fixed


@pytest.mark.parametrize("name", ["timm:test_resnet.r160_in1k", "torchvision:squeezenet1_1"])
def test_weights_that_cannot_be_had_are_refused_with_a_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    hub.is_reachable.cache_clear()
    monkeypatch.setattr("inn_automl.models.zoo.timm_library._is_cached", lambda hub_id: False)
    monkeypatch.setattr("inn_automl.models.zoo.timm_library.is_reachable", lambda url: False)
    monkeypatch.setattr("inn_automl.models.zoo.torchvision_library.is_reachable", lambda url: False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    library, own_name = library_of(name)
    assert not library.has_weights(own_name)
    with pytest.raises(InputError, match=r"cannot be reached\. Give a file .* \(--weights none\)"):
        library.pretrained(own_name)


def test_weights_that_nobody_offers_are_refused() -> None:
    library, own_name = library_of(f"{__name__}:little")
    with pytest.raises(InputError, match="nothing offers weights"):
        library.pretrained(own_name)
    library, own_name = library_of("timm:efficientnet_b6")
    with pytest.raises(InputError, match="timm has no weights for model 'efficientnet_b6'"):
        library.pretrained(own_name)


def test_a_library_that_hands_out_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    library, own_name = library_of("timm:test_resnet.r160_in1k")
    torch.manual_seed(0)
    made = timm.create_model("test_resnet")
    monkeypatch.setattr("inn_automl.models.zoo.timm_library._is_cached", lambda hub_id: True)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: made)
    assert library.has_weights(own_name)
    assert library.pretrained(own_name).keys() == made.state_dict().keys()
    monkeypatch.setattr(timm, "create_model", _fail)
    with pytest.raises(InputError, match=r"gave none \(503 of the hub\)"):
        library.pretrained(own_name)


def _fail(name: str, pretrained: bool) -> nn.Module:
    raise OSError("503 of the hub")
