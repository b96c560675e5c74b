"""A trained model's answers: the score from one prefill, the explanation only when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifas.model.build import load
from ifas.model.processor import IfasProcessor, Pixels

#: Pictures that go through the model at once; more are taken in several goes.
BATCH = 16


class Judge:
    """Judges and explains pictures. Prompts have one length and no padding, so a picture's answer does not depend on
    its neighbours in a batch (to 1e-5).

    Args:
        model, processor: from `build.load` or `build.build`.
        batch: pictures at once.
    """

    def __init__(self, model: Any, processor: IfasProcessor, batch: int = BATCH) -> None:
        self.model = model.eval()
        self.processor = processor
        self.batch = batch

    @classmethod
    def load(cls, folder: Path, threads: int | None = None, device: str = "") -> Judge:
        """The judge in a model directory.

        Args:
            folder: of `build.save`.
            threads: of torch in this process; None leaves them as they are.
            device: empty takes a GPU where there is one. On a CPU the weights become float32.

        Raises:
            ConfigError: not a model directory.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, processor = load(folder, dtype=torch.float32 if device == "cpu" else None)
        return cls(model.to(device), processor)

    def judge(self, images: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """Scores (B,): softmax over the logits of Yes and No at the first answer position, the part of Yes.

        1 is bona fide, 0 an attack.

        Args:
            images: B uint8 RGB pictures (H, W, 3) of any size.
        """
        scores = [self._score(self._prefill(chunk)[0]) for chunk in self._chunks(images)]
        return np.concatenate(scores) if scores else np.zeros(0)

    def explain(self, images: Sequence[Pixels], verdicts: Sequence[bool] | None = None) -> list[str]:
        """Interpretations, decoded greedily after a given verdict, up to the end token or `max_answer_tokens`.

        Args:
            images: B uint8 RGB pictures (H, W, 3).
            verdicts: True for bona fide, as the threshold decided; None takes the likelier of Yes and No.
        """
        texts: list[str] = []
        for start, chunk in zip(range(0, len(images), self.batch), self._chunks(images), strict=True):
            forced = None if verdicts is None else [bool(v) for v in verdicts[start : start + self.batch]]
            texts += self._explain(chunk, forced)
        return texts

    def _chunks(self, images: Sequence[Pixels]) -> list[Sequence[Pixels]]:
        return [images[i : i + self.batch] for i in range(0, len(images), self.batch)]

    @torch.inference_mode()
    def _prefill(self, images: Sequence[Pixels]) -> tuple[Tensor, Any]:
        pixels = self.processor.pixel_values([self.processor.image(i) for i in images]).to(self.model.device)
        prompt = torch.tensor([self.processor.prompt_ids], device=self.model.device)
        logits_BV, cache = self.model.prefill(pixels, prompt.expand(len(images), -1))
        return logits_BV, cache

    def _score(self, logits_BV: Tensor) -> npt.NDArray[np.float64]:
        tokens = self.processor.verdicts
        pair_B2 = logits_BV[:, [tokens.yes[0], tokens.no[0]]].double()
        scores: npt.NDArray[np.float64] = pair_B2.softmax(dim=-1)[:, 0].cpu().numpy()
        return scores

    @torch.inference_mode()
    def _explain(self, images: Sequence[Pixels], verdicts: list[bool] | None) -> list[str]:
        logits_BV, cache = self._prefill(images)
        if verdicts is None:
            verdicts = [score >= 0.5 for score in self._score(logits_BV).tolist()]
        tokens = self.processor.verdicts
        if len(tokens.yes) != len(tokens.no) and len(set(verdicts)) > 1:
            # The two verdicts have different lengths: one batch each, so that no padding gets between.
            texts = [""] * len(images)
            for live in (True, False):
                rows = [i for i, v in enumerate(verdicts) if v == live]
                for row, text in zip(rows, self._explain([images[r] for r in rows], [live] * len(rows)), strict=True):
                    texts[row] = text
            return texts
        ids_BS = torch.tensor([tokens.of(v) for v in verdicts], device=logits_BV.device)
        return [self.processor.text(ids) for ids in self._decode(ids_BS, cache)]

    def _decode(self, ids_BS: Tensor, cache: Any) -> list[list[int]]:
        """Greedy decoding after `ids_BS`, which the cache has not seen yet."""
        written: list[Tensor] = []
        ended_B = torch.zeros(ids_BS.shape[0], dtype=torch.bool, device=ids_BS.device)
        for _ in range(self.processor.max_answer_tokens):
            out = self.model.language(input_ids=ids_BS, past_key_values=cache, use_cache=True, logits_to_keep=1)
            next_B = out.logits[:, -1].argmax(dim=-1).masked_fill(ended_B, self.processor.end_id)
            written.append(next_B)
            ended_B |= next_B == self.processor.end_id
            if bool(ended_B.all()):
                break
            ids_BS, cache = next_B[:, None], out.past_key_values
        return torch.stack(written, dim=1).tolist() if written else []
