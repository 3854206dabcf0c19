from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from inn_automl.core.errors import MeasurementError, SpecError
from inn_automl.core.spec import DeviceBudget
from inn_automl.latency import benchmark as latency
from inn_automl.latency.benchmark import measure
from inn_automl.latency.config import QUICK, BenchmarkConfig

TINY = BenchmarkConfig(
    min_processes=2,
    max_processes=2,
    num_blocks=2,
    min_s=0.0,
    max_s=10.0,
    max_runs=5,
    max_repeated=0,
    num_memory_runs=0,
)


def test_measures_models_together(make_conv_net):
    models = {"small": make_conv_net("a", (4,)), "large": make_conv_net("b", (8, 8), size=12)}
    shares: list[float] = []
    found = measure(
        models, DeviceBudget(name="d", percentile=90), config=TINY, on_progress=shares.append
    )
    assert list(found) == ["small", "large"]
    for one in found.values():
        runs = np.concatenate([block for process in one.samples_ms for block in process])
        assert len(one.samples_ms) == 2
        assert all(len(process) >= 2 for process in one.samples_ms)
        assert one.summary.num_samples == len(runs) > 0
        assert (runs > 0).all()
        assert one.summary.p99 == pytest.approx(np.percentile(runs, 99))
        assert one.summary.percentile == 90
        assert one.summary.at_percentile == pytest.approx(np.percentile(runs, 90))
        assert one.summary.p50 <= one.summary.at_percentile <= one.summary.p95 <= one.summary.p99
        assert one.summary.ci[0] <= one.summary.at_percentile <= one.summary.ci[1]
        assert one.converged is (one.diagnostic == "")
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_accounts_for_operations_where_it_is_asked_to(make_conv_net):
    config = dataclasses.replace(TINY, num_profiled_runs=4)
    models = {"m": make_conv_net("m", (4, 8)), "n": make_conv_net("n", (4,))}
    found = measure(models, DeviceBudget(name="d"), config=config)
    for name, num_convolutions in (("m", 2), ("n", 1)):
        nodes = found[name].environment["node_times"]
        assert sum(node["kind"] == "Conv" for node in nodes) == num_convolutions
        assert all(node["ms"] >= 0 for node in nodes)
    assert "node_times" not in measure(models, DeviceBudget(name="d"), config=TINY)["m"].environment


def test_a_runtime_that_is_not_installed_is_refused_before_anything_runs(
    make_conv_net, monkeypatch
):
    monkeypatch.delitem(sys.modules, "inn_automl.runtimes.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        SpecError,
        match=r"device 'd': .*'openvino' is not installed.*`pip install openvino` adds it",
    ):
        measure({"m": make_conv_net("m")}, DeviceBudget(name="d", runtime="openvino"), config=TINY)


def test_records_what_was_measured_on(make_conv_net):
    found = measure({"m": make_conv_net("m")}, DeviceBudget(name="d", batch_size=3), config=TINY)
    environment = found["m"].environment
    assert environment["runtime"] == "onnxruntime-cpu"
    assert environment["runtime_version"]
    assert environment["session_options"]["intra_op_num_threads"] == 1
    assert environment["threads"] == 1
    assert environment["batch_size"] == 3
    assert environment["num_cores"] >= len(environment["affinity"]) >= 1
    assert environment["cpu_model"]
    assert environment["platform"]
    assert environment["num_processes"] == 2
    assert BenchmarkConfig(**environment["benchmark_config"]) == TINY
    assert 0 <= environment["contended_fraction"] <= 1
    started, ended = (
        datetime.fromisoformat(environment[key]) for key in ("started_at", "ended_at")
    )
    assert started.utcoffset() == timedelta(0)
    assert started <= ended


def test_models_too_large_together_are_loaded_in_turns(make_conv_net, monkeypatch):
    together = []
    run_timing = latency.run_timing

    def record(request, **keywords):
        together.append(set(request["models"]))
        return run_timing(request, **keywords)

    monkeypatch.setattr(latency, "run_timing", record)
    models = {name: make_conv_net(name) for name in "abc"}
    found = measure(models, DeviceBudget(name="d"), config=dataclasses.replace(TINY, max_bytes=1))
    assert [len(chunk) for chunk in together] == [1] * 6
    assert set.union(*together[:3]) == set.union(*together[3:]) == set("abc")
    assert all(len(one.samples_ms) == 2 for one in found.values())


