"""What is trained: frozen, LoRA, ALoRE or full per part, each part with its own learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from ifas.core.config import ModelConfig, TunedSection
from ifas.model import alore, lora

PARTS = ("vision", "connector", "language")


class Inject(Protocol):
    """Freezes a part of the model and adds what is trained instead. Raises ConfigError where it can't."""

    def __call__(self, part: nn.Module, section: TunedSection, where: str) -> None: ...


class Merge(Protocol):
    """Merges all adapters of a kind into the plain weights of a part and removes them; without any, does nothing."""

    def __call__(self, part: nn.Module) -> None: ...


class Adapter(NamedTuple):
    """One way to train a part without its own weights."""

    inject: Inject
    merge: Merge


#: Values of `tune`, besides `frozen` and `full`. To add an adapter, write its two functions and a line here.
ADAPTERS: dict[str, Adapter] = {
    "lora": Adapter(lora.inject, lora.merge),
    "alore": Adapter(alore.inject, alore.merge),
}


def prepare(model: Any, config: ModelConfig, *, seed: int = 0) -> None:
    """Marks what is trained, and puts in the adapters that `tune` asks for; `merge` takes them out.

    Adapters are injected in place: the model keeps its class, and all its weights keep their names or get peft's.

    Args:
        model: an `IfasModel`.
        config: `tune` of its parts.
        seed: of the adapters.

    Raises:
        ConfigError: a part does not have the layers that its adapter needs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in PARTS:
            part, section = getattr(model, name), getattr(config, name)
            if section.tune in ADAPTERS:
                ADAPTERS[section.tune].inject(part, section, name)
            else:
                part.requires_grad_(section.tune == "full")


def merge(model: Any) -> None:
    """Puts every adapter into the weights and removes it: the model has its plain layers and names again.

    Sums are taken in float32 and rounded to the weights' own precision. Under ZeRO-3, gather the weights before.
    """
    for name in PARTS:
        for adapter in ADAPTERS.values():
            adapter.merge(getattr(model, name))


def parameter_groups(model: Any, config: ModelConfig, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for the optimizer: per part, matrices with weight decay and vectors (norms, biases) without.

    The layers of the connector are a part of their own where they have another learning rate. Each group has `name`,
    `params`, `lr`, `weight_decay`. Frozen parameters are in none.
    """
    groups = []
    for part, parameters, lr in _rated(model, config):
        trained = [p for p in parameters if p.requires_grad]
        for name, decay, chosen in (
            (part, weight_decay, [p for p in trained if p.ndim > 1]),
            (f"{part} (no decay)", 0.0, [p for p in trained if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"name": name, "params": chosen, "lr": lr, "weight_decay": decay})
    return groups


def _rated(model: Any, config: ModelConfig) -> Iterator[tuple[str, list[nn.Parameter], float]]:
    """What has a learning rate of its own: name, parameters, rate."""
    yield "vision", list(model.vision.parameters()), config.vision.lr
    connector, factor = config.connector, config.connector.branch_lr
    layers = list(model.connector.layers.parameters()) if connector.kind == "gac" and factor != 1 else []
    of_layers = {id(p) for p in layers}
    yield "connector", [p for p in model.connector.parameters() if id(p) not in of_layers], connector.lr
    yield "connector's layers", layers, connector.lr * factor
    yield "language", list(model.language.parameters()), config.language.lr


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
