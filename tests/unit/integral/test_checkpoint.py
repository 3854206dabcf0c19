from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inn_automl.core.errors import CorruptFileError, ModuleError, StorageError
from inn_automl.integral import CellAverages, IntegralNetwork, Nested, Trainable, Uniform
from inn_automl.integral.graph.groups import Coupling
from tests.unit.integral.oracle import randomized
from tests.unit.integral.two_groups import X, make
from tests.unit.integral.zoo import conv, head


@pytest.mark.parametrize(
    "partition",
    [
        *(Nested(), Nested("van_der_corput"), Uniform(), CellAverages()),
        *({"c": Trainable(5)}, {"c": Trainable(5, has_factors=True)}),
    ],
    ids=str,
)
def test_saved_and_loaded_bit_for_bit(coupling: Coupling, partition: Any, tmp_path: Path) -> None:
    network = IntegralNetwork(make(), X, coupling=coupling, partition=partition, min_ratio=0.3)
    widths = {"a": 5, "c": 5}
    network.train()
    network(X, widths)
    for trainable in network.trainable_partitions.parameters():
        trainable.data.uniform_(0.5, 1)
    network.save(tmp_path / "new" / "folder")
    again = IntegralNetwork.load(tmp_path / "new" / "folder", randomized(make()))
    assert again.coupling == network.coupling
    assert again.min_ratio == 0.3
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert torch.equal(again.eval()(X, widths), network.eval()(X, widths))
    assert torch.equal(again.discretize(widths).eval()(X), network.discretize(widths).eval()(X))
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "control_points.safetensors",
        "network.json",
    ]
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "network.json").read_bytes() == (
        tmp_path / "new/folder/network.json"
    ).read_bytes()


def test_learned_partitions_on_disk_have_the_precision_of_the_module(tmp_path: Path) -> None:
    def make_double() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)).double()

    x = torch.randn(2, 3, dtype=torch.float64)
    network = IntegralNetwork(make_double(), x, partition=Trainable(5))
    network.get_parameter("trainable_partitions.0.delta").data.uniform_(0.5, 1)
    network.save(tmp_path)
    again = IntegralNetwork.load(tmp_path, make_double())
    assert torch.equal(again(x, {"0": 5}), network(x, {"0": 5}))


def test_tied_and_passing_tensors_on_disk(tmp_path: Path) -> None:
    def make_tied() -> nn.Module:
        module = nn.Sequential(conv(3, 8), conv(8, 8), nn.ReLU(), conv(8, 8), head(8))
        module[3].weight = module[1].weight
        module.register_buffer("passing", torch.ones(3), persistent=False)
        return module

    network = IntegralNetwork(make_tied(), X).eval()
    network.save(tmp_path)
    saved = load_file(tmp_path / "control_points.safetensors")
    assert "module.3.weight" not in saved
    assert "module.passing" not in saved
    again: Any = IntegralNetwork.load(tmp_path, make_tied())
    assert again.module[3].weight is again.module[1].weight
    assert torch.equal(again.eval()(X, {"0": 4}), network(X, {"0": 4}))


def test_a_folder_that_cannot_be_written(network: IntegralNetwork, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=str(tmp_path / "file")):
        network.save(tmp_path / "file")


def test_another_module_than_the_saved_one(network: IntegralNetwork, tmp_path: Path) -> None:
    network.save(tmp_path)
    with pytest.raises(ModuleError, match="is not the module that was traced"):
        IntegralNetwork.load(tmp_path, nn.Sequential(conv(3, 8), head(8)))


def edited(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "network.json").unlink(),
        lambda folder: (folder / "control_points.safetensors").unlink(),
        lambda folder: (folder / "network.json").write_text("{"),
        lambda folder: (folder / "network.json").write_text("[]"),
        lambda folder: (folder / "network.json").write_bytes(b"\xff"),
        lambda folder: (folder / "control_points.safetensors").write_bytes(b"\x80\x04K\x01."),
        lambda folder: edited(folder / "network.json", format_version=2),
        lambda folder: edited(folder / "network.json", partitions=[]),
        lambda folder: edited(folder / "network.json", partitions=[{"rule": "spline"}] * 2),
        lambda folder: edited(folder / "network.json", coupling={}),
        lambda folder: edited(folder / "network.json", min_ratio=None),
        lambda folder: save_file({}, folder / "control_points.safetensors"),
    ],
)
def test_damaged_files(network: IntegralNetwork, tmp_path: Path, spoil: Any) -> None:
    network.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(CorruptFileError):
        IntegralNetwork.load(tmp_path, make())