def answer_of(blocks, **changes):
    """What a timing process says; blocks are lists of nanoseconds."""
    return {
        "blocks": {name: [{"ns": ns, "waited": 0.0, "drift": 0.0}] for name, ns in blocks.items()},
        "environment": {},
        "not_warm": [],
        "num_blocks": 2,
        "num_contended": 0,
        "num_repetitions": 2,
        "num_drifted": 0,
        "reference_ns": 100.0,
        **changes,
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "m.onnx"
    path.touch()
    return path


NO_MEMORY = BenchmarkConfig(min_processes=2, max_processes=9, num_memory_runs=0)


def test_starts_processes_until_all_are_settled(monkeypatch, path):
    """The second model settles with the fourth process, when its interval has become narrow
    enough.
    """
    num_started = 0

    def answer(request, *, stalled_s, on_event):
        nonlocal num_started
        num_started += 1
        return answer_of(
            {"steady": [1_000_000] * 5, "wavering": [1_000_000 + 30_000 * (num_started == 1)] * 5}
        )

    monkeypatch.setattr(latency, "run_timing", answer)
    models = {"steady": path, "wavering": path}
    found = measure(models, DeviceBudget(name="d"), config=NO_MEMORY)
    assert 2 < num_started < 9
    assert found["wavering"].converged
    assert found["wavering"].environment["num_processes"] == num_started

    num_started = 0
    found = measure(
        models, DeviceBudget(name="d"), config=dataclasses.replace(NO_MEMORY, max_processes=2)
    )
    assert num_started == 2
    assert found["steady"].converged
    assert "differs between processes" in found["wavering"].diagnostic


def test_a_process_on_a_slower_machine_is_repeated(monkeypatch, path):
    speeds = [1.0, 1.5, 1.01, 1.0, 0.99]

    def answer(request, *, stalled_s, on_event):
        speed = speeds.pop(0)
        return answer_of({"m": [round(1_000_000 * speed)] * 5}, reference_ns=100.0 * speed)

    monkeypatch.setattr(latency, "run_timing", answer)
    config = dataclasses.replace(NO_MEMORY, min_processes=4)
    found = measure({"m": path}, DeviceBudget(name="d"), config=config)["m"]
    assert [process[0][0] for process in found.samples_ms] == [1.0, 1.01, 1.0, 0.99]
    assert found.converged
    environment = found.environment
    assert (environment["num_processes"], environment["num_drifted_processes"]) == (4, 1)
    assert environment["reference_ms"] == pytest.approx(1e-4, rel=0.01)


def test_says_that_the_speed_never_settled(monkeypatch, path):
    num_started = 0

    def answer(request, *, stalled_s, on_event):
        nonlocal num_started
        num_started += 1
        return answer_of({"m": [1_000_000] * 5}, reference_ns=100.0 * 1.5**num_started)

    monkeypatch.setattr(latency, "run_timing", answer)
    config = dataclasses.replace(NO_MEMORY, min_processes=2, max_processes=2, max_repeated=3)
    found = measure({"m": path}, DeviceBudget(name="d"), config=config)["m"]
    assert num_started == 5
    assert len(found.samples_ms) == 2
    assert "the machine's speed changed by" in found.diagnostic


@pytest.mark.parametrize(("reference_ms", "expected"), [(0.0, 1.25), (1e-4, 1.0), (1.25e-4, 1.25)])
def test_one_of_two_speeds_counts(monkeypatch, path, reference_ms, expected):
    """That of most processes, or the one that was asked for."""
    speeds = itertools.cycle([1.25, 1.0])

    def answer(request, *, stalled_s, on_event):
        speed = next(speeds)
        return answer_of({"m": [round(1_000_000 * speed)] * 5}, reference_ns=100.0 * speed)

    monkeypatch.setattr(latency, "run_timing", answer)
    config = dataclasses.replace(
        NO_MEMORY, min_processes=4, max_processes=4, max_repeated=6, reference_ms=reference_ms
    )
    found = measure({"m": path}, DeviceBudget(name="d"), config=config)["m"]
    assert [process[0][0] for process in found.samples_ms] == [expected] * 4
    assert found.converged
    assert found.environment["reference_ms"] == pytest.approx(expected * 1e-4)


def test_says_that_the_machine_is_not_as_fast_as_before(monkeypatch, path):
    monkeypatch.setattr(
        latency, "run_timing", lambda *_, **__: answer_of({"m": [10**6]}, reference_ns=100.0)
    )
    config = dataclasses.replace(TINY, reference_ms=2e-4)
    assert "was not as fast as before: the reference model was off by 50%" in (
        measure({"m": path}, DeviceBudget(name="d"), config=config)["m"].diagnostic
    )


def test_says_that_repetitions_drifted(monkeypatch, path):
    blocks = {
        "m": [
            {"ns": [10**6], "waited": 0.0, "drift": 0.5},
            {"ns": [10**6], "waited": 0.0, "drift": 0.0},
        ]
    }
    answer = {**answer_of({}, num_repetitions=40, num_drifted=30), "blocks": blocks}
    monkeypatch.setattr(latency, "run_timing", lambda *_, **__: answer)
    found = measure({"m": path}, DeviceBudget(name="d"), config=TINY)["m"]
    assert "drifted by more than 15% in 50% of the repetitions" in found.diagnostic
    assert (found.environment["num_repetitions"], found.environment["num_drifted_repetitions"]) == (
        80,
        60,
    )


def test_says_that_the_machine_was_busy(monkeypatch, path):
    blocks = {"m": [{"ns": [1_000_000], "waited": 0.5, "drift": 0.0}]}
    answer = {**answer_of({}, num_blocks=4, num_contended=4), "blocks": blocks}
    monkeypatch.setattr(latency, "run_timing", lambda *_, **__: answer)
    found = measure({"m": path}, DeviceBudget(name="d"), config=TINY)
    assert not found["m"].converged
    assert "50%" in found["m"].diagnostic
    assert found["m"].environment["contended_fraction"] == 1.0


def test_peak_memory_grows_with_the_model(make_conv_net):
    """Weights of 4.7 MB more are at least that much more memory."""
    models = {"small": make_conv_net("a", (4,)), "large": make_conv_net("b", (256, 512))}
    few = dataclasses.replace(TINY, num_memory_runs=1)
    small, large = (
        one.memory for one in measure(models, DeviceBudget(name="d"), config=few).values()
    )
    assert small is not None and large is not None
    assert 0 < small.idle_bytes < small.peak_bytes
    assert large.added_bytes - small.added_bytes > 4_500_000


def test_memory_that_the_platform_does_not_tell(monkeypatch, path):
    monkeypatch.setattr(latency, "run_timing", lambda *_, **__: answer_of({"m": [1_000_000]}))
    monkeypatch.setattr(
        latency, "run_memory", lambda *_, **__: {"idle_bytes": None, "peak_bytes": None}
    )
    found = measure(
        {"m": path}, DeviceBudget(name="d"), config=dataclasses.replace(TINY, num_memory_runs=1)
    )
    assert found["m"].memory is None


def test_no_models_no_measurement():
    assert measure({}, DeviceBudget(name="d")) == {}


def test_more_threads_than_cores_are_refused(make_conv_net):
    with pytest.raises(SpecError, match=r"'many' has threads = 1024, but only \d+ cores"):
        measure({"m": make_conv_net("m")}, DeviceBudget(name="many", threads=1024))


def test_missing_file(tmp_path):
    with pytest.raises(MeasurementError, match="model 'm' cannot be measured: there is no file"):
        measure({"m": tmp_path / "none.onnx"}, DeviceBudget(name="d"))


def test_file_that_is_no_model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no protobuf")
    with pytest.raises(
        MeasurementError, match="model 'm' cannot be measured: ONNX Runtime cannot load"
    ):
        measure({"m": path}, DeviceBudget(name="d"), config=TINY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": TensorProto.INT64}, r"takes input: tensor\(int64\)"),
        ({"size": "side"}, r"shape \['batch', 1, 'side', 'side'\]"),
        ({"batch": 2}, "the runtime cannot run the model .*export it again"),
    ],
)
def test_model_that_cannot_be_fed(make_conv_net, options, message):
    models = {"good": make_conv_net("good"), "bad": make_conv_net("bad", **options)}
    with pytest.raises(MeasurementError, match=f"model 'bad' cannot be measured: .*{message}"):
        measure(models, DeviceBudget(name="d"), config=TINY)


@pytest.mark.parametrize("values", [{"min_processes": 1}, {"max_processes": 3}, {"num_blocks": 0}])
def test_configs_that_measure_nothing(values):
    with pytest.raises(ValueError, match="give 2 <= min_processes"):
        dataclasses.replace(QUICK, **values)


def test_needs_none_of_the_extras():
    """A device agent's machine has neither torch nor the libraries that fit predictors."""
    heavy = {"torch", "sklearn", "scipy", "onnx", "pandas", "ray", "optuna", "mlflow"}
    code = (
        "import sys, pkgutil, importlib, inn_automl.latency as latency, inn_automl.runtimes\n"
        "for module in pkgutil.iter_modules(latency.__path__):\n"
        "    importlib.import_module(f'inn_automl.latency.{module.name}')\n"
        f"print(sorted({heavy} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_does_not_import_from_the_current_folder(make_conv_net, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    path = make_conv_net("m")
    monkeypatch.chdir(tmp_path)
    found = measure({"m": Path(path.name)}, DeviceBudget(name="d"), config=TINY)
    assert found["m"].summary.num_samples > 0
