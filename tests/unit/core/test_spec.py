from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.core.errors import InputError, SpecError, UnknownNameError
from inn_automl.core.spec import Budget, DeviceBudget, JobSpec, load_budget, parse

EXAMPLE = """
devices:
  - name: laptop-1-thread
    runtime: onnxruntime-cpu
    threads: 1
    max_latency_ms: 2.0
training: {max_minutes: 5, cpus: 2}
search: {max_evaluations: 200}
"""


def budget_of(folder: Path, text: str) -> Budget:
    path = folder / "budget.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budget(path)


def test_a_budget_is_read(tmp_path: Path) -> None:
    budget = budget_of(tmp_path, EXAMPLE)
    assert budget.devices == (DeviceBudget(name="laptop-1-thread", threads=1, max_latency_ms=2.0),)
    assert (budget.training.max_minutes, budget.training.cpus, budget.search.max_evaluations) == (
        5.0,
        2,
        200,
    )
    assert budget.devices[0].percentile == 95.0
    assert budget.devices[0].granularity == 1


def test_a_budget_survives_json() -> None:
    spec = JobSpec(
        dataset="digits", budget=Budget(devices=(DeviceBudget(name="a", max_macs=10**6),)), seed=3
    )
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


def test_large_numbers_may_be_written_short(tmp_path: Path) -> None:
    device = budget_of(
        tmp_path, "devices: [{name: a, max_macs: 2e6, max_params: 1.5e+5, max_size_bytes: 1_000}]"
    ).devices[0]
    assert (device.max_macs, device.max_params, device.max_size_bytes) == (
        2_000_000,
        150_000,
        1_000,
    )


def test_a_merged_mapping_may_be_overridden(tmp_path: Path) -> None:
    first, second = budget_of(
        tmp_path,
        "devices:\n  - &first {name: a, threads: 2, granularity: 8}\n  - {<<: *first, name: b, "
        "threads: 4}\n",
    ).devices
    assert (first.threads, second.threads, second.granularity) == (2, 4, 8)


@pytest.mark.parametrize(
    ("text", "place", "nearest"),
    [
        ("devices: [{name: a, thread: 1}]", "devices.0", "threads"),
        ("devices: [{name: a}, {name: b, max_latency: 1}]", "devices.1", "max_latency_ms"),
        ("devices: [{name: a, runtime: onnx-cpu}]", "devices.0.runtime", "onnxruntime-cpu"),
        ("device: [{name: a}]", "budget.yaml", "devices"),
        ("devices: [{name: a}]\ntraining: {max_minute: 5}", "training", "max_minutes"),
        ("devices: [{name: a}]\nsearch: {max_evaluation: 5}", "search", "max_evaluations"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    tmp_path: Path, text: str, place: str, nearest: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        budget_of(tmp_path, text)
    message = str(caught.value)
    assert place in message
    assert repr(caught.value.name) in message
    assert f"did you mean {nearest!r}?" in message


@pytest.mark.parametrize(
    ("value", "old", "new"),
    [
        ({"family": "mlp"}, "family", "model"),
        (
            {"budget": {"devices": [{"name": "a"}], "search": {"tune_seconds": 1}}},
            "tune_seconds",
            "fine_tune_seconds",
        ),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(
    value: dict[str, object], old: str, new: str
) -> None:
    spec = {"dataset": "digits", "budget": {"devices": [{"name": "a"}]}, **value}
    with pytest.raises(SpecError) as caught:
        parse(JobSpec, spec, where="the job")
    assert repr(old) in str(caught.value) and repr(new) in str(caught.value)


NUMBERS = [
    ("devices.0", "max_latency_ms"),
    ("devices.0", "max_params"),
    ("devices.0", "max_macs"),
    ("devices.0", "max_size_bytes"),
    ("devices.0", "threads"),
    ("devices.0", "batch_size"),
    ("devices.0", "percentile"),
    ("devices.0", "granularity"),
    ("training", "max_minutes"),
    ("training", "max_epochs"),
    ("training", "cpus"),
    ("training", "trials"),
    ("search", "max_evaluations"),
    ("search", "batch_size"),
    ("search", "patience"),
]
MAY_BE_ZERO = [("training", "gpus"), ("search", "fine_tune_seconds")]


@pytest.mark.parametrize(
    "value", ["-1", "0", ".nan", ".inf", "-.inf", "true", "'3'", "many", "[3]", "{a: 3}"]
)
@pytest.mark.parametrize(("section", "key"), [*NUMBERS, *MAY_BE_ZERO])
def test_an_impossible_number_is_refused(
    tmp_path: Path, section: str, key: str, value: str
) -> None:
    if (section, key) in MAY_BE_ZERO and value == "0":
        budget = budget_of(tmp_path, f"devices: [{{name: a}}]\n{section}: {{{key}: 0}}")
        assert getattr(getattr(budget, section), key) == 0
        return
    entry = f"{key}: {value}"
    text = (
        f"devices: [{{name: a, {entry}}}]"
        if section == "devices.0"
        else f"devices: [{{name: a}}]\n{section}: {{{entry}}}"
    )
    with pytest.raises(SpecError, match=rf"budget\.yaml', {section}\.{key} = .*: .+\.$"):
        budget_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("devices: []", r"devices = \[\]: give at least 1"),
        ("devices: [laptop]", "devices.0 = 'laptop': input should be a mapping"),
        ("devices: {name: a}", "devices = .* should be a list"),
        ("devices: [{threads: 1}]", "lacks the key 'devices.0.name': add it"),
        ("training: {cpus: 1}", "lacks the key 'devices': add it"),
        ("devices: [{name: a}, {name: a}]", "two devices are named 'a': give each its own name"),
        ("devices: [{name: ../up}]", r"devices.0.name = '\.\./up'"),
        ("devices: [{name: ''}]", "devices.0.name = ''"),
        ("devices: [{name: a, max_params: 1.5}]", "max_params = 1.5"),
        ("devices: [{name: a, percentile: 100}]", "percentile = 100"),
        (
            "devices: [{name: a}]\nsearch: {fine_tune_seconds: 1e5}",
            "fine_tune_seconds = 100000.0: .* 3600",
        ),
        ("devices: [{name: a}]\ntraining:", "training = None: input should be a mapping"),
        ("devices: [{name: a}]\n1: 2", "budget.yaml', 1"),
        ("", "must be a mapping of keys to values, not NoneType"),
        ("- name: a", "must be a mapping of keys to values, not list"),
        ("devices: [", "line 1, column 11"),
        ("devices: [{name: a}]\ndevices: []", 'line 2, column 1: found duplicate key "devices"'),
        ("devices: [{name: a, threads: 1, threads: 2}]", 'found duplicate key "threads"'),
        ("devices: [{name: 2026-13-45}]", "cannot be read as YAML"),
        ("devices: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("? [a]\n: b", "lacks the key 'devices': add it"),
        ("[" * 5000, "cannot be read as YAML"),
    ],
)
def test_a_bad_budget_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        budget_of(tmp_path, text)


def test_a_budget_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no budget file .*nowhere\.yaml"):
        load_budget(tmp_path / "nowhere.yaml")


def test_a_budget_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_budget(tmp_path)
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    with pytest.raises(SpecError, match="cannot be read"):
        load_budget(tmp_path / "picture")


@given(st.text())
def test_any_text_is_a_budget_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-budget.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        assert isinstance(load_budget(path), Budget)
    except SpecError as error:
        assert str(error).endswith(".")


KEYS = sorted({"devices", "name", "training", "search"} | {key for _, key in NUMBERS})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), VALUES))
def test_any_value_is_a_budget_or_refused(value: object) -> None:
    try:
        assert parse(Budget, value, where="the budget").devices
    except UnknownNameError as error:
        assert f"unknown {error.kind} {error.name!r} in the budget" in str(error)
    except SpecError as error:
        assert str(error).startswith("the budget")


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", -1), ("seed", 2**31), ("seed", True), ("dataset", ""), ("model", 3)],
)
def test_a_bad_job_is_refused(key: str, value: object) -> None:
    good = {"dataset": "digits", "budget": {"devices": [{"name": "a"}]}}
    with pytest.raises(InputError, match=f"the job, {key} = "):
        parse(JobSpec, {**good, key: value}, where="the job")


