"""Networks of timm (R. Wightman, "PyTorch Image Models", 2019)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from inn_automl.core.errors import InputError, SpecError, UnknownNameError
from inn_automl.models.zoo.hub import is_reachable, unavailable
from inn_automl.models.zoo.library import UNKNOWN_LICENCE, Library, PretrainedConfig

_FILES = ("model.safetensors", "pytorch_model.bin")
_INSTALL = "timm is not installed: pip install 'inn-automl[worker]'."


class TimmLibrary(Library):
    """`timm:NAME`, where NAME may carry the tag of its weights (`resnet18.a1_in1k`)."""

    def check(self, name: str) -> None:
        timm = _timm()
        if not timm.is_model(name.partition(".")[0]):
            raise UnknownNameError("model of timm", name, timm.list_models())
        tag = name.partition(".")[2]
        known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        if tag and name not in known:
            raise UnknownNameError("weights of timm", name, known)

    def make(self, name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
        config, size = self.config(name), tuple(input_shape[1:])
        arguments: dict[str, Any] = {}
        if config is not None and config.is_fixed and size != config.input_size:
            if not _takes_image_size(name):
                raise SpecError(
                    f"model 'timm:{name}' takes images of {_size(config.input_size)} only, not "
                    f"{_size(size)}: give --input-size {config.input_size[0]}, or another --model."
                )
            arguments["img_size"] = size
        return _create(name, num_classes=num_outputs, in_chans=input_shape[0], **arguments)

    def config(self, name: str) -> PretrainedConfig | None:
        found = _timm().get_pretrained_cfg(name, allow_unregistered=True)
        if found is None:
            return None
        return PretrainedConfig(
            input_size=(found.input_size[1], found.input_size[2]),
            mean=tuple(found.mean),
            std=tuple(found.std),
            crop_fraction=found.crop_pct or 1.0,
            interpolation=found.interpolation,
            licence=found.license or UNKNOWN_LICENCE,
            source=_source(name, found),
            is_fixed=found.fixed_input_size,
        )

    def pretrained(self, name: str) -> Mapping[str, Tensor]:
        found = _timm().get_pretrained_cfg(name, allow_unregistered=True)
        if found is None or not found.has_weights:
            with_weights = sorted({one.partition(".")[0] for one in _timm().list_pretrained()})
            raise InputError(
                f"timm has no weights for model {name!r}: give a file, --weights none, or another "
                f"model, such as {_nearest(name, with_weights)}."
            )
        if not self.has_weights(name):
            raise unavailable(f"timm:{name}", *_hub())
        try:
            tensors: Mapping[str, Tensor] = _create(name, pretrained=True).state_dict()
        except Exception as error:  # of the hub's client, of many kinds
            raise unavailable(f"timm:{name}", *_hub(), error) from error
        return tensors

    def has_weights(self, name: str) -> bool:
        found = _timm().get_pretrained_cfg(name, allow_unregistered=True)
        if found is None or not found.has_weights:
            return False
        return _is_cached(_hub_id(name, found)) or is_reachable(_hub()[0])


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise SpecError(_INSTALL) from None
    return timm


def _create(name: str, **arguments: Any) -> nn.Module:
    try:
        module: nn.Module = _timm().create_model(name, **arguments)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if arguments.get("pretrained"):
            raise
        given = ", ".join(f"{key} = {value}" for key, value in arguments.items())
        raise SpecError(
            f"model 'timm:{name}' cannot be made with {given} ({error}): give another size of "
            "images, or another --model."
        ) from error
    return module


def _takes_image_size(name: str) -> bool:
    """Whether the network's class has the argument `img_size`."""
    entry = _timm().model_entrypoint(name.partition(".")[0])
    module = inspect.getmodule(entry)
    classes = [one for _, one in inspect.getmembers(module, inspect.isclass)]
    return any(
        "img_size" in inspect.signature(one).parameters
        for one in classes
        if issubclass(one, nn.Module) and one.__module__ == getattr(module, "__name__", "")
    )


def _source(name: str, config: Any) -> str:
    hub_id = _hub_id(name, config)
    return f"https://huggingface.co/{hub_id}" if hub_id else str(config.url or "timm")


def _hub_id(name: str, config: Any) -> str:
    """Repository of the weights, "" where they are not on the hub."""
    hub_id = str(config.hf_hub_id or "")
    if hub_id.endswith("/"):
        hub_id += ".".join(part for part in (name.partition(".")[0], config.tag) if part)
    return hub_id


def _hub() -> tuple[str, str]:
    """URL of the hub, and the folder that its client downloads to."""
    from huggingface_hub import constants

    return constants.ENDPOINT, constants.HF_HUB_CACHE


def _is_cached(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return bool(hub_id) and any(
        isinstance(try_to_load_from_cache(hub_id, name), str) for name in _FILES
    )


def _nearest(name: str, known: list[str]) -> str:
    import difflib

    found = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
    return " or ".join(repr(one) for one in found)


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
