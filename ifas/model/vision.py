"""The vision tower that a configuration asks for: its shape, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ifas.core.config import VisionConfig
from ifas.core.errors import ConfigError
from ifas.model import architectures
from ifas.model.sources import resolve, unreachable
from ifas.model.towers import new_tower

#: Fields of CLIPVisionConfig that decide what the tower computes.
_CLIP_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)


def tower_config(config: VisionConfig, *, download: bool = True) -> dict[str, Any]:
    """The dict that `new_tower` takes: the tower's own fields and `image_size` in pixels.

    Args:
        config: `shape` overrides single fields.
        download: False looks on this machine only and falls back to the table of known architectures.

    Raises:
        ConfigError: the source is not there, or `shape` does not fit.
    """
    fields: dict[str, Any] = {}
    if config.kind == "clip":
        if config.source:
            fields = _clip_fields(config.source, download)
        fields = {**fields, **config.shape}
        patch = fields.get("patch_size", 32)
        if config.image_size % patch:
            raise ConfigError(
                f"model.vision.image_size {config.image_size} is no multiple of the patch size {patch}",
                "choose a multiple",
            )
    return {**fields, "image_size": config.image_size}


def _clip_fields(source: str, download: bool) -> dict[str, Any]:
    from transformers import CLIPVisionConfig

    if not download and not Path(source).is_dir() and source in architectures.VISION:
        return dict(architectures.VISION[source])
    place = resolve(source)
    try:
        loaded = CLIPVisionConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise unreachable(source, error) from error
    return {name: getattr(loaded, name) for name in _CLIP_FIELDS}


def load_tower(config: VisionConfig) -> nn.Module:
    """The tower in float32, with the weights of its source, or random ones where there is no source.

    Raises:
        ConfigError: the weights are not there or do not fit the tower.
    """
    tower: nn.Module = new_tower(config.kind, tower_config(config))
    if not config.source:
        return tower
    folder = resolve(config.source)
    try:
        if config.kind == "clip":
            from transformers import CLIPVisionModel

            tower.net = CLIPVisionModel.from_pretrained(
                folder,
                image_size=config.image_size,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
            )
        else:
            from safetensors.torch import load_file

            tower.net.load_state_dict(load_file(Path(folder) / "model.safetensors"))  # type: ignore[union-attr]
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise unreachable(config.source, error) from error
    return tower
