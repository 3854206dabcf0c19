"""The agent without a coordinator: what it does with each answer."""

from __future__ import annotations

import functools
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from inn_automl.agent.agent import Agent
from inn_automl.agent.agent_client import RETRY, AgentClient
from inn_automl.agent.description import describe_device
from inn_automl.agent.model_cache import ModelCache
from inn_automl.api.devices import RegisterDevice
from inn_automl.api.measurements import MeasurementLease, ModelFile
from inn_automl.api.problems import MEDIA_TYPE
from inn_automl.core.errors import (
    InputError,
    MeasurementError,
    RefusedError,
)
from inn_automl.core.runtimes import RUNTIMES
from inn_automl.core.spec import DeviceBudget
from inn_automl.latency import benchmark as latency
from inn_automl.latency.config import BenchmarkConfig
from inn_automl.latency.machine_lock import machine_lock
from inn_automl.latency.measurement import LatencyMeasurement

CONTENT = b"a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODELS = {"m": ModelFile(sha256=SHA256, size_bytes=len(CONTENT))}
LEASE = MeasurementLease(
    id="msr_1",
    token="t",
    lease_s=0.2,
    device=DeviceBudget(name="d"),
    models=MODELS,
    benchmark_config=BenchmarkConfig().to_dict(),
)
Answer = Callable[[httpx.Request], httpx.Response]


def problem(status: int, detail: str = "no.") -> httpx.Response:
    body = {"type": "t", "title": "t", "status": status, "detail": detail, "code": "c"}
    return httpx.Response(status, json=body, headers={"Content-Type": MEDIA_TYPE})


