"""Fits the tensors of a file to a network: by name, without the prefixes of wrappers, or by order.

A head of another number of outputs is left as it is; a first convolution over another number of
channels is adapted. Anything else that does not fit is refused by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from inn_automl.core.errors import InputError

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "network.")
"""What wrappers put before names: data parallelism, `torch.compile`, training frameworks."""
_COUNTERS = "num_batches_tracked"
"""Number of batches that running statistics are of: nothing depends on it."""
_NUM_NAMED = 3


@dataclass(frozen=True)
class FittedWeights:
    """The tensors of a network that a file of weights has values for.

    Attributes:
        tensors: by the network's names.
        new: names of the parameters without a value, those of the head.
        notes: what was done to make them fit, as sentences.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    new: tuple[str, ...]
    notes: tuple[str, ...]


def fit_weights(
    given: Mapping[str, Tensor], module: nn.Module, num_outputs: int, *, what: str, model: str
) -> FittedWeights:
    """Fits tensors to a network.

    Args:
        given: by name, in the order in which their network has them.
        module: freshly initialized; not changed.
        num_outputs: of its head.
        what: what the tensors are called in messages.
        model: name of the network in messages.

    Raises:
        InputError: they are those of another network; names the first that do not fit, with the
            nearest, and the share that fits.
    """
    wanted = _without_counters(module.state_dict())
    head = head_names(module, num_outputs)
    found, prefixes = _without_prefixes(_without_counters(given), wanted)
    notes = [f"the prefix {''.join(prefixes)!r} of its names is taken off"] if prefixes else []
    input_name = _input_convolution(module)
    ordered = _by_order(found, wanted, head, input_name)
    if ordered is not None and not _fits(found, wanted, head, input_name):
        found = ordered
        notes.append("its tensors have other names, and are taken in order: all shapes agree")
    found, adapted = _adapted_input(found, wanted, input_name)
    if adapted:
        notes.append(adapted)
    errors = _errors(found, wanted, head)
    if errors:
        raise InputError(_refusal(found, wanted, errors, what, model))
    fitting = {name: found[name] for name in wanted if _has(found, name, wanted[name])}
    new = tuple(name for name in wanted if name not in fitting)
    if new:
        before = next((tuple(found[name].shape) for name in new if name in found), None)
        old = f" (it had {before[0]} outputs)" if before else ""
        notes.append(f"its head ({', '.join(new)}) is replaced by one of {num_outputs}{old}")
    ignored = [name for name in found if name not in wanted]
    if ignored:
        notes.append(f"{len(ignored)} tensors that it lacks are left out, as {ignored[0]!r}")
    return FittedWeights(fitting, new, tuple(notes))


def head_names(module: nn.Module, num_outputs: int) -> tuple[str, ...]:
    """Names of the parameters of the layers that give the outputs.

    timm says which they are; of other networks it is the last layer with that number of outputs.
    """
    config = getattr(module, "pretrained_cfg", None) or {}
    paths = config.get("classifier") or ()
    layers = [paths] if isinstance(paths, str) else list(paths)
    if not layers:
        fitting = [
            path
            for path, layer in module.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
            and layer.weight.shape[0] == num_outputs
        ]
        layers = fitting[-1:]
    return tuple(
        name
        for name, _ in module.named_parameters()
        if any(name.startswith(f"{path}.") for path in layers)
    )


def _has(found: Mapping[str, Tensor], name: str, wanted: Tensor) -> bool:
    return name in found and found[name].shape == wanted.shape


def _fits(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    head: Iterable[str],
    input_name: str | None,
) -> bool:
    free = {*head, input_name}
    return all(_has(found, name, one) for name, one in wanted.items() if name not in free)


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in tensors.items() if not name.endswith(_COUNTERS)}


