"""Any `image-text-to-text` model of transformers as a captioner: BLIP, LLaVA, Qwen-VL or SmolVLM class.

Weights come from a folder or a hub id, as safetensors; code that comes with a model is never run. Fine-tuned with LoRA
(arXiv 2106.09685) on the kept captions, it is C_S of Algorithm 1; only the adapter is saved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    from ifas.captioning.kept import Kept
    from ifas.captioning.measure import Measured
    from ifas.captioning.pictures import Pictures
    from ifas.captioning.protocol import Losses, SpoofAware
    from ifas.captioning.view import Picture

_ADAPTER, _SETTINGS = "adapter.safetensors", "captioner.json"
#: Label of a position that the loss does not look at.
_UNSEEN = -100
#: How often held-out pairs are looked at during tuning.
_LOOKS = 10


@dataclass(frozen=True)
class Examples:
    """Pictures, read when they are needed, their captions, and how much each pair counts, (n,)."""

    picture: Callable[[int], Picture]
    texts: Sequence[str]
    weights: npt.NDArray[np.float64]


class VisionLanguageCaptioner:
    """A vision-language model with its processor and a fixed prompt; `caption` and `write` take the likeliest words."""

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

        from ifas.model.sources import pretrained, resolve, unreachable

        if not config.model:
            raise ConfigError(
                "caption.captioner is transformers, but caption.model is empty", "name a folder or a hub id"
            )
        place = resolve(config.model)
        device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            processor = AutoProcessor.from_pretrained(place, trust_remote_code=False)
            model = pretrained(AutoModelForImageTextToText, place, dtype=getattr(torch, config.dtype))
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise unreachable(config.model, error) from error
        if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
            raise ConfigError(f"{config.model} has no processor of images and text", "name an image-text-to-text model")
        return cls(model.to(device), processor, config)

    def caption(self, pictures: Sequence[Measured]) -> list[Caption]:
        """One caption per picture, from its pixels alone; `config.images_at_once` in a batch."""
        return [Caption(text) for text in self.say([one.picture for one in pictures])]

    def sample(self, pictures: Sequence[Measured], count: int, config: CaptionConfig) -> list[list[str]]:
        """`count` captions per picture, drawn word by word at `config.temperature`; picture and seed fix them."""
        return [self._draw(one.picture, count, config) for one in pictures]

    def _draw(self, picture: Picture, count: int, config: CaptionConfig) -> list[str]:
        import torch

        seed = int.from_bytes(hashlib.sha256(picture.tobytes() + str(config.seed).encode()).digest()[:7], "big")
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return self.say([picture] * count, temperature=config.temperature)

    def write(self, pictures: Pictures) -> list[str]:
        """One caption per picture, decoded again in small portions."""
        texts: list[str] = []
        progress = Progress("caption", total=len(pictures), unit="captions")
        for chunk in pictures.chunks():
            texts += self.say(chunk)
            progress.advance(len(chunk), phase="spoof-aware captions")
        return texts

    def say(self, pictures: Sequence[Picture], temperature: float | None = None) -> list[str]:
        """One caption per uint8 RGB picture (H, W, 3), `config.images_at_once` in a batch.

        Args:
            temperature: draws words by chance; None takes the likeliest.
        """
        import torch

        how = (
            {"do_sample": False} if temperature is None else {"do_sample": True, "temperature": temperature, "top_k": 0}
        )
        texts: list[str] = []
        for start in range(0, len(pictures), self.config.images_at_once):
            batch = list(pictures[start : start + self.config.images_at_once])
            inputs = self._inputs(batch, [self._prompt] * len(batch))
            with torch.inference_mode():
                given = self.model.generate(**inputs, **how, max_new_tokens=self.config.max_new_tokens)
            ids = inputs.get("input_ids")
            # Most models repeat the prompt before their answer, encoder-decoders do not.
            if ids is not None and given.shape[1] > ids.shape[1] and torch.equal(given[:, : ids.shape[1]], ids):
                given = given[:, ids.shape[1] :]
            texts += self.processor.batch_decode(given, skip_special_tokens=True)
        return [_sentence(text) for text in texts]

    def tune(self, pictures: Pictures, kept: Kept, config: CaptionConfig) -> tuple[SpoofAware, Losses]:
        """C_S: this very captioner with an adapter, tuned on the kept captions. Its general captions are lost.

        The subjects of one share are held out; the adapter is that of the step with the lowest loss on them.
        """
        import numpy as np

        from ifas.captioning.reproducible import reproducible

        learned, held = next(kept.folds(config.held_out, config.seed), (np.arange(len(kept)), np.arange(0)))
        progress = Progress("caption", total=config.tune_steps, unit="steps")

        def of(pairs: npt.NDArray[np.int64]) -> Examples:
            mine = pictures.take(kept.places[pairs])
            return Examples(mine.decoded, [kept.texts[i] for i in pairs.tolist()], kept.weights[pairs])

        with reproducible():
            tune, held_out = self.learn(of(learned), config.seed, of(held) if len(held) else None, progress)
        return self, {"imitate": [], "tune": tune, "held out": held_out}

    def learn(
        self, examples: Examples, seed: int, held: Examples | None = None, progress: Progress | None = None
    ) -> tuple[list[float], list[float]]:
        """Fine-tunes with LoRA in every linear layer; the loss of each step, and that on `held`, ten times on the way.

        Args:
            held: what the step is chosen by; without it, the last one counts.
        """
        import numpy as np
        import torch

        config = self.config
        self._inject(seed)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=config.lora_lr, weight_decay=config.weight_decay)
        rng = np.random.default_rng([seed, len(examples.texts)])
        batch = min(config.images_at_once, len(examples.texts))
        losses: list[float] = []
        held_out: list[float] = []
        best: list[Any] = []
        for step in range(1, config.tune_steps + 1):
            self.model.train()
            # How much a pair counts is how often it is drawn.
            chosen = rng.choice(len(examples.texts), batch, p=examples.weights / examples.weights.sum())
            loss = self._loss(examples, chosen.tolist())
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            losses.append(float(loss.item()))
            if progress is not None:
                progress.advance(loss=round(losses[-1], 3))
            if held is not None and (step % max(1, config.tune_steps // _LOOKS) == 0 or step == config.tune_steps):
                held_out.append(self._held_out(held))
                if held_out[-1] <= min(held_out):
                    best = [p.detach().clone() for p in weights]
        for p, kept in zip(weights, best, strict=False):
            p.data.copy_(kept)
        self.model.eval()
        return losses, held_out

    def _loss(self, examples: Examples, chosen: Sequence[int]) -> Any:
        inputs = self._examples([examples.picture(i) for i in chosen], [examples.texts[i] for i in chosen])
        return self.model(**inputs).loss

    def _held_out(self, held: Examples) -> float:
        """Mean loss over held-out pairs, as much as each counts."""
        import torch

        self.model.eval()
        total = 0.0
        with torch.inference_mode():
            for i, weight in enumerate(held.weights.tolist()):
                total += weight * float(self._loss(held, [i]).item())
        return total / float(held.weights.sum())

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
