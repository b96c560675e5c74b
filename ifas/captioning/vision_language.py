"""Any `image-text-to-text` model of transformers as a captioner: BLIP, LLaVA, Qwen-VL or SmolVLM class.

Weights come from a folder or a hub id, as safetensors; code that comes with a model is never run. Fine-tuned with LoRA
(arXiv 2106.09685) on the kept captions, it is C_S of Algorithm 1; only the adapter is saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.captioning.protocol import Caption
from ifas.core.config import CaptionConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import replacing, write_json
from ifas.core.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ifas.captioning.measure import Measured
    from ifas.captioning.pictures import Pictures
    from ifas.captioning.protocol import Losses, SpoofAware
    from ifas.captioning.view import Picture

_ADAPTER, _SETTINGS = "adapter.safetensors", "captioner.json"
#: Label of a position that the loss does not look at.
_UNSEEN = -100


class VisionLanguageCaptioner:
    """A vision-language model with its processor and a fixed prompt; greedy, so a picture always gets one caption."""

    name = "transformers"

    def __init__(self, model: Any, processor: Any, config: CaptionConfig) -> None:
        self.model = model.eval()
        self.processor = processor
        self.config = config
        self._prompt = _prompt(processor, config.prompt)
        # Generation continues at the right end, so padding is on the left.
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    @classmethod
    def load(cls, config: CaptionConfig) -> VisionLanguageCaptioner:
        """The model that `config.model` names, on `config.device`.

        Raises:
            ConfigError: no model is named, its files can't be had, or it is of another kind.
        """
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from ifas.model.sources import resolve, unreachable

        if not config.model:
            raise ConfigError(
                "caption.captioner is transformers, but caption.model is empty", "name a folder or a hub id"
            )
        place = resolve(config.model)
        device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            processor = AutoProcessor.from_pretrained(place, trust_remote_code=False)
            model = AutoModelForImageTextToText.from_pretrained(
                place, dtype=getattr(torch, config.dtype), use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise unreachable(config.model, error) from error
        if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
            raise ConfigError(f"{config.model} has no processor of images and text", "name an image-text-to-text model")
        return cls(model.to(device), processor, config)

    def caption(self, pictures: Sequence[Measured]) -> list[Caption]:
        """One caption per picture, from its pixels alone; `config.images_at_once` in a batch."""
        return [Caption(text) for text in self.say([one.picture for one in pictures])]

    def write(self, pictures: Pictures) -> list[str]:
        """One caption per picture, decoded again in small portions."""
        texts: list[str] = []
        progress = Progress("caption", total=len(pictures), unit="captions")
        for chunk in pictures.chunks():
            texts += self.say(chunk)
            progress.advance(len(chunk), phase="spoof-aware captions")
        return texts

    def say(self, pictures: Sequence[Picture]) -> list[str]:
        """One caption per uint8 RGB picture (H, W, 3), `config.images_at_once` in a batch."""
        import torch

        texts: list[str] = []
        for start in range(0, len(pictures), self.config.images_at_once):
            batch = list(pictures[start : start + self.config.images_at_once])
            inputs = self._inputs(batch, [self._prompt] * len(batch))
            with torch.inference_mode():
                given = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.config.max_new_tokens)
            ids = inputs.get("input_ids")
            # Most models repeat the prompt before their answer, encoder-decoders do not.
            if ids is not None and given.shape[1] > ids.shape[1] and torch.equal(given[:, : ids.shape[1]], ids):
                given = given[:, ids.shape[1] :]
            texts += self.processor.batch_decode(given, skip_special_tokens=True)
        return [_sentence(text) for text in texts]

    def tune(
        self, pictures: Pictures, texts: Sequence[str], kept: npt.NDArray[np.bool_], config: CaptionConfig
    ) -> tuple[SpoofAware, Losses]:
        """C_S: this very captioner with an adapter, tuned on the kept captions. Its general captions are lost."""
        import numpy as np

        from ifas.captioning.reproducible import reproducible

        chosen = np.flatnonzero(kept)
        mine = pictures.take(chosen)
        progress = Progress("caption", total=config.tune_steps, unit="steps")
        with reproducible():
            losses = self.learn(mine.decoded, [texts[i] for i in chosen.tolist()], config.seed, progress)
        return self, {"imitate": [], "tune": losses}

    def learn(
        self, picture: Callable[[int], Picture], texts: Sequence[str], seed: int, progress: Progress | None = None
    ) -> list[float]:
        """Fine-tunes on pictures and their captions with LoRA in every linear layer; the loss of each step.

        Args:
            picture: the i-th picture, read when it is needed.
            texts: its caption.
        """
        import numpy as np
        import torch

        config = self.config
        self._inject(seed)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=config.lora_lr, weight_decay=0.0)
        rng = np.random.default_rng([seed, len(texts)])
        deck: list[int] = []
        losses = []
        self.model.train()
        for _ in range(config.tune_steps):
            while len(deck) < min(config.images_at_once, len(texts)):
                deck += rng.permutation(len(texts)).tolist()
            chosen, deck = deck[: config.images_at_once], deck[config.images_at_once :]
            inputs = self._examples([picture(i) for i in chosen], [texts[i] for i in chosen])
            loss = self.model(**inputs).loss
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            losses.append(float(loss.item()))
            if progress is not None:
                progress.advance(loss=round(losses[-1], 3))
        self.model.eval()
        return losses

    def save(self, folder: Path) -> None:
        """Writes the adapter and what it belongs to; the base model stays where it is."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        with replacing(folder) as beside:
            beside.mkdir()
            save_file({k: v.contiguous() for k, v in get_peft_model_state_dict(self.model).items()}, beside / _ADAPTER)
            write_json(beside / _SETTINGS, {"format": 1, "config": self.config.model_dump(mode="json")})

    @classmethod
    def load_tuned(cls, folder: Path) -> VisionLanguageCaptioner:
        """A saved captioner: base model and adapter. Raises DataError or ConfigError."""
        from peft import set_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = CaptionConfig.model_validate(
                json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))["config"]
            )
            adapter = load_file(folder / _ADAPTER)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DataError(f"{folder} holds no usable captioner: {error}", "run `ifas step caption` again") from error
        captioner = cls.load(config)
        captioner._inject(config.seed)
        set_peft_model_state_dict(captioner.model, adapter)
        captioner.model.eval()
        return captioner

    def _inject(self, seed: int) -> None:
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        lora = LoraConfig(r=self.config.lora_rank, lora_alpha=2 * self.config.lora_rank, target_modules="all-linear")
        self.model.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(lora, self.model)

    def _inputs(self, pictures: list[Picture], prompts: list[str]) -> dict[str, Any]:
        from PIL import Image

        images = [Image.fromarray(picture) for picture in pictures]
        # A model without a chat template and a prompt starts from the picture alone.
        text = {"text": prompts} if any(prompts) else {}
        inputs = self.processor(images=images, return_tensors="pt", **({"padding": True} if text else {}), **text)
        floats = next(self.model.parameters()).dtype
        moved = inputs.to(self.model.device)
        return {k: v.to(floats) if v.is_floating_point() else v for k, v in moved.items()}

    def _examples(self, pictures: list[Picture], texts: list[str]) -> dict[str, Any]:
        """Inputs with labels on the caption and its end alone."""
        end = self.processor.tokenizer.eos_token or self.processor.tokenizer.sep_token or ""
        inputs = self._inputs(pictures, [f"{self._prompt}{text}{end}" for text in texts])
        labels = inputs["input_ids"].clone()
        if self._prompt:
            lengths = [self._inputs([picture], [self._prompt])["input_ids"].shape[1] for picture in pictures]
            whole = inputs["attention_mask"].sum(dim=1).tolist()
            width = labels.shape[1]
            for row, (total, prompt) in enumerate(zip(whole, lengths, strict=True)):
                labels[row, : width - total + prompt] = _UNSEEN
        labels[inputs["attention_mask"] == 0] = _UNSEEN
        return {**inputs, "labels": labels}


def _prompt(processor: Any, question: str) -> str:
    """The text before the caption: by the model's chat template, or none where the model has none."""
    if not getattr(processor, "chat_template", None):
        return ""
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    return str(processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))


def _sentence(text: str) -> str:
    """One line that starts with a capital and ends with a stop."""
    line = " ".join(text.split())
    if not line:
        return "A picture."
    return line[0].upper() + line[1:] + ("" if line.endswith((".", "!", "?")) else ".")
