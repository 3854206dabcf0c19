from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inn_automl.core.errors import DatasetFormatError, DatasetTooSmallError
from inn_automl.data import load_dataset

RNG = np.random.default_rng(0)


def save(path: Path, height: int, width: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    Image.fromarray(RNG.integers(256, size=shape, dtype=np.uint8)).save(path)


def save_pairs(
    folder: Path, num: int = 8, *, scale: int = 2, size: tuple[int, int] = (6, 4)
) -> None:
    for i in range(num):
        save(folder / "input" / f"{i}.png", *size)
        save(folder / "target" / f"{i}.png", scale * size[0], scale * size[1])


def test_pairs_keep_their_partners(tmp_path: Path) -> None:
    save_pairs(tmp_path, scale=3)
    dataset = load_dataset(tmp_path)
    assert (dataset.task, dataset.scale, dataset.peak) == ("super-resolution", 3, 255.0)
    assert (dataset.x.shape, dataset.y.shape, dataset.y.dtype) == (
        (8, 3, 6, 4),
        (8, 3, 18, 12),
        np.uint8,
    )
    assert (dataset.classes, dataset.output_shape) == ((), (3, 18, 12))
    for i in range(8):
        for side, images in (("input", dataset.x), ("target", dataset.y)):
            pixels = np.asarray(Image.open(tmp_path / side / f"{i}.png")).transpose(2, 0, 1)
            np.testing.assert_array_equal(images[i], pixels)
    assert sorted(map(len, (dataset.train, dataset.validation, dataset.test))) == [1, 1, 6]


def test_suffixes_may_differ_and_systems_leave_files(tmp_path: Path) -> None:
    save_pairs(tmp_path, 4)
    (tmp_path / "target" / "0.png").unlink()
    save(tmp_path / "target" / "0.jpg", 12, 8)
    (tmp_path / "input" / ".DS_Store").touch()
    assert len(load_dataset(tmp_path).x) == 4


def test_given_splits_of_an_archive(tmp_path: Path) -> None:
    for split, num in (("train", 5), ("val", 2), ("test", 3)):
        save_pairs(tmp_path / "set" / split, num)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "set").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path))
    dataset = load_dataset(tmp_path / "set.zip")
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [5, 2, 3]
    first = np.asarray(Image.open(tmp_path / "set/test/target/0.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(dataset.y[dataset.test.min()], first)


def test_a_lonely_image_is_named(tmp_path: Path) -> None:
    save_pairs(tmp_path)
    (tmp_path / "target" / "3.png").unlink()
    with pytest.raises(
        DatasetFormatError, match=r"'input/3\.png' .* has no partner in target: add an image"
    ):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("side", "size", "message"),
    [
        (
            "target",
            (12, 9),
            r"'input/5\.png' .* has 6 x 4 pixels and its target 'target/5\.png' 12 "
            r"x 9 .*2, 3 or more",
        ),
        ("target", (6, 4), r"6 x 4 pixels and its target .* 6 x 4 .*give a target"),
        (
            "target",
            (18, 12),
            r"'target/5\.png' .* is 3 times as large as its input, but "
            r"'target/0\.png' 2 times",
        ),
        (
            "both",
            (3, 2),
            r"'input/5\.png' .* has 3 x 2 pixels but 'input/0\.png' 6 x 4 .*tiles of "
            r"one size",
        ),
    ],
)
def test_sizes_that_do_not_go_together(
    tmp_path: Path, side: str, size: tuple[int, int], message: str
) -> None:
    save_pairs(tmp_path)
    if side == "both":
        save(tmp_path / "input" / "5.png", *size)
        save(tmp_path / "target" / "5.png", 2 * size[0], 2 * size[1])
    else:
        save(tmp_path / side / "5.png", *size)
    with pytest.raises(DatasetFormatError, match=message):
        load_dataset(tmp_path)


def test_other_faults(tmp_path: Path) -> None:
    save_pairs(tmp_path / "grey")
    for i in range(8):
        save(tmp_path / "grey" / "target" / f"{i}.png", 12, 8, "L")
    with pytest.raises(
        DatasetFormatError, match=r"has 3 channel\(s\) of uint8 but its target .* 1 of uint8"
    ):
        load_dataset(tmp_path / "grey")
    save_pairs(tmp_path / "deep")
    save(tmp_path / "deep" / "input" / "more" / "9.png", 6, 4)
    with pytest.raises(
        DatasetFormatError, match=r"'input/more/9\.png' .* lies in a folder of its own"
    ):
        load_dataset(tmp_path / "deep")
    save_pairs(tmp_path / "twice")
    save(tmp_path / "twice" / "input" / "1.jpg", 6, 4)
    with pytest.raises(
        DatasetFormatError, match=r"'input/1\.jpg' and 'input/1\.png' .* share one name"
    ):
        load_dataset(tmp_path / "twice")
    save_pairs(tmp_path / "few", 2)
    with pytest.raises(
        DatasetTooSmallError,
        match=r"'few' has 2 training samples, but training and validation and test",
    ):
        load_dataset(tmp_path / "few")


def test_classes_beside_input_and_target_stay_classes(tmp_path: Path) -> None:
    save_pairs(tmp_path, 4, scale=1)
    for i in range(4):
        save(tmp_path / "other" / f"{i}.png", 6, 4)
    assert load_dataset(tmp_path).classes == ("input", "other", "target")
