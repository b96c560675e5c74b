"""The vision tower that a configuration asks for: its shape, and its weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ifas.core.config import VisionConfig
from ifas.core.errors import ConfigError, unknown_key
from ifas.model import architectures
from ifas.model.sources import WEIGHTS_FILE, pretrained, resolve, unreachable
from ifas.model.towers import new_tower

#: Fields of the configs of transformers that decide what a tower computes; then those that only some kinds have.
_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)
_OWN_FIELDS = {
    "clip": ("intermediate_size",),
    "siglip": ("intermediate_size",),
    "dinov2": ("mlp_ratio", "qkv_bias", "use_swiglu_ffn"),
}

#: `model_type` of a source's config.json -> kind of tower. `clip` and `siglip` are two-tower models: their vision half.
_KINDS = {
    "clip": "clip",
    "clip_vision_model": "clip",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
    "dinov2": "dinov2",
}


def tower_config(config: VisionConfig, *, download: bool = True) -> dict[str, Any]:
    """The dict that `new_tower` takes: the tower's own fields and `image_size` in pixels.

    Args:
        config: `shape` overrides single fields.
        download: False looks on this machine only and falls back to the table of known architectures.

    Raises:
        ConfigError: the source is not there or is of another kind, or `shape` does not fit.
    """
    fields: dict[str, Any] = {}
    if config.kind in _KINDS.values():
        if config.source:
            fields = _fields(config, download)
        native = fields.pop("image_size", None)
        known = (*_FIELDS, *_OWN_FIELDS[config.kind])
        if unknown := config.shape.keys() - set(known):
            raise unknown_key(f"field of {config.kind} in model.vision.shape", min(unknown), known)
        fields = {**fields, **config.shape}
        patch = fields.get("patch_size", _vision_classes(config.kind)[0]().patch_size)
        # Some models are published for a size that is no multiple of the patch; their convolution drops the rest.
        if config.image_size not in (native, config.image_size // patch * patch):
            raise ConfigError(
                f"model.vision.image_size {config.image_size} is no multiple of the patch size {patch}",
                "choose a multiple",
            )
    return {**fields, "image_size": config.image_size}


def _vision_classes(kind: str) -> tuple[Any, Any]:
    """Config and model class of transformers."""
    import transformers

    prefix = {"clip": "CLIPVision", "siglip": "SiglipVision", "dinov2": "Dinov2"}[kind]
    return getattr(transformers, f"{prefix}Config"), getattr(transformers, f"{prefix}Model")


def _fields(config: VisionConfig, download: bool) -> dict[str, Any]:
    from transformers import AutoConfig

    source = config.source
    if not download and not Path(source).is_dir() and source in architectures.VISION:
        fields = dict(architectures.VISION[source])
        _require_kind(config, fields.pop("model_type"))
        return fields
    place = resolve(source)
    try:
        loaded = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise unreachable(source, error) from error
    _require_kind(config, loaded.model_type)
    loaded = getattr(loaded, "vision_config", loaded)
    return {name: getattr(loaded, name) for name in (*_FIELDS, *_OWN_FIELDS[config.kind], "image_size")}


def _require_kind(config: VisionConfig, model_type: str) -> None:
    kind = _KINDS.get(model_type)
    if kind == config.kind:
        return
    raise ConfigError(
        f"model.vision.kind is {config.kind}, but {config.source!r} holds a model of type {model_type}",
        f"set model.vision.kind={kind}" if kind else f"name a source of type {', '.join(_KINDS)}",
    )


def load_tower(config: VisionConfig) -> nn.Module:
    """The tower in float32, with the weights of its source, or random ones where there is no source.

    Raises:
        ConfigError: the weights are not there or do not fit the tower.
    """
    tower: nn.Module = new_tower(config.kind, tower_config(config))
    if not config.source:
        return tower
    folder = resolve(config.source)
    net: Any = tower.net
    try:
        if config.kind in _KINDS.values():
            tower.net = _published(config.kind, folder, net)
        else:
            from safetensors.torch import load_file

            net.load_state_dict(load_file(Path(folder) / WEIGHTS_FILE))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise unreachable(config.source, error) from error
    return tower


def _published(kind: str, folder: str, net: Any) -> Any:
    """A network of the shape of `net`, with the weights of its source."""
    shape = copy.deepcopy(net.config)
    if kind == "dinov2":
        shape.image_size = type(shape).from_pretrained(folder).image_size
    published = pretrained(_vision_classes(kind)[1], folder, config=shape, dtype=torch.float32)
    if kind != "dinov2" or shape.image_size == net.config.image_size:
        return published
    # Its position embeddings are made for any size by interpolation. Done once here, no pass has to do it again.
    side, state = net.config.image_size, published.state_dict()
    positions = net.embeddings.position_embeddings
    state["embeddings.position_embeddings"] = published.embeddings.interpolate_pos_encoding(positions, side, side)
    net.load_state_dict(state)
    return net
