"""Base class of the runtimes that are execution providers of ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import onnxruntime

from inn_automl.core.errors import MeasurementError
from inn_automl.runtimes import NodeTime, RunOnce, Runtime, typical
from inn_automl.runtimes.inputs import random_input

Provider = tuple[str, dict[str, str]]
"""Name and options."""


class OnnxRuntime(Runtime):
    """One inference at a time, operators one after another."""

    name: ClassVar[str]
    """Name of the runtime in budgets."""
    session_config: ClassVar[dict[str, str]] = {}

    @abstractmethod
    def providers(self) -> list[Provider]:
        """Execution providers: an operation goes to the first one that has it."""

    def providers_of(self, path: Path) -> list[Provider]:
        """Execution providers for one model."""
        return self.providers()

    def load(self, path: Path, batch_size: int) -> RunOnce:
        session = self._session(path, self._options())
        feed = _feed(session, path, batch_size)
        # `run` with numpy arrays in and out is how an application calls it, so its cost belongs to
        # the latency. On a GPU that is also what waits for the result.
        return lambda: session.run(None, feed)

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": self.name,
            "runtime_version": onnxruntime.__version__,
            "session_options": {
                "intra_op_num_threads": self.threads,
                "inter_op_num_threads": 1,
                "execution_mode": "sequential",
                **self.session_config,
                **{name: options for name, options in self.providers() if options},
            },
        }

    def profile(self, path: Path, batch_size: int, num_runs: int) -> list[NodeTime]:
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = f"{folder}/profile"
            session = self._session(path, options)
            feed = _feed(session, path, batch_size)
            for _ in range(num_runs):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _node_times(events, num_runs)

    def _options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        for key, value in self.session_config.items():
            options.add_session_config_entry(key, value)
        return options

    def _session(self, path: Path, options: Any) -> Any:
        try:
            wanted = self.providers_of(path)
            session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
            reason = " ".join(str(error).split())
            raise MeasurementError(
                f"ONNX Runtime cannot load {str(path)!r} ({reason}): export it again."
            ) from None
        used = session.get_providers()
        # A provider that cannot start is left out with no more than a warning, and the CPU would
        # be timed in its place.
        if not used or used[0] != wanted[0][0]:
            raise MeasurementError(
                f"{wanted[0][0]} could not start, ONNX Runtime would use "
                f"{', '.join(used) or 'nothing'} in its place: "
                "check that its libraries can be loaded (run the agent with ORT_LOGGING_LEVEL=0, "
                "its log names them)."
            )
        session.disable_fallback()  # nor in the middle of a run
        return session


def _feed(session: Any, path: Path, batch_size: int) -> dict[str, Any]:
    inputs = session.get_inputs()
    shape = inputs[0].shape if inputs else []
    array = random_input(
        path, [one.name for one in inputs], [one.type for one in inputs], shape, batch_size
    )
    return {inputs[0].name: array}


def _node_times(events: list[dict[str, Any]], num_runs: int) -> list[NodeTime]:
    """Times of the operations. The second half of the runs counts: the first warms up."""
    microseconds: dict[tuple[int, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            arguments = event["args"]
            name = event["name"].removesuffix("_kernel_time")
            key = (int(arguments["node_index"]), name, str(arguments["op_name"]))
            microseconds.setdefault(key, []).append(float(event["dur"]))
    later = {key: values[num_runs // 2 :] for key, values in microseconds.items()}
    return [
        NodeTime(name, kind, typical(values) / 1e3)
        for (_, name, kind), values in later.items()
        if values
    ]
