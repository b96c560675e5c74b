"""LoRA (arXiv 2106.09685) in any part of the model: injected in place by peft, merged into the plain layers again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ifas.core.errors import ConfigError

if TYPE_CHECKING:
    from ifas.core.config import TunedSection

#: Kind of a vision tower -> layers that get an adapter where `lora_targets` is empty. Not stated in the paper.
TOWER_TARGETS: dict[str, tuple[str, ...]] = {
    "clip": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "siglip": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    # The giant one has a gated MLP.
    "dinov2": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "gate_proj", "up_proj", "down_proj"),
}


def inject(part: nn.Module, section: TunedSection, where: str) -> None:
    """Freezes a part of the model, and puts an adapter beside every layer named in `lora_targets`.

    The part keeps its class and its names; adapters have names with `lora_`.

    Args:
        part: a vision tower, the connector or the language model.
        section: `lora_rank`, `lora_alpha`, `lora_targets`.
        where: the part's name in messages.

    Raises:
        ConfigError: no layer has the name of a target, or the part is a network that takes no LoRA.
    """
    from peft import LoraConfig, inject_adapter_in_model

    kind = getattr(section, "kind", None) if where == "vision" else None
    if kind is not None and kind not in TOWER_TARGETS:
        raise ConfigError(
            f"LoRA: the convolutions of {kind} pad their input themselves, peft can't put an adapter beside them",
            f"choose frozen or full for model.{where}.tune, or a tower of {', '.join(TOWER_TARGETS)}",
        )
    part.requires_grad_(False)
    targets = list(section.lora_targets or TOWER_TARGETS[str(kind)])
    try:
        inject_adapter_in_model(
            LoraConfig(r=section.lora_rank, lora_alpha=section.lora_alpha, target_modules=targets), part
        )
    except ValueError as error:
        raise ConfigError(
            f"LoRA: no layer of {where} is named {', '.join(targets)}, or it is not linear: {error}",
            f"set model.{where}.lora_targets to the names of its linear layers",
        ) from error


def merge(part: nn.Module) -> None:
    """Adds every update to its weight and removes the adapters: the part has its plain layers again.

    W' = W + scale * B A, summed in float32 and then rounded to the precision of W; peft would round the update first.
    """
    if not any("lora_" in name for name, _ in part.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(part.named_modules()):
        if isinstance(module, LoraLayer):
            layer: Any = module
            base = layer.get_base_layer()
            for adapter in layer.active_adapters:
                down, up = (w[adapter].weight.detach().float() for w in (layer.lora_A, layer.lora_B))
                update = layer.scaling[adapter] * (up @ down)
                base.weight.data.copy_(base.weight.detach().float() + update)
            parent, _, child = name.rpartition(".")
            setattr(part.get_submodule(parent), child, base)
    # transformers refuses to save a model that still remembers its adapters.
    for module in part.modules():
        for mark in ("peft_config", "_hf_peft_config_loaded"):
            module.__dict__.pop(mark, None)
