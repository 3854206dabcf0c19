"""Validation of coupled groups by running the module at other widths.

A traced graph holds the sizes of the example: whether a forward computes a size from its input or
has it written down is not visible there. So the module is discretized, run and traced again; every
tensor must have the predicted size. Groups that fail stay at full width, with the error as the
reason.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inn_automl.core.errors import ModuleError
from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.graph.trace import trace
from inn_automl.integral.graph.traced_module import TracedModule
from inn_automl.integral.sampling.parametrization import WeightSampler
from inn_automl.integral.sampling.partition import Nested


def find_coupling(module: nn.Module, example_input: Tensor, *, min_ratio: float) -> Coupling:
    """The coupled groups of a module, each of which it runs with at other widths.

    Args:
        module: any module that maps one tensor to one or more tensors.
        example_input: (N, ...) as the module's forward takes it, N of 1 or more.
        min_ratio: smallest ratio of a group's channels that is allowed, in (0, 1].

    Raises:
        ModuleError: `torch.export` cannot trace the module.
    """
    traced = TracedModule.from_module(module, example_input)
    keep: dict[str, str] = {}
    while True:
        coupling = traced.coupling(min_ratio, keep)
        failures = _Trial(module, example_input, traced, coupling).failures()
        if not failures:
            return coupling
        keep.update(failures)


class _Outcome(NamedTuple):
    """Shapes of a module's output, or the error that it raises."""

    shapes: Any
    error: str = ""


class _Trial:
    """Runs a module at other widths of a coupling.

    Args:
        module, example_input: see `find_coupling`.
        traced: the traced module.
        coupling: the coupling to validate.
    """

    def __init__(
        self, module: nn.Module, example_input: Tensor, traced: TracedModule, coupling: Coupling
    ) -> None:
        self._example_input = example_input
        self._traced = traced
        self._coupling = coupling
        self._sampler = WeightSampler(module, coupling, [Nested()] * len(coupling.groups))
        self._full = {group.name: group.size for group in coupling.groups}

    def failures(self) -> dict[str, str]:
        """Groups with which the module does not run as predicted, with the reason."""
        smallest = {group.name: group.allowed.start for group in self._coupling.groups}
        between = widths_between(self._coupling)
        if smallest == self._full:
            return {}
        expected = [self._run(self._full, training) for training in (False, True)]
        for widths in (smallest, between):
            if self._failure(widths, expected):
                return self._blame(widths, expected)
        try:
            discretized = trace(self._discretized(between), self._example_input)
        except ModuleError as error:
            return dict.fromkeys(self._full, f"the module runs at other widths but {error}")
        names, reason = self._traced.difference(self._coupling, between, discretized) or (set(), "")
        return dict.fromkeys(names or self._full, reason) if reason else {}

    def _blame(self, widths: Mapping[str, int], expected: list[_Outcome]) -> dict[str, str]:
        """The groups that do not go together with those before them."""
        accepted, failures = dict(self._full), {}
        for name, width in widths.items():
            trial = {**accepted, name: width}
            failure = self._failure(trial, expected)
            if failure:
                failures[name] = (
                    f"the module's forward does not run with {width} of them: {failure}"
                )
            else:
                accepted = trial
        return failures

    def _failure(self, widths: Mapping[str, int], expected: list[_Outcome]) -> str:
        """The first failure at the widths; empty if there is none."""
        for training, full in zip((False, True), expected, strict=True):
            found = self._run(widths, training)
            if full.error:  # what fails at full width proves nothing
                continue
            if found != full:
                return found.error or f"its output is {found.shapes} instead of {full.shapes}"
        return ""

    def _run(self, widths: Mapping[str, int], training: bool) -> _Outcome:
        module = self._discretized(widths).train(training)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _Outcome(_shapes_of(module(self._example_input)))
        except Exception as error:  # whatever the user's forward raises
            return _Outcome(None, " ".join(str(error).split())[:200] or type(error).__name__)

    def _discretized(self, widths: Mapping[str, int]) -> nn.Module:
        return self._sampler.discretize(self._coupling.counts(widths))


def widths_between(coupling: Coupling) -> dict[str, int]:
    """Allowed widths below the full ones, different for each group where there are enough."""
    rng = random.Random(0)
    chosen: dict[str, int] = {}
    for group in coupling.groups:
        reduced = group.allowed[:-1] or group.allowed
        unused = [width for width in reduced if width not in chosen.values()]
        chosen[group.name] = rng.choice(unused or reduced)
    return chosen


def _shapes_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return {key: _shapes_of(item) for key, item in value.items()}
    return (
        tuple(_shapes_of(item) for item in value)
        if isinstance(value, list | tuple)
        else type(value).__name__
    )