def _without_prefixes(
    given: dict[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under names that have most in common with the wanted ones, and the prefixes."""
    taken: list[str] = []
    while True:
        num_known = len(given.keys() & wanted.keys())
        for prefix in PREFIXES:
            shorter = {name.removeprefix(prefix): one for name, one in given.items()}
            is_unique = len(shorter) == len(given)
            if is_unique and len(shorter.keys() & wanted.keys()) > num_known:
                given, taken = shorter, [*taken, prefix]
                break
            # Two wrappers, as of a compiled network of a framework: the first alone gains nothing.
            if is_unique and given and all(name.startswith(prefix) for name in given):
                given, taken = shorter, [*taken, prefix]
                break
        else:
            return given, taken


def _by_order(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    head: Iterable[str],
    input_name: str | None,
) -> dict[str, Tensor] | None:
    """The tensors under the wanted names, if all agree in order.

    Those of the head may have another number of outputs, the first convolution other channels.
    """
    if len(found) != len(wanted):
        return None
    for (own, one), (name, other) in zip(found.items(), wanted.items(), strict=True):
        free = 0 if name in head else 1 if name == input_name else None
        if _shape(one, free) != _shape(other, free):
            return None
        # Statistics of normalization have the shape of its weight.
        if own.rpartition(".")[2] != name.rpartition(".")[2]:
            return None
    return dict(zip(wanted, found.values(), strict=True))


def _shape(tensor: Tensor, free: int | None) -> tuple[int | None, ...]:
    """The shape, without the size of the free axis."""
    return tuple(None if axis == free else size for axis, size in enumerate(tensor.shape))


def _input_convolution(module: nn.Module) -> str | None:
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            return f"{path}.weight" if path else "weight"
    return None


def _adapted_input(
    found: dict[str, Tensor], wanted: Mapping[str, Tensor], name: str | None
) -> tuple[dict[str, Tensor], str | None]:
    """The tensors with the first convolution over the wanted number of channels, and a note.

    A channel takes the mean response to a grey image: the sum over all channels is kept.
    """
    if name is None or name not in found or name not in wanted:
        return found, None
    own, like = found[name], wanted[name]
    if own.shape == like.shape or _shape(own, 1) != _shape(like, 1):
        return found, None
    mean = own.float().sum(1, keepdim=True) / like.shape[1]
    adapted = mean.expand_as(like).to(own.dtype).contiguous()
    note = (
        f"its first convolution takes {own.shape[1]} channels, and is adapted to {like.shape[1]} "
        "by the sum over them"
    )
    return {**found, name: adapted}, note


def _errors(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], head: Iterable[str]
) -> list[str]:
    """Mismatches, a clause each."""
    free = set(head)
    errors = []
    for name, tensor in wanted.items():
        if name in free or _has(found, name, tensor):
            continue
        if name in found:
            errors.append(
                f"{name!r} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
            )
            continue
        nearest = difflib.get_close_matches(name, list(found), n=1, cutoff=0.5)
        hint = f" (nearest: {nearest[0]!r})" if nearest and len(errors) < _NUM_NAMED else ""
        errors.append(f"{name!r} is missing{hint}")
    # Heads of other tasks are children that the network lacks; more layers inside of a child that
    # it has are those of a deeper network.
    children = {name.partition(".")[0] for name in wanted if name not in free}
    errors += [
        f"{name!r} is unknown to the network"
        for name in found
        if name not in wanted and name.partition(".")[0] in children
    ]
    return errors


def _refusal(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    errors: list[str],
    what: str,
    model: str,
) -> str:
    fitting = [name for name, one in wanted.items() if _has(found, name, one)]
    values = sum(wanted[name].numel() for name in fitting)
    share = values / max(1, sum(one.numel() for one in wanted.values()))
    shown = "; ".join(errors[:_NUM_NAMED])
    more = f"; and {len(errors) - _NUM_NAMED} more" if len(errors) > _NUM_NAMED else ""
    return (
        f"{what} are those of another network than model {model!r}: {len(fitting)} of its "
        f"{len(wanted)} tensors fit ({share:.0%} of its numbers). {shown}{more}. Give weights of "
        "this network, the --model that they are of, or --weights none."
    )
