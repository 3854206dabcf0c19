"""Class folders, in a folder or an archive: layouts that are read, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inn_automl.core.errors import DatasetFormatError, DatasetTooSmallError
from inn_automl.data import limits, load_dataset
from inn_automl.data.files import list_folder

Tree = Callable[[dict[str, bytes]], Path]
Zipped = Callable[..., Path]


def below(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{prefix}/{name}": content for name, content in files.items()}


def test_folders_are_classes(make: Any, tree: Tree) -> None:
    dataset = load_dataset(tree(make.classes("dog", "cat", count=20)))
    assert (dataset.classes, dataset.kind, dataset.input_shape) == (
        ("cat", "dog"),
        "image",
        (1, 4, 6),
    )
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (28, 6, 6)
    assert dataset.x.dtype == np.uint8
    for shade, label in zip(dataset.x[:, 0, 0, 0], dataset.y, strict=True):
        assert dataset.classes[label] == ("dog" if shade < 20 else "cat")


def test_an_archive_and_a_folder_are_the_same_dataset(
    make: Any, tree: Tree, zipped: Zipped
) -> None:
    files = make.classes("chat", "été", count=5)
    folder = load_dataset(tree(files))
    reordered = dict(sorted(files.items(), key=lambda item: hash(item[1])))
    archive = load_dataset(zipped(reordered))
    assert archive.fingerprint == folder.fingerprint
    assert archive.metadata() == folder.metadata()
    np.testing.assert_array_equal(archive.train, folder.train)


@pytest.mark.parametrize(
    "names",
    [("train", "validation", "test"), ("Training", "VAL", "testing"), ("train", "valid", "test")],
)
def test_given_splits(make: Any, tree: Tree, names: tuple[str, str, str]) -> None:
    files: dict[str, bytes] = {}
    for name, count in zip(names, (5, 3, 2), strict=True):
        files |= below(name, make.classes("cat", "dog", count=count))
    dataset = load_dataset(tree(files))
    assert dataset.classes == ("cat", "dog")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (10, 6, 4)
    assert sorted(dataset.x[dataset.test, 0, 0, 0]) == [0, 1, 2, 3]


def test_given_train_and_test_only(make: Any, tree: Tree) -> None:
    files = below("train", make.classes("a", "b", count=10)) | below(
        "test", make.classes("a", "b", count=4)
    )
    dataset = load_dataset(tree(files))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (16, 4, 8)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("place", ["tree", "zipped"])
def test_what_systems_and_authors_add_is_ignored(
    make: Any, wrapped: bool, split: bool, place: str, request: pytest.FixtureRequest
) -> None:
    files = make.classes("cat", "dog")
    files |= {"cat/.DS_Store": b"x", "cat/Thumbs.db": b"x", "dog/._0.png": b"not an image"}
    if split:
        files = below("train", files)
    files |= {"README.md": b"About", ".hidden/a/b.png": b"x", "labels.csv": b"1"}
    if wrapped:
        files = below("pets-1.0", files)
    files |= below("__MACOSX", {"cat/._1.png": b"x", "dog/2.png": b"x"})
    dataset = load_dataset(request.getfixturevalue(place)(files))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.x) == 8
    assert dataset.notes[0].startswith("2 files beside the class folders were ignored, e.g. ")


def test_classes_may_be_called_like_splits(make: Any, tree: Tree) -> None:
    assert load_dataset(tree(make.classes("test", "sample"))).classes == ("sample", "test")


def test_numbered_classes_are_in_numeric_order(make: Any, tree: Tree) -> None:
    assert load_dataset(tree(make.classes("10", "9", "1"))).classes == ("1", "9", "10")


def test_suffixes_in_any_case(make: Any, tree: Tree) -> None:
    files = {
        f"{name}/{i}.{suffix}": make.png(i)
        for name in "ab"
        for i, suffix in enumerate(("PNG", "png", "Png"))
    }
    jpeg = make.image(np.zeros((4, 6), np.uint8), "JPEG")
    files |= {f"a/{i}.{suffix}": jpeg for i, suffix in enumerate(("JPG", "jpeg", "Jpg"))}
    assert len(load_dataset(tree(files)).x) == 9


def test_names_composed_and_decomposed_are_one_class(make: Any, tree: Tree) -> None:
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    files = below("train", make.classes(composed, "b")) | below(
        "test", make.classes(decomposed, "b")
    )
    assert load_dataset(tree(files)).classes == ("b", composed)


def test_reading_writes_nothing(make: Any, tree: Tree) -> None:
    folder = tree(make.classes("a", "b"))
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    load_dataset(folder)
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before
    for path in before:
        path.chmod(0o755)


def test_linked_folders_are_followed(make: Any, tree: Tree, tmp_path: Path) -> None:
    folder = tree(make.classes("a", "b"))
    (folder / "b").rename(tmp_path / "elsewhere")
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    assert load_dataset(folder).classes == ("a", "b")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            lambda m: {"README": b""},
            r"holds no images or recordings: give a folder for each class",
        ),
        (lambda m: {"a/1.txt": b"", "b/1.pdf": b""}, r"holds no images or recordings"),
        (
            lambda m: m.classes("a", "b") | {"b/s.wav": b""},
            r"mixes images \('a/0.png'\) and recordings \('b/s.wav'\): keep",
        ),
        (
            lambda m: m.classes("a", "b") | {"1.png": m.png()},
            r"'1.png' in '.*pets' lies in no class folder: put it",
        ),
        (lambda m: {"1.png": m.png(), "2.png": m.png()}, r"lies in no class folder"),
        (
            lambda m: {"train/1.png": m.png(), "test/2.png": m.png()},
            r"'test/2.png' .* lies in no class folder",
        ),
        (
            lambda m: m.classes("a/x", "b/y"),
            r"'a/x/0.png' in '.*pets' lies in nested class folders: put all files",
        ),
        (lambda m: m.classes("a", "b", "b/x"), r"'b/x/0.png' .* nested class folders"),
        (
            lambda m: below("train", m.classes("a/x", "b/y")),
            r"'train/a/x/0.png' .* nested class folders",
        ),
        (lambda m: below("u", below("v", m.classes("a", "b"))), r"nested class folders"),
        (
            lambda m: m.classes("a", "b") | {"b/9.pdf": b""},
            r"'b/9.pdf' .* is no image or recording: convert it",
        ),
        (
            lambda m: below("train", m.classes("a", "b")) | m.classes("c"),
            r"folder 'c' beside the split 'train': put every",
        ),
        (
            lambda m: below("val", m.classes("a", "b")) | below("valid", m.classes("a", "b")),
            r"two folders for the validation split, one of them 'valid'",
        ),
        (
            lambda m: below("test", m.classes("a", "b")),
            r"has the split 'test' but no train folder: add one",
        ),
        (
            lambda m: below("train", m.classes("a", "b")) | below("test", m.classes("c")),
            r"class 'c', which the training",
        ),
    ],
)
def test_layouts_refused(
    make: Any, tree: Tree, layout: Callable[[Any], dict[str, bytes]], message: str
) -> None:
    with pytest.raises(DatasetFormatError, match=message):
        load_dataset(tree(layout(make)))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="holds no images or recordings"):
        load_dataset(tmp_path)


def test_one_class_only(make: Any, tree: Tree) -> None:
    with pytest.raises(DatasetTooSmallError, match="'pets' has one class only, 'cat'"):
        load_dataset(tree(make.classes("cat")))


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_an_empty_class_folder(make: Any, tree: Tree, prefix: str) -> None:
    folder = tree({prefix + name: content for name, content in make.classes("cat", "dog").items()})
    (folder / prefix / "eel").mkdir()
    with pytest.raises(DatasetTooSmallError, match="class 'eel' of 'pets' has 0 training samples"):
        load_dataset(folder)


def test_broken_links_and_circles(make: Any, tree: Tree) -> None:
    folder = tree(make.classes("cat", "dog"))
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(
        DatasetFormatError, match=r"gone.png' is a broken link or no plain file: remove it"
    ):
        load_dataset(folder)
    (folder / "cat" / "gone.png").unlink()
    (folder / "cat" / "again").symlink_to(folder / "cat")
    with pytest.raises(DatasetFormatError, match="nests folders deeper than 8"):
        load_dataset(folder)


def test_a_file_that_vanishes_or_is_too_large(
    make: Any, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree({"a/0.png": make.png()})
    entry = list_folder(folder).files[0]
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 10)
    with pytest.raises(
        DatasetFormatError, match=r"'0.png' in .* is larger than the limit of 10 bytes a file"
    ):
        entry.read()
    (folder / "a/0.png").unlink()
    with pytest.raises(
        DatasetFormatError, match=r"0.png' cannot be read \(No such file or directory\)"
    ):
        entry.read()


def test_too_many_files(make: Any, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FILES", 9)
    folder = tree(make.classes("a", "b", count=4))
    with pytest.raises(DatasetFormatError, match="more files than the limit of 9"):
        load_dataset(folder)
