"""The integral network: one trained model that can be sampled to any widths.

K. Solodskikh et al., "Integral Neural Networks", CVPR 2023. The module's own parameters are the
control points of its continuous weights; `forward` samples them at given widths and runs the
module's own forward with the sampled weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from inn_automl.core.costs import Costs
from inn_automl.core.errors import CorruptFileError, ModuleError, WidthsError
from inn_automl.integral import checkpoint as state
from inn_automl.integral.graph.groups import Coupling, FrozenChannels, Group
from inn_automl.integral.sampling.parametrization import WeightSampler
from inn_automl.integral.sampling.partition import Nested, Partition, Trainable
from inn_automl.integral.validation import find_coupling
from inn_automl.integral.widths import Widths, check_group, check_ratio, check_widths

_WIDTH_DELTA = "width_delta."
"""Prefix of the names of width deltas in `control_points.safetensors`."""


class IntegralNetwork(nn.Module):
    """A network with continuous channel dimensions: it runs, and can be discretized, at any
    widths.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from inn_automl.integral import IntegralNetwork
        >>> module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> network = IntegralNetwork(module, torch.zeros(1, 4))
        >>> print(network)
        IntegralNetwork of Sequential
        group '0': 8 channels, allowed 2 to 8: 0 -> 2
        >>> network(torch.zeros(5, 4), {"0": 3}).shape
        torch.Size([5, 3])
        >>> network.discretize({"0": 3})[0]
        Linear(in_features=4, out_features=3, bias=True)

    Args:
        module: any torch module that maps one tensor to one; copied, never changed.
        example_input: (N, ...) that the module accepts; it is traced and run with it.

    Other arguments:
        partition: how channels are sampled, for all coupled groups or by group name; `Nested` by
            default.
        min_ratio: smallest allowed ratio of a group's channels, in (0, 1].
        coupling: of a network of the same architecture, so that the module is not traced again.

    Attributes:
        module: the copy; its parameters are the control points.
        coupling: the coupled groups, and the layout of every tensor.
        min_ratio: as given.
        width_deltas: what `add_width_deltas` added, in the order of `named_width_deltas`; empty at
            first.

    Raises:
        ModuleError: the module cannot be traced, has no channels that can be resized, or is not
            that of the coupling.
        WidthsError: `min_ratio` is out of range, or a partition is given for a group that does not
            exist.

    Sampling replaces parameters while the module runs, so that one instance serves one thread at a
    time.
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
            raise WidthsError(
                f"min_ratio = {min_ratio} is not a ratio of the channels: give more than 0, at "
                f"most 1."
            )
        self.module = _copied(module)
        self.min_ratio = min_ratio
        if coupling is None:
            coupling = find_coupling(self.module, example_input, min_ratio=min_ratio)
        coupling.check(self.module)
        self.coupling = coupling
        if not self.groups:
            reasons = (
                "; ".join(map(str, self.frozen))
                or "no weighted layer stands between its input and output"
            )
            raise ModuleError(
                f"{type(module).__name__} has no channels that can be resized: {reasons}."
            )
        partitions = self._partitions(partition or Nested())
        self.trainable_partitions = nn.ModuleList(p for p in partitions if isinstance(p, Trainable))
        first = next(self.module.parameters())
        self.trainable_partitions.to(first.device, torch.promote_types(first.dtype, torch.float32))
        self.width_deltas = nn.ParameterList()
        self._sampler = WeightSampler(self.module, coupling, partitions)
        self._sampler.absorb_full_width_weights()

    @property
    def groups(self) -> tuple[Group, ...]:
        """The coupled groups, in the order in which they are first produced."""
        return self.coupling.groups

    @property
    def frozen(self) -> tuple[FrozenChannels, ...]:
        """Channels that stay at full width, and the reason."""
        return self.coupling.frozen

    def __str__(self) -> str:
        """The groups with their channels, allowed widths and layers (`outputs -> inputs`), then
        what is frozen and why.
        """
        lines = [f"{type(self).__name__} of {type(self.module).__name__}"]
        lines += self.coupling.describe_groups()
        lines += (f"frozen: {one}" for one in self.frozen)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def add_width_deltas(self) -> None:
        """Conditions the weights on the width: W(x, s) = control_points(x) + s * delta(x).

        s is the width coordinate (`Coupling.width_coordinate`): 0 at full width and 1 at the
        smallest, for each parameter by its own axes. Width deltas begin as zeros, so that outputs
        stay the same until they are trained. They let a narrow network differ from the prefix of
        the wide one where the best values differ. The price is twice the parameters while training
        and in the files of `save`; a discretized network has no width deltas.

        Does nothing if there are width deltas.
        """
        if len(self.width_deltas) == 0:
            parameters = dict(self.module.named_parameters())
            for name in self._sampler.sampled_parameters:
                like = parameters[name]
                self.width_deltas.append(
                    nn.Parameter(torch.zeros_like(like), requires_grad=like.requires_grad)
                )
            self._sampler.add_width_deltas(self.width_deltas)

    def named_width_deltas(self) -> dict[str, nn.Parameter]:
        """Width deltas by the name of their parameter in `module`; none before
        `add_width_deltas`.
        """
        if len(self.width_deltas) == 0:
            return {}
        return dict(zip(self._sampler.sampled_parameters, self.width_deltas, strict=True))

    @property
    def full_widths(self) -> dict[str, int]:
        """The widths of the module itself, by group."""
        return {group.name: group.size for group in self.groups}

    @property
    def smallest_widths(self) -> dict[str, int]:
        """The smallest allowed widths, by group."""
        return {group.name: group.allowed.start for group in self.groups}

    def uniform_widths(self, ratio: float) -> dict[str, int]:
        """The allowed widths nearest to the same ratio of every group's channels.

        Args:
            ratio: in (0, 1]; below `min_ratio`, the smallest allowed widths are the nearest.

        Raises:
            WidthsError: the ratio is out of range.
        """
        check_ratio(ratio, self.min_ratio)

        def nearest(group: Group) -> int:
            return min(group.allowed, key=lambda width: abs(width - ratio * group.size))

        return {group.name: nearest(group) for group in self.groups}

    def costs(self, widths: Widths) -> Costs:
        """Parameters and multiply-accumulates for one sample of the example's shape.

        Raises:
            WidthsError: see `check_widths`.
        """
        return self.coupling.costs(self.check_widths(widths))

    def check_widths(self, widths: Widths) -> dict[str, int]:
        """The widths in the order of `groups`.

        Raises:
            WidthsError: a group is missing or unknown, a width is not allowed, or the widths are
                not by group.
        """
        return check_widths(self.groups, widths)

    @property
    def supports_zero_padding(self) -> bool:
        """True if `pad_channels` of `forward` has an effect.

        True for networks with convolutions whose channels affect each other through weights only.
        """
        return self._sampler.supports_zero_padding

    def forward(
        self, x: Tensor, widths: Widths | None = None, *, pad_channels: bool = False
    ) -> Tensor:
        """The network's output at the widths; at full width if none are given.

        Differentiable in the control points and in trainable partitions; only the running
        statistics that batch normalization uses in evaluation mode are constants to the gradient.
        At full width, batch normalization in training mode updates its running statistics; at
        other widths it leaves them alone.

        Args:
            x: (N, ...) as the module takes it.
            widths: channels of each group by name.
            pad_channels: compute with zero-padded channels of a few sizes. Outputs and gradients
                are the same up to rounding. Faster on a CPU, which compiles kernels for every new
                number of channels, where widths change often.

        Raises:
            WidthsError: see `check_widths`.
        """
        counts = self.coupling.counts(
            self.full_widths if widths is None else self.check_widths(widths)
        )
        if self._sampler.is_identity(counts):
            return self.module(x)
        with self._sampler.subnet(counts, pad_channels=pad_channels):
            return self.module(x)

    def discretize(self, widths: Widths) -> nn.Module:
        """A plain module at the widths, with tensors of its own.

        Its running statistics are sampled from those of the full width: call
        `recalibrate_batch_norm` before use.

        Args:
            widths: channels of each group by name.

        Raises:
            WidthsError: see `check_widths`.
        """
        return self._sampler.discretize(self.coupling.counts(self.check_widths(widths)))

    def sample_parameters(self, widths: Widths) -> dict[str, Tensor]:
        """The module's parameters at the widths by name, differentiable in the network's.

        Raises:
            WidthsError: see `check_widths`.
        """
        return self._sampler.parameters(self.coupling.counts(self.check_widths(widths)))

    def sample_channels(self, outputs: Tensor, parameter: str, counts: tuple[int, ...]) -> Tensor:
        """Samples outputs of a layer at full width like the layer's own output channels.

        Args:
            outputs: (n, channels at full width).
            parameter: name in `module` of the layer's weight, whose first axis its channels are.
            counts: channel count of each group, see `Coupling.counts`.

        Returns:
            (n, channels at the counts).
        """
        return self._sampler.sample_axis(outputs, 1, self.coupling.axes[parameter][0], counts)

    def save(self, folder: str | Path) -> None:
        """Writes `control_points.safetensors` and `network.json` into a folder.

        Each file is moved into place when it is complete.

        Raises:
            StorageError: the folder cannot be written.
        """
        state.write(
            Path(folder),
            self._saved_tensors(),
            self.coupling,
            self._sampler.partitions,
            self.min_ratio,
        )

    @classmethod
    def load(cls, folder: str | Path, module: nn.Module) -> IntegralNetwork:
        """The network that `save` wrote.

        Args:
            module: a module of the same architecture; its values do not matter.

        Raises:
            CorruptFileError: a file is missing, unreadable or of another version.
            ModuleError: the network is one of another module.
        """
        tensors, coupling, partitions, min_ratio = state.read(Path(folder))
        by_group = {
            group.name: partition
            for group, partition in zip(coupling.groups, partitions, strict=True)
        }
        network = cls(
            module, torch.empty(0), partition=by_group, min_ratio=min_ratio, coupling=coupling
        )
        if any(name.startswith(_WIDTH_DELTA) for name in tensors):
            network.add_width_deltas()
        expected = network._saved_tensors()
        with torch.no_grad():
            for name in sorted({*expected, *tensors}):
                own, saved = expected.get(name), tensors.get(name)
                if own is None or saved is None or own.shape != saved.shape:
                    raise CorruptFileError(
                        f"{str(folder)!r} has {_shape(saved)} for {name}, the module has "
                        f"{_shape(own)}: save it again."
                    )
                own.copy_(saved)
        return network

    def _saved_tensors(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of the module (tied ones once), width deltas, and
        trainable partitions by group.
        """
        persistent = self.module.state_dict(keep_vars=True)
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        tensors = {f"module.{name}": tensor for name, tensor in named if name in persistent}
        tensors |= {
            f"{_WIDTH_DELTA}{name}": width_delta
            for name, width_delta in self.named_width_deltas().items()
        }
        for group, partition in zip(self.groups, self._sampler.partitions, strict=True):
            if isinstance(partition, Trainable):
                tensors[f"partition.{group.name}"] = partition.delta
                if partition.factors is not None:
                    tensors[f"partition_factors.{group.name}"] = partition.factors
        return tensors

    def _partitions(self, given: Partition | Mapping[str, Partition]) -> list[Partition]:
        """The partition of each group."""
        if isinstance(given, Partition):
            return [given for _ in self.groups]
        for name in given:
            check_group(self.groups, name)
        return [given.get(group.name, Nested()) for group in self.groups]


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # whatever a user's module holds
        raise ModuleError(
            f"{type(module).__name__} cannot be copied ({error}): keep only parameters and plain "
            f"values in it."
        ) from error


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"a tensor {tuple(tensor.shape)}"
