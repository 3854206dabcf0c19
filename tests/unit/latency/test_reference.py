from __future__ import annotations

from inn_automl import runtimes
from inn_automl.export.reference import reference_bytes
from inn_automl.latency.reference import REFERENCE


def test_the_file_is_what_its_script_makes() -> None:
    assert REFERENCE.read_bytes() == reference_bytes()


def test_it_runs_and_stays_small() -> None:
    assert REFERENCE.stat().st_size < 20_000
    (output,) = runtimes.create("onnxruntime-cpu", 1).load(REFERENCE, 1)()
    assert output.shape == (1, 1024)
