"""What the layers that sum over coupled channels see, and make, of a few hundred samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from inn_automl.core.errors import InputError
from inn_automl.integral.graph.groups import AxisLayout, Coupling
from inn_automl.integral.graph.trace import evaluating
from inn_automl.integral.network import IntegralNetwork

MIN_SAMPLES = 16
MAX_ROWS = 8192
"""Rows kept of a layer's input: samples times places (of an image, of a signal)."""
_RECTIFIERS = frozenset({functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})


@dataclass(frozen=True)
class Consumer:
    """A layer that sums over channels of coupled groups, and what its input axis is made of."""

    path: str
    weight: str
    parts: AxisLayout


@dataclass
class LayerActivations:
    """What a consumer has seen and made of the samples.

    Attributes:
        inputs: (r, f) features of its input, at some places of each sample.
        outputs: (r, o) its output, at other places of each sample.
        places: (k,) which places of the output these are.
        norm: path of the normalization layer that takes its output, so that a mean does not
            matter; else None.
        saturation: between which values the activation passes the output (normalized, where it is), and
            that nothing else sees it: what lies beyond does not matter. None where that is not so.
        num_calls: how often it ran.
    """

    inputs: Tensor
    outputs: Tensor
    places: Tensor
    norm: str | None = None
    saturation: tuple[float, float] | None = None
    num_calls: int = 1


class _TensorUses(TorchFunctionMode):
    """While it is entered, counts what takes the tensors that are watched, and notes by what they
    are clipped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watched = WeakIdKeyDictionary()  # tensor -> path of the layer that it comes from
        self._num: Counter[str] = Counter()
        self.saturations: dict[str, tuple[float, float]] = {}

    def watch(self, tensor: Tensor, path: str) -> None:
        self._watched[tensor] = path

    def only_saturates(self, path: str, num_steps: int) -> bool:
        """Whether nothing but `num_steps` operations in a row, the last of which saturations, has taken
        what a layer made.
        """
        return path in self.saturations and self._num[path] == num_steps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(
            isinstance(one, Tensor) for one in (out if isinstance(out, list | tuple) else (out,))
        ):
            flat = [
                one
                for argument in args
                for one in (argument if isinstance(argument, list | tuple) else (argument,))
            ]
            for tensor in flat:
                path = self._watched.get(tensor) if isinstance(tensor, Tensor) else None
                if path is not None:
                    self._num[path] += 1
                    bounds = _saturation_bounds(func, args, kwargs or {})
                    if bounds is not None:
                        self.saturations[path] = bounds
                        if out is tensor:  # in place
                            del self._watched[tensor]
        return out


def _saturation_bounds(func: Any, args: Any, kwargs: Any) -> tuple[float, float] | None:
    if func in _RECTIFIERS:
        return 0.0, math.inf
    if func is functional.relu6:
        return 0.0, 6.0
    if func is functional.hardtanh:
        low, high = (
            *args[1:3],
            *(kwargs.get(key, value) for key, value in (("min_val", -1.0), ("max_val", 1.0))),
        )[:2]
        return float(low), float(high)
    return None


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
            parts = coupling.axes[name][1]
            if 1 in coupling.contracted.get(name, ()) and any(part.group >= 0 for part in parts):
                found.append(Consumer(path, name, parts))
    return found


def capture_activations(
    network: IntegralNetwork, samples: Tensor, layers: list[Consumer]
) -> dict[str, LayerActivations]:
    """Runs the full width in evaluation mode.

    Args:
        samples: (N, ...) inputs as the module takes them.

    Returns:
        By the consumer's path; consumers that did not run are missing.

    Raises:
        InputError: there are too few samples, all of them are alike, or the module cannot be run
            on them or makes numbers of them that are not finite.
    """
    check_samples(samples)
    module = network.discretize(network.full_widths)
    seen: dict[str, LayerActivations] = {}
    latest: list[tuple[str, Tensor]] = []
    uses = _TensorUses()
    names = {layer: name for name, layer in module.named_modules()}

    def looking(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def look(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            (x,) = arguments
            if path in seen:
                seen[path].num_calls += 1
                return
            places = choose_places(layer, output)
            inputs = rows_at(layer, x, choose_places(layer, x))
            seen[path] = LayerActivations(inputs, rows_at(layer, output, places), places)
            latest[:] = [(path, output)]
            uses.watch(output, path)

        return look

    def normalizing(layer: nn.Module, arguments: tuple[Tensor, ...], normalized: Tensor) -> None:
        for path, output in latest:
            if arguments[0] is output:
                seen[path].norm = names[layer]
                uses.watch(normalized, path)

    hooks = [
        module.get_submodule(one.path).register_forward_hook(looking(one.path)) for one in layers
    ]
    hooks += [
        m.register_forward_hook(normalizing) for m in module.modules() if isinstance(m, _NormBase)
    ]
    try:
        with torch.no_grad(), evaluating(module), uses:
            output = module(samples)
    except Exception as error:  # whatever a user's module makes of samples that it was not made for
        raise InputError(
            f"{type(module).__name__} cannot be run on the samples, {samples.dtype} of "
            f"shape "
            f"{tuple(samples.shape)} ({error}): give samples as the module takes them."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(output, Tensor) and not torch.isfinite(output).all():
        raise InputError(
            f"{type(module).__name__} makes numbers of the samples that are not "
            f"finite: give a module "
            "whose training went well, and samples as it takes them."
        )
    for path, one in seen.items():
        if one.num_calls == 1 and uses.only_saturates(path, 1 if one.norm is None else 2):
            one.saturation = uses.saturations[path]
    return seen


def choose_places(layer: nn.Module, x: Tensor) -> Tensor:
    """Places (k,) of each sample of a layer's input or output, spread at random but the same every
    time.
    """
    num_places = x[0].numel() // x.shape[_channels(layer)]
    order = torch.randperm(num_places, generator=torch.Generator().manual_seed(0))
    return order[: max(1, MAX_ROWS // len(x))].to(x.device)


def rows_at(layer: nn.Module, x: Tensor, places: Tensor) -> Tensor:
    """(N * k, channels) of a layer's input or output at `k` places of each sample."""
    by_place = x.movedim(_channels(layer), -1).reshape(len(x), -1, x.shape[_channels(layer)])[
        :, places
    ]
    return by_place.flatten(0, 1)


