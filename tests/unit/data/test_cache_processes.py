"""The cache among processes and machines: killed, shared, moved, and bounded in memory."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inn_automl.core.errors import CorruptFileError, DatasetError, DatasetFormatError
from inn_automl.core.home import CACHE_DIR_VARIABLE
from inn_automl.data import ShardedArray, load_dataset, memory, samples
from inn_automl.data.cache import Produced, cached_samples, shards
from inn_automl.data.memory import check_memory
from inn_automl.data.origin import register_origin

Tree = Callable[[dict[str, bytes]], Path]
SLOW_BUILD = """
import sys, time
import numpy as np
from inn_automl.data.cache import Produced, cached_samples, shards
shards.SHARD_BYTES = 1000
def produce(position):
    time.sleep(0.02)
    sys.stdout.write(f"{position}\\n")
    sys.stdout.flush()
    return Produced(np.full((1, 100), position, np.uint8), bytes(16))
cached = cached_samples({"name": "slow"}, (100, 1, 100), np.uint8, produce, what="'slow'")
print("sum", cached.x[:].sum())
"""
BOUNDED = """
import resource
import numpy as np
from inn_automl.data.cache import Produced, cached_samples
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
x = np.zeros((3, 256, 256), np.uint8)
cached = cached_samples({"name": "m"}, (2000, *x.shape), np.uint8,
                        lambda i: Produced(x, bytes(16)), what="'m'").x
built = peak() - before
generator = np.random.default_rng(0)
for _ in range(60):
    cached[generator.integers(0, 2000, 32)]
print(cached.nbytes // 2**20, built, peak() - before - built)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def started(code: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_a_killed_build_goes_on_in_another_process() -> None:
    first = started(SLOW_BUILD)
    assert first.stdout is not None
    for line in first.stdout:
        if int(line) >= 45:
            break
    first.send_signal(signal.SIGKILL)
    first.communicate()
    # Two at a time: one builds what is missing, the other waits and reads.
    both = [started(SLOW_BUILD), started(SLOW_BUILD)]
    printed = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [lines[-1] for lines in printed] == [f"sum {100 * sum(range(100))}"] * 2
    made = sorted(int(line) for lines in printed for line in lines[:-1])
    assert 50 <= len(made) <= 90 and len(set(made)) == len(made)


def test_memory_does_not_grow_with_the_samples() -> None:
    printed, _ = started(BOUNDED).communicate(timeout=120)
    total, built, read = map(int, printed.split())
    assert total == 375
    assert built < 200  # two shards of 64 MiB, and what decodes
    assert read < 30


@pytest.fixture
def pets(make: Any, tree: Tree) -> Path:
    return tree({f"{c}/{i}.png": make.png(i, size=(8 + i, 9)) for c in "ab" for i in range(10)})


def test_another_machine_makes_its_own(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(pets)
    assert isinstance(dataset.x, ShardedArray)
    expected, sent = dataset.x[:], pickle.dumps(dataset)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "elsewhere"))
    received = pickle.loads(sent)  # noqa: S301
    np.testing.assert_array_equal(received.x[[3, 17]], expected[[3, 17]])
    assert str(received.x.folder).startswith(str(tmp_path / "elsewhere"))
    shutil.rmtree(tmp_path / "elsewhere")
    (pets / "a/3.png").write_bytes((pets / "a/4.png").read_bytes())
    with pytest.raises(CorruptFileError, match="is another one on"):
        pickle.loads(sent).x[0]  # noqa: S301


def test_another_machine_fetches_what_it_lacks(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "pets-1"), "zip", pets))
    shutil.copy(archive, tmp_path / "store.zip")
    register_origin(str(archive), f"file://{tmp_path}/store.zip")
    dataset = load_dataset(archive)
    expected, sent = dataset.x[:], pickle.dumps(dataset)
    shutil.rmtree(tmp_path / "cache")
    archive.unlink()
    np.testing.assert_array_equal(pickle.loads(sent).x[:], expected)  # noqa: S301


def test_a_folder_in_use_survives_its_neighbours(root: Path) -> None:
    x = np.zeros((1, 10), np.uint8)
    kept = cached_samples({}, (4, 1, 10), np.uint8, lambda i: Produced(x, bytes(16)), what="'a'").x
    code = f"""
from pathlib import Path
from inn_automl.data.cache.folder import _delete_unused
print(_delete_unused(Path({str(kept.folder)!r})))
"""
    assert started(code).communicate(timeout=60)[0].strip() == "False"
    folder = kept.folder
    del kept
    for _ in range(50):  # until the collector has let go of it
        printed = started(code).communicate(timeout=60)[0].strip()
        if printed == "True":
            break
        time.sleep(0.1)
    assert printed == "True" and folder is not None and not folder.exists()


def test_too_little_memory(make: Any, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset(tree(make.classes("a", "b", count=40)))
    monkeypatch.setattr(memory, "READING_BYTES", 0)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000)
    check_memory(dataset, num_processes=3)
    with pytest.raises(DatasetError, match=r"4 process.* takes 10 KiB .* has 9.766 KiB left: use"):
        check_memory(dataset, num_processes=4)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    check_memory(dataset, num_processes=4)
    monkeypatch.setattr(samples, "available_bytes", lambda: 999)
    with pytest.raises(DatasetFormatError, match="this machine has 999 bytes left"):
        samples.check_size(1000, "'pets'")


def test_shards_hold_at_least_one_sample() -> None:
    assert shards.rows_per_shard(2**40) == 1
