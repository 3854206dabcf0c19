"""One translation for many widths."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from inn_automl.core.errors import VerificationError
from inn_automl.export import TOLERANCE, OnnxTemplate
from inn_automl.export.raw_model import RawInput
from inn_automl.export.template_matching import UnsupportedTemplateError, reconcile
from inn_automl.integral import IntegralNetwork
from inn_automl.models import FAMILIES, build
from tests.unit.export.networks import MEAN, SHAPE, STD, Averaging, Mixed, Small, randomize


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=st.integers(1, 20), b=st.integers(1, 12), c=st.integers(1, 20), seed=st.integers(0, 99))
def test_serves_any_widths(
    mixed_template: OnnxTemplate, tmp_path: Path, a: int, b: int, c: int, seed: int
) -> None:
    export = mixed_template.export(
        Mixed(a, b, c, seed), tmp_path / "model.onnx", widths={"a": a, "b": b, "c": c}
    )
    assert export.from_template
    assert export.difference <= TOLERANCE
    assert export.size_bytes == export.path.stat().st_size


def test_group_count_and_reshape_follow_the_widths(
    mixed_template: OnnxTemplate, tmp_path: Path
) -> None:
    export = mixed_template.export(Mixed(7, 5, 6), tmp_path / "model.onnx")
    graph = onnx.load(export.path).graph
    groups = [
        onnx.helper.get_node_attr_value(node, "group")
        for node in graph.node
        if node.op_type == "Conv"
    ]
    assert sorted(groups) == [1, 1, 1, 1, 1, 1, 1, 10]
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    assert weights["body.depthwise.0.weight"] == [10, 1, 3, 3]
    assert weights["body.hidden.1.weight"] == [6, 7 * 16]


def test_what_it_cannot_follow_is_named_and_translated_in_full(
    samples: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = OnnxTemplate.from_modules(
        Averaging(8), Averaging(4), input_shape=SHAPE, mean=MEAN, std=STD, samples=samples
    )
    assert template.why_not is not None
    assert "Constant() in" in template.why_not
    assert "changes with the widths" in template.why_not
    assert template.why_not in caplog.text
    export = template.export(Averaging(6), tmp_path / "model.onnx")
    assert not export.from_template
    assert export.difference <= TOLERANCE


def test_networks_of_other_operations_share_no_template(
    mixed_template: OnnxTemplate, small_template: OnnxTemplate
) -> None:
    raws = [RawInput(module, SHAPE, MEAN, STD) for module in (Mixed(5, 3, 4), Small(4))]
    with pytest.raises(
        UnsupportedTemplateError, match="the operations of the network change with its widths"
    ):
        reconcile(mixed_template.model.clone(), small_template.model.clone(), *raws)


def test_a_wrong_file_is_caught_and_translated_in_full(
    small_template: OnnxTemplate,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert small_template.why_not is None
    with caplog.at_level(logging.WARNING):
        export = small_template.export(Small(6, scale=1.5), tmp_path / "model.onnx")
    assert not export.from_template
    assert "differs from torch by" in caplog.text
    assert capfd.readouterr() == ("", "")  # the exporter says nothing of its own


def test_nothing_is_written_that_differs(
    small_template: OnnxTemplate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"as it was")
    template = copy.copy(small_template)
    template.tolerance = -1.0
    other = nn.Sequential(nn.Flatten(), nn.Linear(128, 3)).eval()
    with pytest.raises(
        VerificationError,
        match=r"differs from torch by \S+ where the largest output is \S+, a fraction",
    ):
        template.export(other, path)
    assert "full export" in caplog.text
    assert "other parameters" in caplog.text
    assert path.read_bytes() == b"as it was"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_serves_every_family(family: str, tmp_path: Path) -> None:
    shape = (1, 8, 8) if "image" in FAMILIES[family].kinds else (1, 24)
    torch.manual_seed(0)
    about = FAMILIES[family]
    scale = 2 if "super-resolution" in about.tasks else None
    module = build(
        family, shape, 4, width=0.5, depth=min(about.depths), task=about.tasks[0], scale=scale
    )
    randomize(module, 0)
    network = IntegralNetwork(module, torch.zeros(2, *shape))
    rng = np.random.default_rng(0)
    template = OnnxTemplate.from_modules(
        network.discretize(network.full_widths).eval(),
        network.discretize(network.smallest_widths).eval(),
        input_shape=shape,
        mean=np.array([3.0]),
        std=np.array([2.0]),
        samples=rng.normal(3, 2, (4, *shape)),
    )
    assert template.why_not is None
    for index in range(3):
        widths = {group.name: int(rng.choice(group.allowed)) for group in network.groups}
        export = template.export(
            network.discretize(widths).eval(), tmp_path / f"{index}.onnx", widths=widths
        )
        assert export.from_template
        operations = {node.op_type for node in onnx.load(export.path).graph.node}
        assert not operations & {"BatchNormalization", "Shape", "Identity", "Constant", "Concat"}