def windows_at(layer: nn.Module, x: Tensor, places: Tensor) -> Tensor:
    """What a layer multiplies with its weights for its output at `k` places of each sample.

    Returns:
        (N * k, f), `f` as in the flattened weights of one output channel.
    """
    if isinstance(layer, nn.Linear):
        return rows_at(layer, x, places)
    assert isinstance(layer, _ConvNd)
    padded = _padded(layer, x)
    sizes = padded.shape[2:]
    steps = list(zip(sizes, layer.kernel_size, layer.stride, layer.dilation, strict=True))
    out = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, dilation in steps
    ]
    corners = torch.stack(torch.unravel_index(places, out), dim=1) * places.new_tensor(layer.stride)
    axes = [torch.arange(kernel, device=x.device) * dilation for _, kernel, _, dilation in steps]
    offsets = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    index = corners[:, None] + offsets
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    flat = (index * places.new_tensor(strides)).sum(-1)  # (k, kernel elements)
    taken = padded.flatten(2)[:, :, flat.flatten()].unflatten(2, flat.shape)
    return taken.transpose(1, 2).flatten(2).flatten(0, 1)


def _padded(layer: _ConvNd, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        amounts = [(total // 2, total - total // 2) for total in totals]
    elif layer.padding == "valid":
        amounts = [(0, 0) for _ in layer.kernel_size]
    else:
        amounts = [(int(amount), int(amount)) for amount in layer.padding]
    flat = [amount for pair in reversed(amounts) for amount in pair]
    return functional.pad(x, flat, mode=mode) if any(flat) else x


def _channels(layer: nn.Module) -> int:
    """The dimension of channels."""
    return -1 if isinstance(layer, nn.Linear) else 1


def segment_columns(
    coupling: Coupling, group: int, outer: int, inner: int, samples: tuple[int, ...]
) -> Tensor:
    """(p, n) features of one part of an axis."""
    if group < 0:
        return torch.arange(outer * inner).reshape(1, -1)
    unit = unit_of(coupling, group, inner)
    features = torch.arange(outer * samples[group] * inner)
    return (
        features.reshape(outer, samples[group], unit, inner // unit)
        .permute(0, 3, 1, 2)
        .flatten(2)
        .flatten(0, 1)
    )


def unit_of(coupling: Coupling, group: int, inner: int) -> int:
    """Channels of one sample of a group that are channels of their own in a part of an axis."""
    unit = coupling.groups[group].unit
    return unit if inner % unit == 0 else 1


def check_samples(samples: Tensor) -> None:
    """Raises `InputError` for samples that are no tensor, too few, not finite or all
    alike.
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
