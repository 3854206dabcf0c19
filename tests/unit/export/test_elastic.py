"""elastic.zip: written of bundles and a network, and read."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inn_automl.core.errors import CorruptFileError, InputError, StorageError
from inn_automl.export import read_bundle, read_elastic, write_elastic
from inn_automl.export.deduplication import SMALLEST_BYTES, WeightDeduplicator

from .conftest import POINTS, Front

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repack(path: Path, changes: dict[str, bytes | None], source: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members(source) | changes).items():
            if data is not None:
                archive.writestr(name, data)
    return path


@pytest.mark.parametrize("fixture", ["front", "width_conditioned_front"])
def test_every_weight_comes_back_bit_by_bit(fixture: str, request: pytest.FixtureRequest) -> None:
    front: Front = request.getfixturevalue(fixture)
    file = read_elastic(front.elastic)
    assert list(file.graphs) == list(POINTS)
    for name, bundle in front.bundles.items():
        model = onnx.load_from_string(members(bundle)["model.onnx"])
        found = file.weights(name)
        for initializer in model.graph.initializer:
            expected = numpy_helper.to_array(initializer)
            assert (initializer.name in found) == (expected.nbytes >= SMALLEST_BYTES)
            if initializer.name in found:
                np.testing.assert_array_equal(found[initializer.name], expected, strict=True)


def test_the_points_share_one_copy_of_the_weights(front: Front) -> None:
    file = read_elastic(front.elastic)
    # Others hold two halves that each begin at 0. `again` is `shared` under another name.
    for name, tensor in {
        "again.weight": "shared.weight",
        "stem.0.weight": "",
        "hidden.1.weight": "",
    }.items():
        slices = [file.slices[point][f"body.{name}"] for point in POINTS]
        assert {part.tensor for part in slices} == {tensor or name}
        assert (
            slices[0].shape
            < slices[1].shape
            < slices[2].shape
            == file.tensors[tensor or name].shape
        )
    # batch norm
    assert file.slices["a" * 12]["body.stem.0.weight"].scale == f"{'a' * 12}/stem.0.weight.scale"
    assert file.slices["a" * 12]["body.again.weight"].scale is None
    query = file.slices["b" * 12]["body.query.weight.T"]
    assert (
        query.transposed
        and query.tensor == "query.weight"
        and query.shape[0] < file.tensors["query.weight"].shape[0]
    )
    assert front.elastic.stat().st_size < 0.75 * sum(
        path.stat().st_size for path in front.bundles.values()
    )


def test_the_points_share_one_copy_of_weights_and_width_deltas(
    front: Front, width_conditioned_front: Front
) -> None:
    file, plain = read_elastic(width_conditioned_front.elastic), read_elastic(front.elastic)
    for in_graph, name in {
        "again.weight": "shared.weight",
        "hidden.1.weight": "hidden.1.weight",
    }.items():
        slices = [file.slices[point][f"body.{in_graph}"] for point in POINTS]
        assert {part.tensor for part in slices} == {name}
        assert [part.width_delta for part in slices] == [
            f"width_delta.{name}",
            f"width_delta.{name}",
            None,
        ]
        assert (
            1
            >= slices[0].width_coordinate
            > slices[1].width_coordinate
            > slices[2].width_coordinate
            == 0
        )
        assert (
            file.tensors[name].shape == file.tensors[f"width_delta.{name}"].shape == slices[2].shape
        )
    own = {
        part.tensor
        for point in file.slices.values()
        for part in point.values()
        if "/" in part.tensor
    }
    assert own == {
        part.tensor
        for point in plain.slices.values()
        for part in point.values()
        if "/" in part.tensor
    }


def test_what_is_no_block_of_the_network_is_kept_as_it_is(front: Front) -> None:
    model = members(front.bundles["b" * 12])["model.onnx"]
    strange = WeightDeduplicator({"body.head.weight": np.zeros((3, 10), np.float32)})
    _, slices = strange.add("b", model)
    assert slices and all(
        part.tensor == f"b/{name.removeprefix('body.').removesuffix('.T')}"
        for name, part in slices.items()
    )
    _, again = strange.add("second", model)
    assert again == slices  # equal tensors are kept once


def test_the_config_says_what_the_bundles_say(front: Front) -> None:
    config = read_elastic(front.elastic).config
    assert config.devices.keys() == {"laptop", "phone"}
    assert config.devices["phone"].environment == {"cpu": "phone"}
    for point, bundle in zip(config.points, front.bundles.values(), strict=True):
        expected = read_bundle(bundle)
        assert (point.id, point.widths, point.metric) == (
            expected.id,
            expected.widths,
            expected.metric,
        )
        assert point.latency == {
            name: evidence.latency_ms for name, evidence in expected.latency.items()
        }
        assert point.sha256 == expected.files["model.onnx"].sha256
        assert config.classes == expected.classes


def test_graphs_are_models_without_data(front: Front) -> None:
    for name, graph in read_elastic(front.elastic).graphs.items():
        model = onnx.load_from_string(graph)
        external = {
            i.name for i in model.graph.initializer if i.data_location == onnx.TensorProto.EXTERNAL
        }
        assert external == read_elastic(front.elastic).slices[name].keys()
        assert len(external) > 2 and not any(
            i.raw_data for i in model.graph.initializer if i.name in external
        )


def test_same_content_same_bytes(front: Front, tmp_path: Path) -> None:
    for name in ("first.zip", "second.zip"):
        write_elastic(tmp_path / name, list(front.bundles.values()), front.network, created_at=NOW)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_bundles_of_different_jobs_are_refused(front: Front, tmp_path: Path) -> None:
    first, second = list(front.bundles.values())[:2]
    content = members(second)
    config: dict[str, Any] = json.loads(content["config.json"])
    config["classes"] = ["x", "y", "z"]
    other = repack(tmp_path / "other.zip", {"config.json": json.dumps(config).encode()}, second)
    with pytest.raises(
        InputError, match="classes of the bundle bbbbbbbbbbbb is not that of aaaaaaaaaaaa"
    ):
        write_elastic(tmp_path / "elastic.zip", [first, other], front.network)
    with pytest.raises(InputError, match="no bundle"):
        write_elastic(tmp_path / "elastic.zip", [], front.network)
    with pytest.raises(StorageError, match="cannot be read"):
        write_elastic(tmp_path / "elastic.zip", [first], tmp_path)
    assert not (tmp_path / "elastic.zip").exists()


def test_a_damaged_file_is_refused(front: Front, tmp_path: Path) -> None:
    whole = members(front.elastic)
    graph = f"graphs/{'a' * 12}.onnx"
    flipped = bytes([whole["weights.safetensors"][-1] ^ 1])
    slices = json.loads(whole["slices.json"])
    changes: dict[str, tuple[dict[str, bytes | None], str]] = {
        "weights": (
            {"weights.safetensors": whole["weights.safetensors"][:-1] + flipped},
            "weights.safetensors does not have",
        ),
        "graph": ({graph: whole[graph] + b"x"}, "does not have the hash"),
        "missing": ({graph: None}, "members are not those"),
        "extra": ({"evil.pkl": b"x"}, "members are not those"),
        "config": ({"config.json": b"{}"}, "family"),
        "no config": ({"config.json": None}, "no config.json"),
        "slices": (
            {"slices.json": json.dumps(slices | {"d": {}}).encode()},
            "does not have the hash",
        ),
    }
    for number, (change, message) in enumerate(changes.values()):
        with pytest.raises(CorruptFileError, match=message):
            read_elastic(repack(tmp_path / f"{number}.zip", change, front.elastic))
    with pytest.raises(CorruptFileError, match="no whole elastic model"):
        read_elastic(front.bundles["a" * 12])
    (tmp_path / "text.zip").write_text("not a ZIP")
    with pytest.raises(CorruptFileError, match="download it again"):
        read_elastic(tmp_path / "text.zip")
    with pytest.raises(StorageError, match="cannot be read"):
        read_elastic(tmp_path / "none.zip")


@pytest.mark.parametrize(
    "part",
    [
        {"tensor": "none", "shape": [1]},
        {"tensor": "head.weight", "shape": [1]},
        {"tensor": "shared.weight", "shape": [99, 16, 3, 3]},
        {"tensor": "shared.weight", "shape": [-1, 16, 3, 3]},
        {"tensor": "shared.weight", "shape": [4, 4, 3, 3], "scale": "shared.weight"},
    ],
)
def test_parts_that_point_nowhere_are_refused(
    front: Front, tmp_path: Path, part: dict[str, Any]
) -> None:
    """Hashes that match say who wrote a file, not that it makes sense."""
    from inn_automl.export.archive import sha256

    whole = members(front.elastic)
    slices = json.loads(whole["slices.json"])
    slices["a" * 12]["body.shared.weight"] = part
    text = json.dumps(slices).encode()
    config = json.loads(whole["config.json"])
    config["files"]["slices.json"] = {"sha256": sha256(text), "size_bytes": len(text)}
    changes: dict[str, bytes | None] = {
        "slices.json": text,
        "config.json": json.dumps(config).encode(),
    }
    with pytest.raises(CorruptFileError, match=r"is no part of|does not scale"):
        read_elastic(repack(tmp_path / "wrong.zip", changes, front.elastic))
