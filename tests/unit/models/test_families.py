from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inn_automl.core.errors import SpecError, UnknownNameError
from inn_automl.core.spec import FAMILY_KINDS, IMAGE_TO_IMAGE
from inn_automl.models import FAMILIES, build, default_family, get_family, serving_family
from inn_automl.models.resnet import resnet18_cifar
from inn_automl.models.signal import reductions

IMAGE_SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 48), (2, 1, 1), (1, 3, 40)]
SIGNAL_SHAPES = [(1, 40), (2, 9), (1, 1), (1, 16_000)]
CASES = [
    (name, shape)
    for name, family in FAMILIES.items()
    if "classification" in family.tasks
    for kind, shapes in (("image", IMAGE_SHAPES), ("signal", SIGNAL_SHAPES))
    if kind in family.kinds
    for shape in shapes
]


@pytest.mark.parametrize(("family", "shape"), CASES)
def test_logits_and_gradients_reach_every_parameter(family: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = build(family, shape, 5, width=0.25)
    logits = model(torch.randn(4, *shape))
    assert logits.shape == (4, 5)
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_listed_depth_and_width_builds_and_grows(name: str) -> None:
    family = FAMILIES[name]
    shape = (1, 16, 16) if "image" in family.kinds else (1, 64)
    assert family.default_depth in family.depths

    def count(width: float, depth: int) -> int:
        scale = 2 if family.tasks == ("super-resolution",) else None
        made = build(name, shape, 3, width=width, depth=depth, task=family.tasks[0], scale=scale)
        return sum(p.numel() for p in made.parameters())

    by_width = [count(width, family.depths[0]) for width in family.width_multipliers]
    by_depth = [count(0.25, depth) for depth in family.depths]
    assert by_width == sorted(set(by_width))
    assert by_depth == sorted(set(by_depth))


def test_reference_architectures() -> None:
    def channels(model: torch.nn.Module) -> list[int]:
        return [
            m.out_channels
            for m in model.modules()
            if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d)
        ]

    assert channels(build("convnet", (1, 28, 28), 10)) == [16, 32, 48, 64]
    assert channels(build("signal", (1, 40), 10)) == [32, 32, 64, 64]
    resnet20 = build("resnet", (3, 32, 32), 10, depth=20)
    assert (
        len(
            [
                c
                for c in resnet20.modules()
                if isinstance(c, torch.nn.Conv2d) and c.kernel_size == (3, 3)
            ]
        )
        == 19
    )


def test_a_network_of_time_series_is_that_of_the_paper_in_narrow() -> None:
    network = build("timeseries", (1, 128), 2)
    kernels = [m.kernel_size[0] for m in network.modules() if isinstance(m, torch.nn.Conv1d)]
    assert kernels == [9, 5, 3, 1] * 2
    # Long series are brought to 256 positions at most before the first block computes.
    long = build("timeseries", (1, 4000), 2)
    positions = []
    long.blocks[0].register_forward_hook(lambda _, __, y: positions.append(y.shape[2]))
    long(torch.zeros(2, 1, 4000))
    assert positions == [250]
    assert len([m for m in long.modules() if isinstance(m, torch.nn.MaxPool1d)]) == 1
    short = build("timeseries", (1, 64), 2)
    assert not [m for m in short.modules() if isinstance(m, torch.nn.MaxPool1d)]


def test_resnet18_has_eleven_million_parameters() -> None:
    model = resnet18_cifar(10)
    assert sum(p.numel() for p in model.parameters()) == 11_173_962


@given(length=st.integers(1, 200_000), depth=st.integers(2, 6))
@settings(deadline=None)
def test_a_signal_is_never_shortened_to_nothing(length: int, depth: int) -> None:
    stride, pools = reductions(length, depth)
    left = -(-length // stride)
    for pool in pools:
        left //= pool
    assert left >= min(length, 8)
    assert left <= 16
    assert len(pools) == depth


def test_the_default_family_fits_its_data() -> None:
    for shape in IMAGE_SHAPES:
        assert build(default_family("image", shape), shape, 2)(torch.zeros(2, *shape)).shape == (
            2,
            2,
        )
    assert default_family("signal", (1, 40)) == "signal"
    assert default_family("signal", (1, 64)) == "timeseries"
    with pytest.raises(UnknownNameError, match="image"):
        default_family("images", (1, 8, 8))


def test_an_unfit_family_names_those_that_fit() -> None:
    with pytest.raises(
        SpecError, match=r"'resnet'.*\(1, 40\).*mlp or spectrogram or timeseries or signal"
    ):
        build("resnet", (1, 40), 10)
    with pytest.raises(SpecError, match="convnet"):
        build("signal", (1, 8, 8), 10)
    with pytest.raises(SpecError, match="shape"):
        build("mlp", (40,), 10)


def test_bad_arguments_are_refused_with_the_remedy() -> None:
    with pytest.raises(UnknownNameError, match="convnet"):
        get_family("convnets")
    with pytest.raises(SpecError, match="8, 14, 20"):
        build("resnet", (1, 8, 8), 10, depth=9)
    with pytest.raises(SpecError, match="width"):
        build("mlp", (1, 8, 8), 10, width=0.0)
    with pytest.raises(SpecError, match="classes"):
        build("mlp", (1, 8, 8), 1)


def test_a_spec_is_checked_against_what_there_is() -> None:
    assert {name: family.kinds for name, family in FAMILIES.items()} == FAMILY_KINDS
    assert {
        name for name, family in FAMILIES.items() if "super-resolution" in family.tasks
    } == IMAGE_TO_IMAGE


def test_families_serve_regression_of_any_number_of_targets() -> None:
    for name, shape in (("mlp", (1, 8, 8)), ("convnet", (1, 8, 8)), ("signal", (1, 40))):
        assert build(name, shape, 1, task="regression")(torch.zeros(2, *shape)).shape == (2, 1)
    with pytest.raises(SpecError, match="give at least 1"):
        build("mlp", (1, 8, 8), 0, task="regression")


def test_a_family_that_does_not_serve_the_task_names_those_that_do() -> None:
    with pytest.raises(SpecError, match=r"'convnet' does not serve super-resolution: use edsr"):
        build("convnet", (1, 8, 8), 0, task="super-resolution", scale=2)
    with pytest.raises(
        SpecError, match=r"'edsr' does not serve classification: use mlp or convnet"
    ):
        build("edsr", (1, 8, 8), 10)
    with pytest.raises(SpecError, match=r"'signal' does not serve super-resolution: give images"):
        build("signal", (1, 40), 0, task="super-resolution", scale=2)
    with pytest.raises(SpecError, match=r"scale 1 enlarges nothing"):
        build("edsr", (1, 8, 8), 0, task="super-resolution", scale=1)
    assert default_family("image", (1, 64, 64), "super-resolution") == "edsr"


def test_the_family_that_serves_data_is_the_named_one_or_the_default() -> None:
    assert serving_family(None, "image", (1, 8, 8), 10) == "convnet"
    assert serving_family("mlp", "signal", (1, 40), 10) == "mlp"
    assert serving_family(None, "image", (1, 8, 8), 1, task="super-resolution", scale=2) == "edsr"
    with pytest.raises(UnknownNameError, match="convnet"):
        serving_family("convnets", "image", (1, 8, 8), 10)
    with pytest.raises(SpecError, match=r"'resnet'.*mlp or spectrogram or timeseries or signal"):
        serving_family("resnet", "signal", (1, 40), 10)
    with pytest.raises(SpecError, match="classes"):
        serving_family(None, "image", (1, 8, 8), 1)
