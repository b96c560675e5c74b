"""From a configuration to a model, and between a model and its directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ifas.core.config import ModelConfig
from ifas.core.errors import ConfigError
from ifas.core.files import replacing
from ifas.model.ifas_model import IfasConfig, IfasModel, new_connector
from ifas.model.language import load_language, load_tokenizer, text_config
from ifas.model.processor import IfasProcessor
from ifas.model.sources import pretrained
from ifas.model.tuning import ADAPTERS, count, prepare
from ifas.model.vision import load_tower, tower_config


def ifas_config(config: ModelConfig, *, download: bool = True, image_token_id: int = 0) -> IfasConfig:
    """The shape of the model that `config` asks for. Raises ConfigError where a source is missing."""
    return IfasConfig(
        vision_kind=config.vision.kind,
        vision=tower_config(config.vision, download=download),
        views=len(config.views),
        connector=config.connector.sizes,
        text_config=text_config(config.language, download=download),
        image_token_id=image_token_id,
    )


def build(
    config: ModelConfig, *, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[IfasModel, IfasProcessor]:
    """A model with the weights of its sources, and a fresh connector; with its processor.

    Args:
        config: see `ModelConfig`.
        seed: of everything that has no weights to load.
        device: where the model is put.
        dtype: of the language model, which is most of it. Tower and connector are in float32 until they are cast.

    Raises:
        ConfigError: a source is missing, or the parts do not fit each other.
    """
    _quiet()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision: Any = load_tower(config.vision)
        language = load_language(config.language, dtype=dtype)
        shape = ifas_config(config)
        connector = new_connector(shape, vision)
        if config.connector.tune in ADAPTERS:
            connector.fill_branches()
        connector.match_scale(language.get_input_embeddings().weight.float().std().item())
    processor = IfasProcessor(
        load_tokenizer(config.language),
        image_size=config.vision.image_size,
        image_tokens=connector.tokens,
        views=config.views,
        face_margin=config.face_margin,
        faces=config.faces,
        question=config.question,
        max_answer_tokens=config.max_answer_tokens,
        name_attack=config.name_attack,
    )
    shape.image_token_id = processor.image_token_id
    with torch.device("meta"):
        model = IfasModel(shape)
    model.vision, model.connector, model.language = vision, connector, language
    return model.to(device), processor


def skeleton(config: ModelConfig) -> IfasModel:
    """A model without weights, on the meta device; nothing is downloaded.

    Raises:
        ConfigError: a source is neither on this machine nor in `architectures`.
    """
    _quiet()
    shape = ifas_config(config, download=False)
    with torch.device("meta"):
        return IfasModel(shape)


def describe(config: ModelConfig, model: IfasModel | None = None) -> dict[str, Any]:
    """Sizes of a model without its weights: built on the meta device, nothing is downloaded.

    Args:
        config: of the model.
        model: its `skeleton`, which gets its adapters; None builds one.

    Returns:
        `vision`, `connector`, `language` and `total`, each with `parameters` (as served), `stored` (in training, with
        adapters) and `trainable`;
        `levels` (L), `views` (V), `image_tokens` (|Q_P| + V * L), `vision_width`, `language_width`, `language_layers`.

    Raises:
        ConfigError: a source is neither on this machine nor in `architectures`.
    """
    model = skeleton(config) if model is None else model
    shape: Any = model.config
    before = count(model)
    with torch.device("meta"):
        prepare(model, config)
    after = count(model)
    sizes: dict[str, Any] = {
        part: {
            "parameters": before[part]["parameters"],
            "stored": after[part]["parameters"],
            "trainable": after[part]["trainable"],
        }
        for part in before
    }
    return {
        **sizes,
        "levels": len(model.vision.level_widths),
        "views": len(config.views),
        "image_tokens": model.connector.tokens,
        "vision_width": model.vision.patch_width,
        "language_width": shape.text_config.hidden_size,
        "language_layers": shape.text_config.num_hidden_layers,
    }


def save(model: IfasModel, processor: IfasProcessor, folder: Path) -> None:
    """Writes a model directory (safetensors, config, tokenizer, processor), atomically."""
    _quiet()
    with replacing(folder) as beside:
        model.save_pretrained(beside)
        processor.save_pretrained(beside)


def load(folder: Path, *, dtype: torch.dtype | None = None) -> tuple[IfasModel, IfasProcessor]:
    """The model and processor in a model directory, in eval mode.

    Args:
        folder: from `save`.
        dtype: of the weights; None keeps the saved one.

    Raises:
        ConfigError: not a model directory, or unreadable.
    """
    _quiet()
    processor = IfasProcessor.from_pretrained(folder)
    try:
        model = pretrained(IfasModel, folder, dtype=dtype or "auto", local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"the model in {folder} can't be loaded: {error}", "train it again") from error
    return model.eval(), processor


def _quiet() -> None:
    from transformers.utils import logging

    if not torch.cuda.is_available():
        # transformers imports deepspeed when it saves, which warns unless it is told that there is no accelerator.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
