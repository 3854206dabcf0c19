"""Activation capture: inputs and outputs of the layers that sum over coupled groups, on a few
hundred samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from inn_automl.core.errors import InputError
from inn_automl.integral.conversion.saturation import Bounds, SaturationRecorder
from inn_automl.integral.conversion.windows import choose_positions, rows_at
from inn_automl.integral.graph.layout import AxisLayout
from inn_automl.integral.modes import evaluating
from inn_automl.integral.network import IntegralNetwork

MIN_SAMPLES = 16


@dataclass(frozen=True)
class Consumer:
    """A layer that sums over channels of coupled groups.

    Attributes:
        path: of the layer in the module.
        weight: name of its weight.
        layout: layout of its input axis.
    """

    path: str
    weight: str
    layout: AxisLayout


@dataclass
class LayerActivations:
    """Inputs and outputs of a consumer.

    Attributes:
        inputs: (r, f) features of its input, at some positions of each sample.
        outputs: (r, o) its output, at other positions of each sample.
        positions: (k,) positions of `outputs`.
        norm: path of the normalization layer that takes its output, so that a mean does not
            matter; else None.
        saturation: bounds of the activation that alone takes the output (normalized, where it is);
            None if there is none.
        num_calls: how often the layer ran.
    """

    inputs: Tensor
    outputs: Tensor
    positions: Tensor
    norm: str | None = None
    saturation: Bounds | None = None
    num_calls: int = 1


def consumers(network: IntegralNetwork) -> list[Consumer]:
    """The linear and convolutional layers that sum over channels of coupled groups."""
    coupling, found = network.coupling, []
    names = {id(parameter): name for name, parameter in network.module.named_parameters()}
    for path, layer in network.module.named_modules():
        is_conv = (
            isinstance(layer, _ConvNd)
            and not isinstance(layer, _ConvTransposeNd)
            and layer.groups == 1
        )
        if is_conv or isinstance(layer, nn.Linear):
            name = names.get(id(layer.weight))
            if name is None:
                continue  # computed from other parameters
            layout = coupling.axes[name][1]
            if 1 in coupling.contracted.get(name, ()) and any(
                segment.group >= 0 for segment in layout
            ):
                found.append(Consumer(path, name, layout))
    return found


def capture_activations(
    network: IntegralNetwork, samples: Tensor, layers: Sequence[Consumer]
) -> dict[str, LayerActivations]:
    """Runs the full width in evaluation mode and captures inputs and outputs of layers.

    Args:
        samples: (N, ...) inputs as the module takes them.
        layers: see `consumers`.

    Returns:
        By the consumer's path; consumers that did not run are missing.

    Raises:
        InputError: there are too few samples, all of them are alike, or the module cannot be run
            on them or gives numbers that are not finite.
    """
    check_samples(samples)
    module = network.discretize(network.full_widths)
    capture = _Capture(module)
    hooks = capture.register(layers)
    try:
        with torch.no_grad(), evaluating(module), capture.recorder:
            output = module(samples)
    except Exception as error:  # whatever a user's module makes of samples that it was not made for
        raise InputError(
            f"{type(module).__name__} cannot be run on the samples, {samples.dtype} of shape "
            f"{tuple(samples.shape)} ({error}): give samples as the module takes them."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(output, Tensor) and not torch.isfinite(output).all():
        raise InputError(
            f"{type(module).__name__} makes numbers of the samples that are not finite: give a "
            f"module whose training went well, and samples as it takes them."
        )
    return capture.finish()


class _Capture:
    """Hooks that capture the activations of a module's layers.

    Args:
        module: the module that runs.
    """

    def __init__(self, module: nn.Module) -> None:
        self.recorder = SaturationRecorder()
        self._module = module
        self._paths = {layer: path for path, layer in module.named_modules()}
        self._captured: dict[str, LayerActivations] = {}
        self._latest: tuple[str, Tensor] | None = None

    def register(self, layers: Sequence[Consumer]) -> list[torch.utils.hooks.RemovableHandle]:
        """Hooks on the layers and on every normalization."""
        consuming = [self._module.get_submodule(one.path) for one in layers]
        norms = [layer for layer in self._module.modules() if isinstance(layer, _NormBase)]
        return [
            *(layer.register_forward_hook(self._after_consumer) for layer in consuming),
            *(norm.register_forward_hook(self._after_norm) for norm in norms),
        ]

    def finish(self) -> dict[str, LayerActivations]:
        """The activations by the path of the layer."""
        for path, one in self._captured.items():
            if one.num_calls == 1:
                one.saturation = self.recorder.bounds(path, 1 if one.norm is None else 2)
        return self._captured

    def _after_consumer(
        self, layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor
    ) -> None:
        (x,) = arguments
        path = self._paths[layer]
        if path in self._captured:
            self._captured[path].num_calls += 1
            return
        positions = choose_positions(layer, output)
        inputs = rows_at(layer, x, choose_positions(layer, x))
        outputs = rows_at(layer, output, positions)
        self._captured[path] = LayerActivations(inputs, outputs, positions)
        self._latest = path, output
        self.recorder.watch(output, path)

    def _after_norm(
        self, norm: nn.Module, arguments: tuple[Tensor, ...], normalized: Tensor
    ) -> None:
        if self._latest is not None and arguments[0] is self._latest[1]:
            path = self._latest[0]
            self._captured[path].norm = self._paths[norm]
            self.recorder.watch(normalized, path)


def check_samples(samples: Tensor) -> None:
    """Checks samples for a conversion.

    Raises:
        InputError: they are no tensor, too few, not finite or all alike.
    """
    if not isinstance(samples, Tensor):
        raise InputError(f"the samples are a {type(samples).__name__}: give one tensor (N, ...).")
    if len(samples) < MIN_SAMPLES:
        raise InputError(
            f"{_counted(len(samples))} given: give at least {MIN_SAMPLES}, better 500."
        )
    if not torch.isfinite(samples).all():
        raise InputError("the samples hold numbers that are not finite: leave these samples out.")
    if (samples == samples[:1]).all():
        raise InputError("the samples are all alike: give samples as they come in use.")


def _counted(num: int) -> str:
    return "1 sample was" if num == 1 else f"{num} samples were"
