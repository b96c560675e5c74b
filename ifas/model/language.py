"""The causal language model and the tokenizer that a configuration asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ifas.core.config import LanguageConfig
from ifas.core.errors import ConfigError
from ifas.model import architectures
from ifas.model.small_tokenizer import small_tokenizer
from ifas.model.sources import pretrained, resolve, unreachable

#: What some families do to the logits after the head. Training calls the head on answer positions only, without it.
_LOGIT_CHANGES = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def text_config(config: LanguageConfig, *, download: bool = True) -> Any:
    """The transformers config of the language model.

    Args:
        config: without a source, a Llama of `shape`; with one, `layers` cuts its depth.
        download: False looks on this machine only and falls back to the table of known architectures.

    Raises:
        ConfigError: the source is not there, or `shape` or `layers` do not fit.
    """
    from transformers import AutoConfig

    if not config.source:
        tokenizer = small_tokenizer()
        # Defaults of Llama that belong to its own vocabulary and size.
        base = {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        loaded = AutoConfig.for_model("llama", **{**base, **config.shape})
    elif not download and config.source in architectures.LANGUAGE:
        loaded = AutoConfig.for_model(**{**architectures.LANGUAGE[config.source], **config.shape})
    else:
        place = resolve(config.source)
        try:
            loaded = AutoConfig.from_pretrained(place, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise unreachable(config.source, error) from error
    scaled = [name for name in _LOGIT_CHANGES if getattr(loaded, name, None) not in (None, 1.0)]
    if scaled:
        raise ConfigError(
            f"{config.source}: its logits are not those of its head alone ({', '.join(scaled)})",
            "use a model whose logits are head(hidden), such as Llama, Qwen2 or Mistral",
        )
    depth = loaded.num_hidden_layers
    if config.layers > depth:
        raise ConfigError(f"model.language.layers is {config.layers}, {config.source} has {depth}", "ask for fewer")
    if config.layers:
        loaded.num_hidden_layers = config.layers
        if getattr(loaded, "layer_types", None):
            loaded.layer_types = loaded.layer_types[: config.layers]
    return loaded


def load_tokenizer(config: LanguageConfig) -> Any:
    """The tokenizer of the source, or the small built-in one where there is no source.

    Raises:
        ConfigError: the source holds no tokenizer.
    """
    from transformers import AutoTokenizer

    if not config.source:
        return small_tokenizer()
    place = resolve(config.source)
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise unreachable(config.source, error) from error


def load_language(config: LanguageConfig, *, dtype: torch.dtype = torch.float32) -> Any:
    """The language model: weights of the source, or random ones of `shape`. Tied embeddings stay tied.

    Args:
        dtype: of the weights, as they are read: no other copy of them is made.

    Raises:
        ConfigError: the weights are not there, or some of them.
    """
    from transformers import AutoModelForCausalLM

    shape = text_config(config)
    if not config.source:
        # Drawn in float32, so that they are the same in any precision.
        return AutoModelForCausalLM.from_config(shape, dtype=torch.float32).to(dtype)
    folder = resolve(config.source)
    if Path(folder).is_dir() and not any(Path(folder).glob("*.safetensors")):
        raise ConfigError(f"{folder} holds no *.safetensors file", "fetch it again")
    try:
        return pretrained(AutoModelForCausalLM, folder, config=shape, dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        raise unreachable(config.source, error) from error