class Coordinator:
    """Answers each path's end as told, else 204; keeps what was asked."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = {"models": lambda request: httpx.Response(200, content=CONTENT), **answers}
        self.asked: list[tuple[str, httpx.Request]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.split("/")
        what = "models" if "models" in parts else parts[-1]
        self.asked.append((what, request))
        return self.answers.get(what, lambda request: httpx.Response(204))(request)

    def names(self) -> list[str]:
        return [what for what, _ in self.asked if what != "heartbeat"]

    def client(self) -> AgentClient:
        retry = replace(RETRY, first_delay_s=0.001)
        transport = httpx.MockTransport(self)
        return AgentClient("http://127.0.0.1:1", "key", retry=retry, transport=transport)


def measured(models: Mapping[str, Path], *_: Any, **__: Any) -> dict[str, LatencyMeasurement]:
    one = {
        "percentile": 95.0,
        "samples_ms": [[[1.0]], [[1.1]]],
        "diagnostic": "",
        "environment": {},
    }
    return {name: LatencyMeasurement.from_dict(one) for name in models}


@pytest.fixture
def make_agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    clients = []

    def make(coordinator: Coordinator, measure: Any = measured) -> Agent:
        clients.append(coordinator.client())
        cache = ModelCache(tmp_path / "cache", 10**6)
        lock = functools.partial(machine_lock, folder=tmp_path)
        return Agent(clients[-1], "pi4", cache, measure=measure, lock=lock)

    yield make
    for client in clients:
        client.close()


def test_describes_this_machine() -> None:
    found = describe_device()
    assert found.num_cores >= 1
    assert "onnxruntime-cpu" in found.runtimes
    assert set(found.runtimes) | set(found.details["missing_runtimes"]) == set(RUNTIMES)
    for key in (
        "platform",
        "architecture",
        "python_version",
        "governor",
        "max_frequency_mhz",
        "turbo",
        "gpus",
    ):
        assert key in found.details
    assert RegisterDevice.model_validate_json(
        RegisterDevice(name="d", description=found).model_dump_json()
    )


def test_a_lease_is_measured_and_answered(make_agent: Callable[..., Agent]) -> None:
    coordinator = Coordinator()
    make_agent(coordinator).serve(LEASE)
    assert coordinator.names() == ["models", "results"]
    request = coordinator.asked[-1][1]
    assert request.headers["Lease-Token"] == "t"
    assert b'"samples_ms":[[[1.0]],[[1.1]]]' in request.content
    make_agent(coordinator).serve(LEASE)
    assert coordinator.names().count("models") == 1  # kept


def test_answers_again_until_it_is_heard(make_agent: Callable[..., Agent]) -> None:
    left = [
        problem(503),
        httpx.Response(404, text="a proxy says"),
        httpx.Response(502),
        problem(429),
    ]

    def results(request: httpx.Request) -> httpx.Response:
        return left.pop() if left else httpx.Response(204)

    coordinator = Coordinator(results=results)
    make_agent(coordinator).serve(LEASE)
    assert coordinator.names() == ["models", *["results"] * 5]


def test_a_broken_connection_is_asked_again(make_agent: Callable[..., Agent]) -> None:
    left = [httpx.ConnectError("refused"), httpx.ReadTimeout("late")]

    def lease(request: httpx.Request) -> httpx.Response:
        if left:
            raise left.pop()
        return httpx.Response(200, content=LEASE.model_dump_json())

    assert make_agent(Coordinator(lease=lease)).lease() == LEASE


@pytest.mark.parametrize("status", [401, 403, 404])
def test_who_may_not_speak_stops(make_agent: Callable[..., Agent], status: int) -> None:
    coordinator = Coordinator(lease=lambda request: problem(status, "the reason."))
    with pytest.raises(RefusedError, match="the reason"):
        make_agent(coordinator).run()
    assert coordinator.names() == ["devices", "lease"]


@pytest.mark.parametrize(
    ("status", "detail"),
    [(401, "the key is not known here."), (403, "the device 'pi4' belongs to the key inn_a...")],
)
def test_a_wrong_key_and_anothers_name_end_the_agent(
    make_agent: Callable[..., Agent], status: int, detail: str
) -> None:
    coordinator = Coordinator(devices=lambda request: problem(status, detail))
    with pytest.raises(RefusedError) as refused:
        make_agent(coordinator).run()
    assert str(refused.value) == detail
    assert coordinator.names() == ["devices"]


def test_a_key_that_is_revoked_in_the_middle_ends_the_agent(
    make_agent: Callable[..., Agent],
) -> None:
    def measure(*_: Any, on_progress: Callable[[float], None], **__: Any) -> Any:
        for _ in range(1000):
            time.sleep(0.01)
            on_progress(0.5)
        raise AssertionError("was not ended")

    coordinator = Coordinator(heartbeat=lambda request: problem(401, "the key was revoked."))
    with pytest.raises(RefusedError, match="the key was revoked"):
        make_agent(coordinator, measure).serve(LEASE)
    assert coordinator.names() == ["models"]


def test_a_file_whose_hash_differs_is_told(
    make_agent: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(models=lambda request: httpx.Response(200, content=b"another"))
    make_agent(coordinator).serve(LEASE)
    assert coordinator.names() == ["models", "failure"]
    assert b"came damaged: its hash differs" in coordinator.asked[-1][1].content
    assert "came damaged: its hash differs" in caplog.text


def test_a_runtime_that_is_not_installed_any_more_is_told(
    make_agent: Callable[..., Agent],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delitem(sys.modules, "inn_automl.runtimes.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    coordinator = Coordinator()
    device = DeviceBudget(name="d", runtime="openvino")
    make_agent(coordinator, latency.measure).serve(LEASE.model_copy(update={"device": device}))
    assert coordinator.names() == ["models", "failure"]
    assert b"`pip install openvino` adds it" in coordinator.asked[-1][1].content
    assert "`pip install openvino` adds it" in caplog.text


def test_a_fault_of_the_measurement_is_told(
    make_agent: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    def measure(*_: Any, **__: Any) -> Any:
        raise MeasurementError("model 'm' cannot be measured: too large.")

    coordinator = Coordinator()
    make_agent(coordinator, measure).serve(LEASE)
    assert coordinator.names() == ["models", "failure"]
    assert b"model 'm' cannot be measured: too large." in coordinator.asked[-1][1].content
    assert "model 'm' cannot be measured: too large." in caplog.text


def test_a_fault_that_nobody_foresaw_is_told(make_agent: Callable[..., Agent]) -> None:
    def measure(*_: Any, **__: Any) -> Any:
        raise KeyError("x")

    coordinator = Coordinator()
    make_agent(coordinator, measure).serve(LEASE)
    assert b"the agent on 'pi4' failed (KeyError" in coordinator.asked[-1][1].content


def test_a_lost_lease_ends_the_measuring(
    make_agent: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    beaten = threading.Event()

    def heartbeat(request: httpx.Request) -> httpx.Response:
        beaten.set()
        return problem(409, "the lease has ended.")

    def measure(*_: Any, on_progress: Callable[[float], None], **__: Any) -> Any:
        for _ in range(1000):
            time.sleep(0.01)
            on_progress(0.5)
        raise AssertionError("was not ended")

    coordinator = Coordinator(heartbeat=heartbeat)
    make_agent(coordinator, measure).serve(LEASE)
    assert beaten.is_set()
    assert coordinator.names() == ["models"]
    assert "abandoned measurement=msr_1: the lease has ended." in caplog.text


def test_heartbeats_tell_the_share(make_agent: Callable[..., Agent]) -> None:
    heard = threading.Event()

    def heartbeat(request: httpx.Request) -> httpx.Response:
        if b"0.25" in request.content:
            heard.set()
        return httpx.Response(204)

    def measure(
        models: Mapping[str, Path], *_: Any, on_progress: Callable[[float], None], **__: Any
    ) -> Any:
        on_progress(0.25)
        assert heard.wait(10)
        return measured(models)

    make_agent(Coordinator(heartbeat=heartbeat), measure).serve(LEASE)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_who_is_stopped_gives_back(
    make_agent: Callable[..., Agent], end: type[BaseException]
) -> None:
    def measure(*_: Any, **__: Any) -> Any:
        raise end

    coordinator = Coordinator()
    with pytest.raises(end):
        make_agent(coordinator, measure).serve(LEASE)
    assert coordinator.names() == ["models", "release"]


def test_refused_results_are_told_as_a_failure(
    make_agent: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(results=lambda request: problem(422, "'fast' is no latency."))
    make_agent(coordinator).serve(LEASE)
    assert coordinator.names() == ["models", "results", "failure"]
    assert b"'fast' is no latency." in coordinator.asked[-1][1].content
    assert "'fast' is no latency." in caplog.text


@pytest.mark.parametrize("content", [b"another", b"a model and more"])
def test_a_file_whose_hash_differs_is_told_as_a_failure(
    make_agent: Callable[..., Agent], content: bytes
) -> None:
    coordinator = Coordinator(models=lambda request: httpx.Response(200, content=content))
    make_agent(coordinator).serve(LEASE)
    assert coordinator.names() == ["models", "failure"]
    assert b"came damaged: its hash differs" in coordinator.asked[-1][1].content


def test_results_of_a_lease_that_ended_are_let_go(
    make_agent: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(results=lambda request: problem(409, "the lease has ended."))
    make_agent(coordinator).serve(LEASE)
    assert coordinator.names() == ["models", "results"]
    assert "abandoned measurement=msr_1: the lease has ended." in caplog.text


def test_a_server_that_is_no_url() -> None:
    with pytest.raises(InputError, match="is no URL"):
        AgentClient("http://a\nb", "key")


def test_the_machine_is_one_agents_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with machine_lock(waits.set, folder=tmp_path):
            order.append("second")

    with machine_lock(lambda: None, folder=tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