def test_a_device_may_name_its_agent() -> None:
    device = parse(DeviceBudget, {"name": "pi", "agent": "pi4"}, where="the device")
    assert device.agent == "pi4"
    assert parse(DeviceBudget, {"name": "pi"}, where="the device").agent is None
    with pytest.raises(SpecError, match="agent"):
        parse(DeviceBudget, {"name": "pi", "agent": "../pi4"}, where="the device")


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"workers_per_trial": 3, "cpus": 2}, "workers_per_trial = 3 is more than cpus = 2"),
        (
            {"workers_per_trial": 2, "cpus": 4, "gpus": 1},
            "workers_per_trial = 2 is more than gpus = 1",
        ),
        ({"workers_per_trial": 0}, "workers_per_trial = 0"),
    ],
)
def test_a_trial_has_no_more_workers_than_there_are_processors(
    training: dict[str, int], told: str
) -> None:
    budget = {"devices": [{"name": "d"}], "training": training}
    with pytest.raises(SpecError, match=told):
        parse(Budget, budget, where="b")
    assert parse(Budget, {**budget, "training": {"workers_per_trial": 2, "cpus": 2}}, where="b")


def test_a_job_names_its_metric_and_its_time() -> None:
    budget = {"devices": [{"name": "d"}], "max_minutes": 20}
    good = {"dataset": "digits", "budget": budget}
    spec = parse(JobSpec, {**good, "metric": "recall:3", "class_weights": "balanced"}, where="it")
    assert (spec.metric, spec.class_weights, spec.budget.max_minutes) == (
        "recall:3",
        "balanced",
        20,
    )
    plain = parse(
        JobSpec, {"dataset": "digits", "budget": {"devices": [{"name": "d"}]}}, where="it"
    )
    assert (plain.metric, plain.class_weights, plain.budget.max_minutes) == (None, "none", None)
    with pytest.raises(SpecError, match="did you mean 'balanced_accuracy'"):
        parse(JobSpec, {**good, "metric": "balanced_acuracy"}, where="it")
    with pytest.raises(SpecError, match="class_weights = 'equal'"):
        parse(JobSpec, {**good, "class_weights": "equal"}, where="it")
    with pytest.raises(SpecError, match=r"max_minutes = 0: input should be greater than 0"):
        parse(Budget, {**budget, "max_minutes": 0}, where="b")
