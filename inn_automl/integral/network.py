"""The integral network: one trained model that can be sampled to any widths.

K. Solodskikh et al., "Integral Neural Networks", CVPR 2023. The module's own parameters are the nodes of its
continuous weights; `forward` samples them at given widths and runs the module's own forward on the samples.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inn_automl.errors import CorruptFileError, ModuleError, StorageError, WidthsError
from inn_automl.integral.costs import Costs
from inn_automl.integral.coupling import Coupling, Group, Parts, Unfollowed, find_coupling
from inn_automl.integral.partition import Nested, Partition, Sampling, Trainable, partition_from_json

FORMAT_VERSION = 1
Widths = Mapping[str, int]


class IntegralNetwork(nn.Module):
    """A module whose channel dimensions are continuous.

    Args:
        module: any torch module that maps one tensor to one; copied, never changed.
        example_input: (N, ...) that the module accepts; only its shape and dtype matter.
        partition: how channels are sampled, for all coupled groups or by group name.
        min_ratio: smallest allowed share of a group's channels, in (0, 1].

    Attributes:
        module: the copy; its parameters are the nodes.
        coupling: which channels are resized together.

    Raises:
        ModuleError: the module cannot be traced or has no channels that can be resized.

    Sampling replaces parameters while the module runs, so that one instance serves one thread at a time.
    """

    def __init__(
        self,
        module: nn.Module,
        example_input: Tensor,
        *,
        partition: Partition | Mapping[str, Partition] | None = None,
        min_ratio: float = 0.25,
        coupling: Coupling | None = None,
    ) -> None:
        super().__init__()
        if not 0 < min_ratio <= 1:
            raise WidthsError(f"min_ratio = {min_ratio} is not a share of the channels: give more than 0, at most 1.")
        self.module = copy.deepcopy(module)
        self.min_ratio = min_ratio
        self._follow(coupling or find_coupling(self.module, example_input, min_ratio=min_ratio))
        if coupling is None:
            self._drop_groups_that_do_not_run(example_input)
        if not self.groups:
            reasons = "; ".join(map(str, self.unfollowed)) or "it has no weighted layer between input and output"
            raise ModuleError(f"{type(module).__name__} has no channels that can be resized: {reasons}.")
        self._set_partitions(partition or Nested())
        self._absorb_full_width_weights()

    # What the network is.

    @property
    def groups(self) -> tuple[Group, ...]:
        """The coupled groups, in the order in which they are first produced."""
        return self.coupling.groups

    @property
    def unfollowed(self) -> tuple[Unfollowed, ...]:
        """Channels that stay at full width, with the operation that could not be followed."""
        return self.coupling.unfollowed

    @property
    def full_widths(self) -> dict[str, int]:
        return {group.name: group.size for group in self.groups}

    @property
    def smallest_widths(self) -> dict[str, int]:
        return {group.name: group.allowed.start for group in self.groups}

    def uniform_widths(self, ratio: float) -> dict[str, int]:
        """The allowed widths nearest to a share of every group."""
        return {
            group.name: min(group.allowed, key=lambda width, group=group: abs(width - ratio * group.size))  # type: ignore[misc]
            for group in self.groups
        }

    def costs(self, widths: Widths) -> Costs:
        """Parameters and multiply-accumulates for one sample of the example's shape.

        Raises:
            WidthsError: see `check_widths`.
        """
        return self.coupling.costs(self.check_widths(widths))

    def check_widths(self, widths: Widths) -> dict[str, int]:
        """The widths in the order of `groups`.

        Raises:
            WidthsError: a group is missing or unknown, or a width is not allowed.
        """
        unknown = [name for name in widths if name not in self.full_widths]
        if unknown:
            nearest = difflib.get_close_matches(unknown[0], self.full_widths, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise WidthsError(f"there is no coupled group {unknown[0]!r}: {hint}Groups: {', '.join(self.full_widths)}.")
        checked = {}
        for group in self.groups:
            if group.name not in widths:
                raise WidthsError(f"widths lack the coupled group {group.name!r}: give {_describe(group.allowed)}.")
            width = int(widths[group.name])
            if width != widths[group.name] or width not in group.allowed:
                raise WidthsError(
                    f"width {widths[group.name]} of {group.name!r} is not allowed: give {_describe(group.allowed)}."
                )
            checked[group.name] = width
        return checked

    # Sampling.

    def forward(self, x: Tensor, widths: Widths | None = None) -> Tensor:
        """The network's output at the widths; at full width if none are given.

        Differentiable in the nodes and in trainable partitions. At full width, batch normalization in training mode
        updates its running statistics; at other widths it leaves them alone.

        Raises:
            WidthsError: see `check_widths`.
        """
        samples = self.coupling.samples(self.full_widths if widths is None else self.check_widths(widths))
        if self._is_identity(samples):
            return self.module(x)  # type: ignore[no-any-return]
        tensors = dict(self._sampled(samples, self.module.named_parameters()))
        for name, value in self._sampled(samples, self.module.named_buffers()):
            tensors[name] = value.clone() if self.training else value
        with self._resized(samples, tensors):
            return torch.func.functional_call(self.module, tensors, (x,))  # type: ignore[no-any-return]

    def discretize(self, widths: Widths) -> nn.Module:
        """A plain module at the widths, with tensors of its own.

        Its normalization statistics are those of the full width, resampled: re-estimate them
        (`normalization.reestimate_normalization`) before use.

        Raises:
            WidthsError: see `check_widths`.
        """
        samples = self.coupling.samples(self.check_widths(widths))
        memo: dict[int, Any] = {}
        with torch.no_grad():
            originals = dict(self.module.named_parameters())
            for name, value in self._sampled(samples, originals.items()):
                requires_grad = originals[name].requires_grad
                memo[id(originals[name])] = nn.Parameter(_own(value), requires_grad=requires_grad)
            buffers = dict(self.module.named_buffers())
            for name, value in self._sampled(samples, buffers.items()):
                memo[id(buffers[name])] = _own(value)
        plain = copy.deepcopy(self.module, memo)
        for path, attribute, value in self._attributes(samples, dict(plain.named_modules())):
            setattr(plain.get_submodule(path), attribute, value)
        _declare_sizes(plain)
        return plain

    def _sampled(
        self, samples: tuple[int, ...], tensors: Iterator[tuple[str, Tensor]] | Any
    ) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors:
            contracted = self.coupling.contracted.get(name, ())
            for dim, parts in enumerate(self.coupling.axes[name]):
                if any(p.group >= 0 for p in parts):
                    tensor = self._sample_axis(tensor, dim, parts, samples, integrate=dim in contracted)
            yield name, tensor

    def _sample_axis(
        self, tensor: Tensor, dim: int, parts: Parts, samples: tuple[int, ...], *, integrate: bool
    ) -> Tensor:
        if len(parts) > 1:
            lengths = [self.coupling.length((part,), self._full_samples) for part in parts]
            pieces = tensor.split(lengths, dim)
            return torch.cat(
                [
                    self._sample_axis(piece, dim, (part,), samples, integrate=integrate)
                    for piece, part in zip(pieces, parts, strict=True)
                ],
                dim,
            )
        (part,) = parts
        if part.group < 0:
            return tensor
        sampling = self._sampling(part.group, samples[part.group], tensor)
        if sampling.is_identity:
            return tensor
        if part.outer == part.inner == 1:
            return sampling.apply(tensor, dim, integrate=integrate)
        split = tensor.unflatten(dim, (part.outer, sampling.num_nodes, part.inner))
        return sampling.apply(split, dim + 1, integrate=integrate).flatten(dim, dim + 2)

    def _sampling(self, group: int, num_samples: int, like: Tensor) -> Sampling:
        partition = self._partitions[group]
        dtype = like.dtype if like.is_floating_point() else torch.float32
        key = (group, num_samples, like.device, dtype)
        sampling = self._cache.get(key)
        if sampling is None:
            sampling = partition.sampling(self._full_samples[group], num_samples).to(like.device, dtype)
            if not isinstance(partition, Trainable):
                self._cache[key] = sampling
        return sampling

    def _is_identity(self, samples: tuple[int, ...]) -> bool:
        if samples != self._full_samples:
            return False
        like = next(self.module.parameters())
        return all(self._sampling(i, n, like).is_identity for i, n in enumerate(samples))

    def _attributes(self, samples: tuple[int, ...], modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, Any]]:
        """(module path, attribute, value) of attributes that a module's forward reads and that follow the widths."""
        for path, parts in self.coupling.conv_groups.items():
            if isinstance(modules.get(path), nn.modules.conv._ConvNd):
                yield path, "groups", self.coupling.length(parts, samples)
        for path in self._normalized:
            axes = self.coupling.axes[f"{path}.weight" if path else "weight"]
            yield path, "normalized_shape", tuple(self.coupling.length(parts, samples) for parts in axes)

    @contextlib.contextmanager
    def _resized(self, samples: tuple[int, ...], tensors: dict[str, Tensor]) -> Iterator[None]:
        restore = []
        for path, attribute, value in self._attributes(samples, self._modules_by_path):
            module = self._modules_by_path[path]
            restore.append((module, attribute, getattr(module, attribute)))
            setattr(module, attribute, value)
        try:
            yield
        finally:
            for module, attribute, value in restore:
                setattr(module, attribute, value)

    # Construction.

    def _follow(self, coupling: Coupling) -> None:
        self.coupling = coupling
        self._full_samples = coupling.samples({group.name: group.size for group in coupling.groups})
        self._partitions: list[Partition] = [Nested()] * len(coupling.groups)
        self._cache: dict[Any, Sampling] = {}

    @property
    def _modules_by_path(self) -> dict[str, nn.Module]:
        found = self.__dict__.get("_paths")
        if found is None:
            found = self.__dict__["_paths"] = dict(self.module.named_modules())
        return found  # type: ignore[no-any-return]

    @property
    def _normalized(self) -> list[str]:
        found = self.__dict__.get("_normalized_paths")
        if found is None:
            found = self.__dict__["_normalized_paths"] = [
                path
                for path, module in self.module.named_modules()
                if isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.weight is not None
            ]
        return found  # type: ignore[no-any-return]

    def _drop_groups_that_do_not_run(self, example_input: Tensor) -> None:
        """Keeps groups at full width whose resizing breaks the module's forward, e.g. by a hard-coded shape."""
        keep: dict[str, str] = {}
        with torch.no_grad():
            expected = _shape_of(self._run(example_input, self.full_widths))
            while self.groups and self._fault(example_input, self.smallest_widths, expected):
                faults = {}
                for group in self.groups:
                    widths = {**self.full_widths, group.name: group.allowed.start}
                    fault = self._fault(example_input, widths, expected)
                    if fault:
                        faults[group.name] = f"the module's forward does not run at {group.allowed.start}: {fault}"
                if not faults:  # each runs alone, only together they do not
                    faults = {
                        group.name: "the module's forward does not run with all groups resized" for group in self.groups
                    }
                keep.update(faults)
                self._follow(find_coupling(self.module, example_input, min_ratio=self.min_ratio, keep=keep))

    def _run(self, example_input: Tensor, widths: Widths) -> Any:
        training = self.training
        self.eval()
        try:
            return self(example_input, widths)
        finally:
            self.train(training)

    def _fault(self, example_input: Tensor, widths: Widths, expected: Any) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = _shape_of(self._run(example_input, widths))
        except Exception as error:  # whatever the user's forward raises
            return " ".join(str(error).split())[:200] or type(error).__name__
        return "" if found == expected else f"its output is {found} instead of {expected}"

    def _set_partitions(self, partition: Partition | Mapping[str, Partition]) -> None:
        if isinstance(partition, Partition):
            chosen = {group.name: partition for group in self.groups}
        else:
            unknown = sorted(set(partition) - set(self.full_widths))
            if unknown:
                raise WidthsError(f"there is no coupled group {unknown[0]!r}: give {', '.join(self.full_widths)}.")
            chosen = {group.name: partition.get(group.name, Nested()) for group in self.groups}
        self._partitions = [chosen[group.name] for group in self.groups]
        self._cache.clear()
        self.trainable_partitions = nn.ModuleList(p for p in self._partitions if isinstance(p, Trainable))

    def _absorb_full_width_weights(self) -> None:
        """Divides the nodes by the quadrature weights at full width, so that sampling there gives the module back."""
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                for dim in self.coupling.contracted.get(name, ()):
                    ones = torch.ones(parameter.shape[dim], dtype=parameter.dtype, device=parameter.device)
                    parts = self.coupling.axes[name][dim]
                    if any(isinstance(self._partitions[p.group], Trainable) for p in parts if p.group >= 0):
                        continue
                    full = self._sample_axis(ones, 0, parts, self._full_samples, integrate=True)
                    if full.shape == ones.shape and bool((full > 0).all()):
                        parameter /= full.reshape([-1] + [1] * (parameter.dim() - dim - 1))

    # State.

    def save(self, folder: str | Path) -> None:
        """Writes `nodes.safetensors` and `network.json` into a folder, each moved into place when complete.

        Raises:
            StorageError: the folder cannot be written.
        """
        folder = Path(folder)
        tensors = {f"module.{name}": value for name, value in self._tensors().items()}
        for position, group in enumerate(self.groups):
            partition = self._partitions[position]
            if isinstance(partition, Trainable):
                tensors[f"partition.{group.name}"] = partition.delta
        description = {
            "format_version": FORMAT_VERSION,
            "min_ratio": self.min_ratio,
            "coupling": self.coupling.to_json(),
            "partitions": [partition.to_json() for partition in self._partitions],
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".nodes.{os.getpid()}.tmp"
            save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, temporary)
            os.replace(temporary, folder / "nodes.safetensors")
            temporary = folder / f".network.{os.getpid()}.tmp"
            temporary.write_text(json.dumps(description), encoding="utf-8")
            os.replace(temporary, folder / "network.json")
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"the network cannot be written to {str(folder)!r} ({error}): free or choose space."
            ) from error

    @classmethod
    def load(cls, folder: str | Path, module: nn.Module) -> IntegralNetwork:
        """The network that `save` wrote.

        Args:
            module: a module of the same architecture; its values do not matter.

        Raises:
            CorruptFileError: a file is missing, unreadable or of another version.
            ModuleError: the tensors do not fit the module.
        """
        folder = Path(folder)
        try:
            description = json.loads((folder / "network.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "nodes.safetensors")
            if description["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {description['format_version']}, this release reads {FORMAT_VERSION}")
            coupling = Coupling.from_json(description["coupling"])
            rules = [partition_from_json(value) for value in description["partitions"]]
            min_ratio = float(description["min_ratio"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CorruptFileError(f"{str(folder)!r} holds no integral network ({error}): save it again.") from error
        partitions = {group.name: rule for group, rule in zip(coupling.groups, rules, strict=True)}
        network = cls(module, torch.empty(0), partition=partitions, min_ratio=min_ratio, coupling=coupling)
        expected = network._tensors()
        given = {name.removeprefix("module."): t for name, t in tensors.items() if name.startswith("module.")}
        for name in sorted({*expected, *given}):
            want, have = expected.get(name), given.get(name)
            if want is None or have is None or want.shape != have.shape:
                raise ModuleError(
                    f"{str(folder)!r} does not fit {type(module).__name__}: {name} is "
                    f"{'missing' if have is None else tuple(have.shape)} in the file and "
                    f"{'missing' if want is None else tuple(want.shape)} in the module; build the module it was saved from."
                )
        with torch.no_grad():
            for name, value in expected.items():
                value.copy_(given[name])
            for group, rule in zip(coupling.groups, rules, strict=True):
                if isinstance(rule, Trainable):
                    rule.delta.copy_(tensors[f"partition.{group.name}"])
        return network

    def _tensors(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of the module, tied ones once."""
        persistent = self.module.state_dict(keep_vars=True)
        named = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        return {name: value for name, value in named.items() if name in persistent}


def _describe(allowed: range) -> str:
    step = "" if allowed.step == 1 else f" in steps of {allowed.step}"
    return f"{allowed.start} to {allowed[-1]}{step}"


def _own(value: Tensor) -> Tensor:
    return value.detach().clone(memory_format=torch.contiguous_format)


def _shape_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return {key: _shape_of(one) for key, one in value.items()}
    return tuple(_shape_of(one) for one in value) if isinstance(value, list | tuple) else type(value).__name__


def _declare_sizes(module: nn.Module) -> None:
    """Sets the sizes that torch's layers declare (and print) to those of their tensors."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            layer.in_channels, layer.out_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
        elif isinstance(layer, nn.modules.conv._ConvNd):
            layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = layer.weight.shape
        elif isinstance(layer, nn.modules.batchnorm._NormBase):
            tensor = layer.weight if layer.weight is not None else layer.running_mean
            if tensor is not None:
                layer.num_features = tensor.shape[0]
        elif isinstance(layer, nn.GroupNorm) and layer.weight is not None:
            layer.num_channels = layer.weight.shape[0]
        elif isinstance(layer, nn.PReLU):
            layer.num_parameters = layer.weight.shape[0]
        elif isinstance(layer, nn.Embedding):
            layer.embedding_dim = layer.weight.shape[1]
