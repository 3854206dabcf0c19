""".npz files: every accepted shape and type, and every fault by name."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inn_automl.core.errors import DatasetError, DatasetFormatError, DatasetTooSmallError
from inn_automl.data import limits, load_dataset

Npz = Callable[..., Path]
Y = np.array([0, 1] * 6)


def values(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "options", "expected", "kind"),
    [
        ((12, 3, 6, 5), {}, (3, 6, 5), "image"),
        ((12, 8, 8), {}, (1, 8, 8), "image"),
        ((12, 4, 8), {}, (1, 4, 8), "image"),
        ((12, 3, 100), {}, (3, 100), "signal"),
        ((12, 9, 128), {}, (9, 128), "signal"),
        ((12, 3, 3), {}, (3, 3), "signal"),
        ((12, 40), {}, (1, 40), "signal"),
        ((12, 8, 8), {"kind": "signal"}, (8, 8), "signal"),
        ((12, 3, 100), {"kind": "image"}, (1, 3, 100), "image"),
        ((12, 32, 32, 3), {"kind": "image"}, (32, 32, 3), "image"),
        ((12, 100, 3), {"kind": b"signal"}, (100, 3), "signal"),
    ],
)
def test_shapes(
    npz: Npz, shape: tuple[int, ...], options: dict[str, Any], expected: tuple[int, ...], kind: str
) -> None:
    x = values(*shape)
    dataset = load_dataset(npz(x=x, y=Y, **options))
    assert (dataset.input_shape, dataset.kind, dataset.name) == (expected, kind, "user")
    np.testing.assert_array_equal(dataset.x.reshape(shape), x)
    np.testing.assert_array_equal(dataset.y, Y)


def test_an_ambiguous_shape_is_noted_unless_it_was_settled(npz: Npz) -> None:
    assert "add kind='signal'" in load_dataset(npz(x=values(12, 8, 8), y=Y)).notes[0]
    assert "add kind='image'" in load_dataset(npz(x=values(12, 3, 90), y=Y)).notes[0]
    assert load_dataset(npz(x=values(12, 8, 8), y=Y, kind="image")).notes == ()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.uint8, np.uint8),
        (np.bool_, np.uint8),
        (np.int8, np.float32),
        (np.int64, np.float32),
        (np.uint16, np.float32),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float32),
        (np.longdouble, np.float32),
        (">f4", np.float32),
    ],
)
def test_types_of_x(npz: Npz, dtype: Any, expected: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inn_automl.data.samples.BLOCK_VALUES", 50)
    x = values(12, 20, dtype=dtype)
    dataset = load_dataset(npz(x=np.asfortranarray(x), y=Y))
    assert dataset.x.dtype == expected
    assert dataset.x.dtype.isnative
    assert dataset.x.flags.c_contiguous
    np.testing.assert_array_equal(dataset.x[:, 0], x.astype(expected))


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.array([1, 2, 10] * 4), ("1", "2", "10")),
        (np.array([-1, 1] * 6), ("-1", "1")),
        (np.array([True, False] * 6), ("False", "True")),
        (np.array(["café", "日本"] * 6), ("café", "日本")),
        (np.array([b"b", "ü".encode()] * 6), ("b", "ü")),
        (np.array([[3], [7]] * 6, np.uint8), ("3", "7")),
    ],
)
def test_labels_keep_their_names(npz: Npz, y: np.ndarray, classes: tuple[str, ...]) -> None:
    dataset = load_dataset(npz(x=values(12, 5), y=y))
    assert dataset.classes == classes
    flat = [label.decode() if isinstance(label, bytes) else label for label in y.ravel().tolist()]
    assert [dataset.classes[i] for i in dataset.y] == [str(v) for v in flat]


@pytest.mark.parametrize("validation", ["validation", "val"])
@pytest.mark.parametrize("train", ["", "_train"])
def test_given_splits(npz: Npz, validation: str, train: str) -> None:
    arrays = {
        f"x{train}": values(12, 5),
        f"y{train}": Y,
        f"x_{validation}": values(4, 5) + 1,
        f"y_{validation}": Y[:4],
        "x_test": values(6, 5) + 2,
        "y_test": Y[:6],
    }
    dataset = load_dataset(npz(**arrays))
    np.testing.assert_array_equal(dataset.x[np.sort(dataset.train), 0], arrays[f"x{train}"])
    np.testing.assert_array_equal(
        dataset.x[np.sort(dataset.validation), 0], arrays[f"x_{validation}"]
    )
    np.testing.assert_array_equal(dataset.x[np.sort(dataset.test), 0], arrays["x_test"])


def test_given_test_without_validation(npz: Npz) -> None:
    dataset = load_dataset(
        npz(x_train=values(40, 5), y_train=[0, 1] * 20, x_test=values(6, 5), y_test=Y[:6])
    )
    assert sorted(dataset.test) == list(range(40, 46))
    assert (len(dataset.train), len(dataset.validation)) == (34, 6)


def test_compressed_files_read_the_same(npz: Npz, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "small.npz", x=values(12, 5), y=Y)
    assert (
        load_dataset(tmp_path / "small.npz").fingerprint
        == load_dataset(npz(x=values(12, 5), y=Y)).fingerprint
    )


X = values(12, 5)
NAN, INF, HUGE = X.copy(), X.copy(), X.astype(np.float64)
NAN[7, 2], INF[3, 0], HUGE[5, 1] = np.nan, -np.inf, 1e300


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": X, "y": Y[:9]},
            r"x of 'user.npz' has 12 samples but y of 'user.npz' has 9: give one label",
        ),
        (
            {"x": NAN, "y": Y},
            r"x of 'user.npz' holds NaN or infinite values, first nan in sample 7: remove",
        ),
        ({"x": INF, "y": Y}, r"first -inf in sample 3"),
        ({"x": HUGE, "y": Y}, r"holds 1e\+300 in sample 5, beyond the range of float32: rescale"),
        (
            {"x": X.astype(object), "y": Y},
            r"x of 'user.npz' is pickled .* never loaded: store plain numbers",
        ),
        (
            {"x": X, "y": np.array(["a", 1] * 6, object)},
            r"y of 'user.npz' is pickled .*y\.astype\(str\)",
        ),
        ({"x": X + 1j, "y": Y}, r"holds complex64 values: store real numbers"),
        ({"x": X.astype(str), "y": Y}, r"values: store real numbers"),
        ({"x": np.zeros(12, "M8[s]").reshape(12, 1), "y": Y}, r"datetime64\[s\] values"),
        ({"x": np.zeros((12, 2), [("a", "f4")]), "y": Y}, r"values: store real numbers"),
        (
            {"x": X, "y": np.where(Y, np.nan, 1.0)},
            r"holds NaN or infinite values, first nan in sample 1",
        ),
        ({"x": X, "y": Y + 1j}, r"complex128 values: store labels as integers or strings"),
        (
            {"x": X, "y": np.eye(2, dtype=int)[Y]},
            r"y of 'user.npz' has shape 12 x 2: .*argmax\(1\)",
        ),
        ({"x": X, "y": np.array(3)}, r"y of 'user.npz' has shape \(\): store one label"),
        ({"x": X, "y": np.array(["a", "b", ""] * 4)}, r"empty label for sample 2"),
        ({"x": X, "y": np.array([b"a", b"\xff"] * 6)}, r"bytes that are not UTF-8"),
        ({"x": values(12), "y": Y}, r"x of 'user.npz' has shape 12: store N x C x H x W"),
        ({"x": values(12, 1, 2, 3, 4), "y": Y}, r"has shape 12 x 1 x 2 x 3 x 4: store"),
        ({"x": np.array(1.0), "y": Y}, r"has shape \(\): store"),
        ({"x": np.zeros((12, 3, 0)), "y": Y}, r"has shape 12 x 3 x 0"),
        (
            {"x": values(12, 32, 16, 3), "y": Y},
            r"12 x 32 x 16 x 3, which looks like channels last: store x.transpose\(0, 3",
        ),
        (
            {"x": values(12, 100, 3), "y": Y},
            r"signals with channels last: store x.transpose\(0, 2, 1\), or add kind",
        ),
        (
            {"x": values(12, 8, 8), "y": Y, "kind": "Image"},
            r"kind of 'user.npz' is 'Image': store 'image' or 'signal'",
        ),
        ({"x": X, "y": Y, "kind": 3}, r"kind of 'user.npz' is None"),
        ({"x": X, "y": Y, "kind": "image"}, r"shape 12 x 5, which cannot be of kind 'image'"),
        ({"x": values(12, 1, 8, 8), "y": Y, "kind": "signal"}, r"which cannot be of kind 'signal'"),
        (
            {"images": X, "labels": Y},
            r"keys that are not read, 'images', 'labels'; unknown key 'images'.*x_train",
        ),
        ({"x": X, "y": Y, "x_tets": X}, r"'x_tets'; unknown key 'x_tets': did you mean 'x_test'\?"),
        ({"x": X}, r"lacks 'y': store samples as x, labels as y"),
        ({"x": X, "y": Y, "y_test": Y}, r"lacks 'x_test'"),
        ({"x_test": X, "y_test": Y}, r"no training samples: store x and y, or x_train and y_train"),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y}, r"the train split twice, once as x_train"),
        (
            {"x": X, "y": Y, "x_test": values(6, 4), "y_test": Y[:6]},
            r"x_test .* shape 4 but x of 'user.npz' of 5: bring",
        ),
        (
            {"x": X, "y": Y, "x_test": X.astype(np.uint8), "y_test": Y},
            r"mixes other \(now float32\) and uint8 values",
        ),
        ({}, r"no training samples"),
    ],
)
def test_faults(npz: Npz, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetFormatError, match=message) as caught:
        load_dataset(npz(**arrays))
    assert "\n" not in str(caught.value)


def test_structured_arrays_of_format_3(npz: Npz) -> None:
    with pytest.warns(UserWarning, match=r"format 3\.0"):
        path = npz(x=np.zeros((12, 2), [("日", "f4")]), y=Y)
    with pytest.raises(
        DatasetFormatError, match=r"x of 'user\.npz' is a structured array: store plain numbers"
    ):
        load_dataset(path)


def test_no_samples(npz: Npz) -> None:
    with pytest.raises(DatasetTooSmallError, match="no training samples"):
        load_dataset(npz(x=np.zeros((0, 5)), y=np.zeros(0, int)))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap()))
    np.savez(tmp_path / "inside.npz", x=np.array([Trap()] * 12, object), y=Y)
    for name in ("bare.npz", "inside.npz"):
        with pytest.raises(DatasetFormatError):
            load_dataset(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_not_an_npz(tmp_path: Path) -> None:
    with open(tmp_path / "single.npz", "wb") as stream:
        np.save(stream, X)
    (tmp_path / "empty.npz").touch()
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("x.npy", "no array")
    for name in ("single", "empty", "text"):
        with pytest.raises(
            DatasetFormatError, match=rf"{name}.npz' cannot be read as an .npz file \(.*numpy.savez"
        ):
            load_dataset(tmp_path / f"{name}.npz")


def test_too_large_is_refused_by_its_header(npz: Npz, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DATASET_BYTES", 2**20)
    path = npz(x=np.zeros((12, 2**16), np.float32), y=Y)
    monkeypatch.setattr(np.lib.format, "read_array", None)  # expanding anything would now fail
    with pytest.raises(
        DatasetFormatError,
        match=r"would take 3 MiB in memory, more than the limit of 1 MiB: use fewer",
    ):
        load_dataset(path)


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (12, 2**26)}
    )
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue())
        archive.writestr("y.npy", b"\x93NUMPY")
    with pytest.raises(
        DatasetFormatError, match=r"x of 'liar.npz' is cut short: its header says 12 x 67108864"
    ):
        load_dataset(tmp_path / "liar.npz")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_anywhere_is_a_dataset_error_or_harmless(
    tmp_path: Path, data: st.DataObject
) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, x=X, y=Y)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    with contextlib.suppress(DatasetError):
        np.testing.assert_array_equal(load_dataset(path).x[:, 0], X)
