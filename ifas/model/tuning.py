"""What is trained: frozen, full or LoRA per part, each part with its own learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ifas.core.config import ModelConfig
from ifas.core.errors import ConfigError

PARTS = ("vision", "connector", "language")


def prepare(model: Any, config: ModelConfig, *, seed: int = 0) -> None:
    """Marks what is trained, and puts LoRA layers into the language model where `tune` says so.

    The adapters are injected in place (peft), so the model keeps its class and its names; `merge` takes them out.

    Args:
        model: an `IfasModel`.
        config: `tune` of its parts.
        seed: of the adapters.

    Raises:
        ConfigError: no module has the name of a LoRA target.
    """
    model.vision.requires_grad_(config.vision.tune == "full")
    model.connector.requires_grad_(True)
    model.language.requires_grad_(config.language.tune == "full")
    if config.language.tune != "lora":
        return
    from peft import LoraConfig, inject_adapter_in_model

    language = config.language
    lora = LoraConfig(
        r=language.lora_rank,
        lora_alpha=language.lora_alpha,
        target_modules=list(language.lora_targets),
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(lora, model.language)
    except ValueError as error:
        raise ConfigError(
            f"LoRA: no layer of the language model is named {', '.join(language.lora_targets)}",
            "set model.language.lora_targets to the names of its projections",
        ) from error


def merge(model: Any) -> None:
    """Adds every LoRA update to its weight and removes the adapters: the model has its plain layers again."""
    if not any("lora_" in name for name, _ in model.language.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.language.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(model.language.get_submodule(parent), child, module.get_base_layer())
    # transformers refuses to save a model that still remembers its adapters.
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        model.language.__dict__.pop(mark, None)


def parameter_groups(model: Any, config: ModelConfig, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for the optimizer: per part, matrices with weight decay and vectors (norms, biases) without.

    Each group has `name`, `params`, `lr`, `weight_decay`. Frozen parameters are in none.
    """
    rates = {"vision": config.vision.lr, "connector": config.connector.lr, "language": config.language.lr}
    groups = []
    for part in PARTS:
        trained = [p for p in getattr(model, part).parameters() if p.requires_grad]
        for decay, chosen in (
            (weight_decay, [p for p in trained if p.ndim > 1]),
            (0.0, [p for p in trained if p.ndim <= 1]),
        ):
            if chosen:
                name = part if decay else f"{part} (no decay)"
                groups.append({"name": name, "params": chosen, "lr": rates[part], "weight_decay": decay})
    return groups


def count(model: nn.Module) -> dict[str, dict[str, int]]:
    """Numbers of parameters and of trained parameters, per part and in `total`; a tied matrix counts once."""
    counts = {}
    for name in PARTS:
        parameters = list(getattr(model, name).parameters())
        counts[name] = {
            "parameters": sum(p.numel() for p in parameters),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        }
    counts["total"] = {key: sum(counts[p][key] for p in PARTS) for key in ("parameters", "trainable")}
    return counts
