"""Manifests, TAR archives, WebDataset shards, Parquet and Arrow files: one dataset in each."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetError, DatasetFormatError, UnsafeArchiveError
from inn_automl.core.home import CACHE_DIR_VARIABLE
from inn_automl.data import Dataset, limits, load_dataset

COUNT = 12
LABELS = ["cat" if i % 2 else "dog" for i in range(COUNT)]
SPLITS = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
FEATURES = {
    "picture": {"_type": "Image"},
    "animal": {"_type": "ClassLabel", "names": ["dog", "cat"]},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "the-cache"))


@pytest.fixture
def pictures(make: Any) -> list[bytes]:
    """Twelve pictures; their shade is their number."""
    content: list[bytes] = [make.png(shade) for shade in range(COUNT)]
    return content


def check(dataset: Dataset, *, splits: bool = True) -> None:
    """The dataset is that of the pictures, their labels and splits."""
    assert dataset.classes == ("cat", "dog")
    shades = dataset.x[:][:, 0, 0, 0]
    assert sorted(shades.tolist()) == list(range(COUNT))
    for shade, label in zip(shades, dataset.y, strict=True):
        assert dataset.classes[label] == LABELS[shade]
    if splits:
        assert set(shades[dataset.train]) == set(range(6))
        assert set(shades[dataset.validation]) == {6, 7, 8}
        assert set(shades[dataset.test]) == {9, 10, 11}


def table(*columns: str, delimiter: str = ",", **others: list[Any]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    values = {"file": [f"files/{i}.png" for i in range(COUNT)], "label": LABELS, "split": SPLITS}
    values |= others
    names = columns or tuple(values)
    writer.writerow(names)
    writer.writerows(zip(*(values[name] for name in names), strict=True))
    return stream.getvalue()


@pytest.fixture
def beside(tmp_path: Path, pictures: list[bytes]) -> Callable[..., Path]:
    """Writes a manifest beside its pictures."""

    def write(text: str, name: str = "list.csv") -> Path:
        folder = tmp_path / "set"
        (folder / "files").mkdir(parents=True)
        for i, content in enumerate(pictures):
            (folder / "files" / f"{i}.png").write_bytes(content)
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(beside: Callable[..., Path], delimiter: str) -> None:
    dataset = load_dataset(beside(table(delimiter=delimiter)))
    check(dataset)
    assert "'file' as path, 'label' as label, 'split' as split" in dataset.notes[0]


def test_json_lines(beside: Callable[..., Path]) -> None:
    rows = [
        {"file_name": f"files/{i}.png", "label": LABELS[i], "split": SPLITS[i], "width": 6}
        for i in range(COUNT)
    ]
    path = beside("\n".join(map(json.dumps, rows)) + "\n", "metadata.jsonl")
    check(load_dataset(path))
    check(load_dataset(path.parent))
    path.write_text('{"file_name": "a.png"}\n[1]\n')
    with pytest.raises(DatasetFormatError, match=r"line 2 of .* is no object"):
        load_dataset(path)
    path.write_text('{"file_name": \n')
    with pytest.raises(DatasetFormatError, match=r"line 1 of .* is not JSON"):
        load_dataset(path)


def test_a_manifest_in_a_folder_and_in_archives(
    beside: Callable[..., Path], zipped: Callable[..., Path], pictures: list[bytes], tmp_path: Path
) -> None:
    path = beside(table(), "metadata.csv")
    folder = load_dataset(path.parent)
    check(folder)
    files = {f"set/files/{i}.png": content for i, content in enumerate(pictures)}
    files["set/metadata.csv"] = table().encode()
    archive = load_dataset(zipped(files))
    assert archive.fingerprint == folder.fingerprint
    assert load_dataset(tarred(tmp_path / "set.tar", files)).fingerprint == folder.fingerprint


def test_columns_by_option_groups_and_weights(beside: Callable[..., Path]) -> None:
    groups = [f"s{i // 2}" for i in range(COUNT)]
    text = table(where=[f"files/{i}.png" for i in range(COUNT)], who=groups, w=[1] * 12)
    options = DataOptions(path_column="where", group_column="who", weight_column="w")
    with pytest.raises(
        DatasetFormatError, match=r"who = 's4' .* 'test' and 'validation'|who = 's4'"
    ):
        load_dataset(beside(text), options=options)


def test_groups_stay_whole(beside: Callable[..., Path]) -> None:
    groups = [f"s{i // 4}" for i in range(COUNT)]
    path = beside(table("file", "label", "speaker", "weight", speaker=groups, weight=[2] * COUNT))
    dataset = load_dataset(path)
    check(dataset, splits=False)
    assert dataset.groups is not None and dataset.weights is not None
    found = [set(dataset.groups[getattr(dataset, s)]) for s in ("train", "validation", "test")]
    assert [len(one) for one in found] == [1, 1, 1]
    assert dataset.weights.tolist() == [2.0] * COUNT


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,labell\n", {}, r"columns 'file', 'labell', none of which is named like a label"),
        (table(), {"label_column": "labels_"}, r"unknown column 'labels_'.*'label'"),
        ("", {}, "is empty: give a header"),
        ("file,label\n", {}, "has no rows"),
        ("file,label\na,b,c\n", {}, "row 1 of .* has 3 cells, the header 2"),
        ("file,file\n", {}, "two columns 'file'"),
        ('file,label\n"a,b\n', {}, "cannot be read as CSV"),
        (table().replace("val", "holdout"), {}, "row 7 .* split = 'holdout': write train"),
        (table(weight=["much"] * 12), {}, "weight = 'much': a weight is a number"),
        (table(weight=[0] * 12), {}, "weight = 0 in all rows"),
    ],
)
def test_manifests_refused(
    beside: Callable[..., Path], text: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetFormatError, match=message):
        load_dataset(beside(text), options=DataOptions(**options))


def test_faults_of_a_manifest_are_told_together(beside: Callable[..., Path]) -> None:
    text = table().replace("files/3.png", "files/33.png").replace("files/5.png,cat", "files/5.png,")
    path = beside(text)
    with pytest.raises(DatasetFormatError) as e:
        load_dataset(path)
    assert "2 of 12 samples" in str(e.value)
    assert "Row 4: there is no file at 'files/33.png'." in str(e.value)
    assert "Row 6: the label of 'files/5.png' is empty." in str(e.value)
    assert "skip_broken=0.167 (--skip-broken)" in str(e.value)
    (path.parent / "files/0.png").write_bytes(b"no image")
    with pytest.raises(DatasetFormatError, match=r"3 of 12 samples .*(?s:.)*allows 2"):
        load_dataset(path, options=DataOptions(skip_broken=0.2))
    dataset = load_dataset(path, options=DataOptions(skip_broken=0.25))
    assert len(dataset) == 9
    assert any(note.startswith("3 of 12 samples were left out") for note in dataset.notes)


def test_what_breaks_in_decoding_only_is_skipped(
    beside: Callable[..., Path], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = beside(table())
    noise = np.random.default_rng(0).integers(0, 256, (4, 6), np.uint8)
    content = make.image(noise)
    (path.parent / "files/2.png").write_bytes(content[: len(content) // 2])
    for memory in (2**28, 10):
        monkeypatch.setattr("inn_automl.data.load.MEMORY_BYTES", memory)
        with pytest.raises(
            DatasetFormatError, match=r"'files/2.png' .* cannot be read as an image"
        ):
            load_dataset(path)
        dataset = load_dataset(path, options=DataOptions(skip_broken=0.1))
        assert dataset.x[:][:, 0, 0, 0].tolist() == [0, 1, *range(3, 12)]
        assert len(dataset.train) == 5


def test_numbers_are_targets(beside: Callable[..., Path]) -> None:
    path = beside(table("file", "target", target=[i / 2 for i in range(COUNT)]))
    dataset = load_dataset(path)
    assert dataset.task == "regression"
    assert dataset.y[:, 0].tolist() == [i / 2 for i in range(COUNT)]


def tarred(path: Path, files: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def class_folders(pictures: list[bytes]) -> dict[str, bytes]:
    return {
        f"{split}/{label}/{i}.png": content
        for i, (content, label, split) in enumerate(zip(pictures, LABELS, SPLITS, strict=True))
    }


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")],
)
def test_tar(tmp_path: Path, pictures: list[bytes], name: str, mode: str) -> None:
    dataset = load_dataset(tarred(tmp_path / name, class_folders(pictures), mode))
    check(dataset)
    assert dataset.name == "a"


def test_tars_that_are_refused(
    tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("../a/1.png", "/a/1.png"):
        with pytest.raises(UnsafeArchiveError, match="leaves the archive's folder"):
            load_dataset(tarred(tmp_path / "out.tar", {name: b"x"}))
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        member = tarfile.TarInfo("a/1.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(UnsafeArchiveError, match="a link, a device"):
        load_dataset(tmp_path / "link.tar")
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz")):
        path = tarred(tmp_path / name, class_folders(pictures), mode)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2 - 300 * (mode == "w")])
        with pytest.raises(DatasetFormatError, match=r"cut short|cannot be read as a TAR"):
            load_dataset(path)
    (tmp_path / "none.tar").write_bytes(b"nothing")
    with pytest.raises(DatasetFormatError, match="cannot be read as a TAR archive"):
        load_dataset(tmp_path / "none.tar")
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 1000)
    with pytest.raises(UnsafeArchiveError, match=r"expands to .* beyond the limit"):
        load_dataset(tarred(tmp_path / "bomb.tar.gz", {"a/1.png": bytes(10**7)}, "w:gz"))


@pytest.mark.parametrize("labels", ["cls", "json"])
def test_webdataset(tmp_path: Path, pictures: list[bytes], labels: str) -> None:
    shards: dict[str, dict[str, bytes]] = {}
    for i, (content, label, split) in enumerate(zip(pictures, LABELS, SPLITS, strict=True)):
        shard = shards.setdefault(f"pets-{split}-00000{i % 2}.tar", {})
        shard[f"x/{i:05d}.seg.png" if labels == "cls" else f"x/{i:05d}.png"] = content
        text = label if labels == "cls" else json.dumps({"label": label, "width": 6})
        shard[f"x/{i:05d}.{labels}"] = text.encode()
    (tmp_path / "shards").mkdir()
    for name, files in shards.items():
        tarred(tmp_path / "shards" / name, files)
    check(load_dataset(tmp_path / "shards"))
    merged = {name: content for files in shards.values() for name, content in files.items()}
    check(load_dataset(tarred(tmp_path / "one.tar", merged)), splits=False)
    del merged[f"x/00003.{labels}"]
    with pytest.raises(DatasetFormatError, match=r"'x/00003' .* has no .cls or .json"):
        load_dataset(tarred(tmp_path / "one.tar", merged))


def written(path: Path, rows: slice, pictures: list[bytes], *, features: bool = True) -> Path:
    """A Parquet file as the hub has it: three rows a group."""
    structs = [{"bytes": content, "path": None} for content in pictures[rows]]
    labels = [["dog", "cat"].index(label) for label in LABELS[rows]]
    values = {"id": list(range(len(structs))), "picture": structs, "animal": labels}
    if not features:
        values = {"picture": pictures[rows], "label": LABELS[rows]}
    found = pa.table(values)
    if features:
        metadata = json.dumps({"info": {"features": FEATURES}})
        found = found.replace_schema_metadata({"huggingface": metadata})
    parquet.write_table(found, path, row_group_size=3)
    return path


def test_parquet_of_the_hub(tmp_path: Path, pictures: list[bytes]) -> None:
    (tmp_path / "hub/data").mkdir(parents=True)
    (tmp_path / "hub/README.md").write_text("card")
    for name, rows in (
        ("train-00000-of-00002", slice(0, 2)),
        ("train-00001-of-00002", slice(2, 6)),
        ("validation-00000-of-00001", slice(6, 9)),
        ("test-00000-of-00001", slice(9, 12)),
    ):
        written(tmp_path / f"hub/data/{name}.parquet", rows, pictures)
    check(load_dataset(tmp_path / "hub"))


def test_one_parquet_file(tmp_path: Path, pictures: list[bytes]) -> None:
    path = written(tmp_path / "pets.parquet", slice(None), pictures, features=False)
    check(load_dataset(path), splits=False)
    content = path.read_bytes()
    path.write_bytes(content[:200])
    with pytest.raises(DatasetFormatError, match="cannot be read as Parquet"):
        load_dataset(path)
    with pytest.raises(DatasetFormatError, match="unknown column 'animl'"):
        load_dataset(
            written(path, slice(None), pictures), options=DataOptions(label_column="animl")
        )


def test_an_upload_names_no_files(
    tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, content in enumerate(pictures):
        (tmp_path / f"{i}.png").write_bytes(content)
    names = [f"{i}.png" for i in range(COUNT)]
    path = tmp_path / "paths.parquet"
    parquet.write_table(pa.table({"file": names, "label": LABELS, "split": SPLITS}), path)
    check(load_dataset(path))
    monkeypatch.setattr(limits, "FOLLOW_PATHS", False)
    with pytest.raises(DatasetFormatError, match="lies outside of the file, which an upload may"):
        load_dataset(path)


def saved(folder: Path, rows: slice, pictures: list[bytes]) -> None:
    """A folder as `Dataset.save_to_disk` writes it."""
    folder.mkdir(parents=True)
    structs = [{"bytes": content, "path": "x.png"} for content in pictures[rows]]
    labels = [["dog", "cat"].index(label) for label in LABELS[rows]]
    found = pa.table({"picture": structs, "animal": labels})
    metadata = json.dumps({"info": {"features": FEATURES}})
    found = found.replace_schema_metadata({"huggingface": metadata})
    name = "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(folder / name, found.schema) as stream:
        for batch in found.to_batches(max_chunksize=2):
            stream.write_batch(batch)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text("{}")


def test_saved_to_disk(tmp_path: Path, pictures: list[bytes]) -> None:
    saved(tmp_path / "one", slice(None), pictures)
    check(load_dataset(tmp_path / "one"), splits=False)
    for split, rows in (("train", slice(0, 6)), ("validation", slice(6, 9))):
        saved(tmp_path / "many" / split, rows, pictures)
    saved(tmp_path / "many/test", slice(9, 12), pictures)
    names = json.dumps({"splits": ["train", "validation", "test"]})
    (tmp_path / "many/dataset_dict.json").write_text(names)
    check(load_dataset(tmp_path / "many"))
    (tmp_path / "one/data-00000-of-00001.arrow").write_bytes(b"no stream at all")
    with pytest.raises(DatasetError, match="cannot be read as an Arrow stream"):
        load_dataset(tmp_path / "one")


@pytest.mark.parametrize("memory", [2**28, 10])
def test_npy_files(tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inn_automl.data.formats.npy.MEMORY_BYTES", memory)
    x = np.random.default_rng(0).normal(size=(40, 3, 8)).astype(np.float32)
    y = np.arange(40) % 2
    np.savez(tmp_path / "user.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    (tmp_path / "npy").mkdir()
    for name, rows in (("train", slice(0, 30)), ("test", slice(30, 40))):
        np.save(tmp_path / f"npy/x_{name}.npy", x[rows])
        np.save(tmp_path / f"npy/y_{name}.npy", y[rows])
    expected, dataset = load_dataset(tmp_path / "user.npz"), load_dataset(tmp_path / "npy")
    assert isinstance(dataset.x, np.ndarray) == (memory > 10)
    np.testing.assert_array_equal(dataset.x[:], x)
    np.testing.assert_array_equal(dataset.test, expected.test)
    np.testing.assert_allclose(dataset.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(dataset.std, expected.std, rtol=1e-5)
    again = load_dataset(tmp_path / "npy/x_train.npy")
    assert again.fingerprint == dataset.fingerprint
    x[3, 1, 2] = np.nan
    np.save(tmp_path / "npy/x_train.npy", x[:30])
    with pytest.raises(DatasetFormatError, match="NaN or infinite"):
        load_dataset(tmp_path / "npy")
