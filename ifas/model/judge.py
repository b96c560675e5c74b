"""The inference engine: scores from one prefill, explanations decoded from the same prefill when asked for.

Evaluation and serving both use it, so a picture has the same score in both. Prompts have one length and no padding:
a picture's answer does not depend on the others in its batch (scores to 1e-5 in float32).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ifas.core.calibration import Calibration
from ifas.core.errors import ConfigError, unknown_key
from ifas.faces.face import Face
from ifas.model.attack_named import AttackNamer, Named, names_no_other, prior
from ifas.model.build import load
from ifas.model.decoding import greedy
from ifas.model.fast import speed_up
from ifas.model.growing_text import GrowingText
from ifas.model.processor import IfasProcessor
from ifas.model.remembered import Remembered

#: Pictures that go through the model at once.
BATCH = 16
#: Of these, pictures whose views pass the vision tower at once on a CPU: maps of more would not fit into its cache.
SEE_ON_CPU = 4
#: Threads that resize pictures while the model is busy with others.
RESIZERS = 4
#: Spoof type of an answer that accepts.
LIVE = "live"
#: Weights: of `Judge.load`. `auto` keeps what was saved.
DTYPES: dict[str, torch.dtype | None] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": None}


@dataclass(frozen=True)
class Judged:
    """What the model says of one picture.

    Attributes:
        score: probability of bona fide.
        live: the verdict that the text explains.
        spoof_type: `live`, or the attack that it most likely is, see `attack_named`; the text names no other medium.
        confidence: that it is this attack, if it is one, 0 to 1; None after a live verdict.
        text: interpretation.
    """

    score: float
    live: bool
    spoof_type: str
    confidence: float | None
    text: str


class Judge:
    """Judges and explains pictures.

    Args:
        model, processor: from `build.load` or `build.build`; `load` also rewrites the model, see `fast`. Its weights
            stay as they are: what the prompt says before the picture is computed once, here.
        batch: pictures at once.
        compile: runs the prefill through torch.compile, for every shape of batch once.
        calibration: of the scores, frozen by evaluation; None leaves the model's own.
    """

    def __init__(
        self,
        model: Any,
        processor: IfasProcessor,
        batch: int = BATCH,
        *,
        compile: bool = False,
        calibration: Calibration | None = None,
    ) -> None:
        self.calibration = calibration
        self.model = model.eval()
        self.processor = processor
        self.batch = batch
        self.see = SEE_ON_CPU if model.device.type == "cpu" and not compile else 0
        self._prefill = torch.compile(model.prefill, dynamic=True) if compile else model.prefill
        self._namer = AttackNamer(model, processor)
        # What a prompt says before the picture is the same for all. A compiled prefill takes the prompt as a whole.
        self._said = 0 if compile else processor.prompt_ids.index(processor.image_token_id)
        self._opening = self._opened() if self._said else None

    @classmethod
    def load(
        cls,
        folder: Path,
        threads: int | None = None,
        device: str = "",
        dtype: str = "float32",
        *,
        batch: int = BATCH,
        compile: bool = False,
        calibration: Calibration | None = None,
        remember: int = 0,
    ) -> Judge:
        """The judge in a model directory.

        Args:
            folder: of `build.save`.
            threads: of torch in this process; None leaves them as they are.
            device: empty takes a GPU where there is one.
            dtype: of the weights, a key of `DTYPES`. A threshold belongs to the dtype that it was frozen at.
            batch: pictures at once.
            compile: compiles the prefill now (a minute; needs a C++ compiler).
            calibration: of the scores. A threshold belongs to it, too.
            remember: bytes in which the tower's features of images are kept, for a caller that asks about them again.

        Raises:
            ConfigError: not a model directory, an unknown dtype, or nothing to compile with.
        """
        if dtype not in DTYPES:
            raise unknown_key("dtype", dtype, DTYPES)
        if threads is not None:
            torch.set_num_threads(threads)
        model, processor = load(folder, dtype=DTYPES[dtype])
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if model.device.type == "cuda" and model.dtype == torch.float32:
            # Else cuDNN rounds what it convolves to 10 bits (TF32): on an H100 ten times further from the CPU's scores.
            torch.backends.cudnn.allow_tf32 = False
        if remember:
            model.see = Remembered(model.see, remember)
        judge = cls(
            speed_up(model, batch, compiled=compile), processor, batch, compile=compile, calibration=calibration
        )
        if compile:
            judge._compile()
        return judge

    def find(self, picture: npt.NDArray[np.uint8]) -> Face:
        """The face of an RGB image (H, W, 3). Raises FaceRefused where there is none that can be judged."""
        return self.processor.find(picture)

    def judge(self, faces: Sequence[Face]) -> npt.NDArray[np.float64]:
        """Scores (B,): softmax over the logits of Yes and No at the first answer position, the part of Yes.

        1 is bona fide, 0 an attack. With a calibration, what it makes of that. Nothing is decoded.

        Args:
            faces: B images of any size, each with its face.
        """
        scores = [self._start(pixels)[0] for pixels in self._pixels(faces)]
        return np.concatenate(scores) if scores else np.zeros(0)

    def answer(self, faces: Sequence[Face], threshold: float = 0.5, *, explain: bool = True) -> list[Judged]:
        """Scores as of `judge`, and the attack and interpretation of the verdict that follows, from one prefill.

        Args:
            faces: B images, each with its face.
            threshold: a score of at least this is live.
            explain: whether a text is decoded; else it is "".
        """
        answers: list[Judged] = []
        for pixels in self._pixels(faces):
            scores, cache = self._start(pixels)
            answers += self._answers(scores, [score >= threshold for score in scores.tolist()], cache, explain=explain)
        return answers

    def explain(self, faces: Sequence[Face], verdicts: Sequence[bool] | None = None) -> list[Judged]:
        """Answers as of `answer` after a given verdict. A text is decoded greedily, up to the end token or
        `max_answer_tokens`; it names the medium of the answer's attack or none, and none after a live verdict.

        Args:
            faces: B images, each with its face.
            verdicts: True for bona fide, as the threshold decided; None takes Yes or No, whichever is likelier.
        """
        if verdicts is None:
            return self.answer(faces)
        given = iter(verdicts)
        answers: list[Judged] = []
        for pixels in self._pixels(faces):
            scores, cache = self._start(pixels)
            answers += self._answers(scores, [bool(v) for v in islice(given, len(pixels))], cache)
        return answers

    def stream(self, faces: Sequence[Face], threshold: float = 0.5) -> Iterator[tuple[int, str]]:
        """Interpretations of `answer` while they are decoded: (index of the picture, next piece of its text).

        A piece never holds a part of a character. A picture's pieces, joined, are its text in `answer`.
        """
        done = 0
        for pixels in self._pixels(faces):
            scores, cache = self._start(pixels)
            growing = [GrowingText(self.processor) for _ in scores]
            lives = [score >= threshold for score in scores.tolist()]
            for step in self._decode(cache, lives, self._named(cache, lives)):
                for row, token in step:
                    if piece := growing[row].add(token):
                        yield done + row, piece
            for row, text in enumerate(growing):
                if piece := text.end():
                    yield done + row, piece
            done += len(growing)

    @torch.inference_mode()
    def pooled(self, faces: Sequence[Face]) -> npt.NDArray[np.float32]:
        """What the vision tower says of each face as a whole, (B, F): the pooled tokens of all its levels of all views.

        Nothing that was trained after the tower is in it.
        """
        rows = []
        for pixels in self._pixels(faces):
            for some in torch.split(pixels, self.see or len(pixels)):
                _, levels = self.model.see(some.to(self.model.device))
                rows.append(torch.cat(levels, dim=1).float().cpu().numpy())
        return np.concatenate(rows)

    @torch.inference_mode()
    def choose(self, faces: Sequence[Face], question: str, letters: str) -> npt.NDArray[np.float64]:
        """Likelihood of each letter as the first token of the answer to another question, (B, letters), of all of them.

        Raises:
            ConfigError: the tokenizer writes two of the letters with the same first token.
        """
        encoded = [self.processor.tokenizer.encode(letter, add_special_tokens=False) for letter in letters]
        # Some tokenizers put a lone word boundary first.
        shared = next((at for at, ids in enumerate(zip(*encoded, strict=False)) if len(set(ids)) > 1), 0)
        first = [ids[shared] for ids in encoded]
        if len(set(first)) < len(letters):
            raise ConfigError(
                f"the tokenizer can't tell the letters {letters} apart by one token", "set evaluate.modes.images=0"
            )
        prompt = [*self._question(question), *encoded[0][:shared]]
        head = self.model.language.get_output_embeddings()
        found = []
        for pixels in self._pixels(faces):
            hidden_BW, _ = self._ask(pixels, prompt)
            bias = None if head.bias is None else head.bias[first].float()
            logits_BL = F.linear(hidden_BW.float(), head.weight[first].float(), bias)
            found.append(logits_BL.double().softmax(dim=-1).cpu().numpy())
        return np.concatenate(found)

    def say(self, faces: Sequence[Face]) -> list[str]:
        """Answers to the model's own question in plain text, Yes or No included: decoded greedily, nothing forced."""
        *prompt, last = self._question("")
        texts = []
        for pixels in self._pixels(faces):
            _, cache = self._ask(pixels, prompt)
            written: list[list[int]] = [[] for _ in pixels]
            most, end = [self.processor.max_answer_tokens] * len(pixels), self.processor.end_id
            for step in greedy(self.model.language, cache, [[last]] * len(pixels), end_id=end, limits=most):
                for row, token in step:
                    written[row].append(token)
            texts += [self.processor.text(ids) for ids in written]
        return texts

    def _question(self, question: str) -> list[int]:
        """The prompt, without the beginning that verdicts share."""
        ids = self.processor.prompt(question)
        return ids[: len(ids) - len(self.processor.verdicts.shared)]

    @torch.inference_mode()
    def _ask(self, pixels_BUCHW: Tensor, prompt: Sequence[int]) -> tuple[Tensor, Any]:
        """Last hidden states (B, width) and the cache of a prompt."""
        device = self.model.device
        prompt_BT = torch.tensor(list(prompt), device=device).expand(len(pixels_BUCHW), -1)
        hidden_BW, cache = self.model.prefill(pixels_BUCHW.to(device), prompt_BT, self.see, None)
        return hidden_BW, cache

    def attack_prior(self, faces: Sequence[Face]) -> dict[str, float]:
        """How often the model says each attack on average over these images, see `attack_named.prior`."""
        found = []
        for pixels in self._pixels(faces):
            _, cache = self._start(pixels)
            found.append(self._namer.log_likelihoods(cache, range(len(pixels))))
        return dict(zip(self._namer.attacks, prior(np.concatenate(found)).tolist(), strict=True))

    def _pixels(self, faces: Sequence[Face]) -> Iterator[Tensor]:
        """Views (b, V, 3, S, S) in batches, uint8."""
        if len(faces) == 1:  # no threads for the one picture of a request
            yield self.processor.pixel_values([self.processor.views(faces[0])])
            return
        with ThreadPoolExecutor(min(RESIZERS, os.cpu_count() or 1), thread_name_prefix="resize") as pool:
            seen = pool.map(self.processor.views, faces)
            while batch := list(islice(seen, self.batch)):
                yield self.processor.pixel_values(batch)

    @torch.inference_mode()
    def _opened(self) -> Any:
        """KV cache (one row) of the prompt up to the picture."""
        language, ids = self.model.language, self.processor.prompt_ids[: self._said]
        ids_1T = torch.tensor([ids], device=self.model.device)
        return language.get_decoder()(input_ids=ids_1T, use_cache=True).past_key_values

    @torch.inference_mode()
    def _start(self, pixels_BUCHW: Tensor) -> tuple[npt.NDArray[np.float64], Any]:
        """Scores (B,) and the cache of the prompts."""
        device = self.model.device
        prompt_BT = torch.tensor([self.processor.prompt_ids[self._said :]], device=device).expand(len(pixels_BUCHW), -1)
        opening = copy.deepcopy(self._opening)
        if opening is not None:
            opening.batch_repeat_interleave(len(pixels_BUCHW))
        hidden_BW, cache = self._prefill(pixels_BUCHW.to(device), prompt_BT, self.see, opening)
        # The two rows of the head that count, in float32 whatever the weights are.
        tokens, head = self.processor.verdicts, self.model.language.get_output_embeddings()
        pair = [tokens.yes[0], tokens.no[0]]
        bias = None if head.bias is None else head.bias[pair].float()
        logits_B2 = F.linear(hidden_BW.float(), head.weight[pair].float(), bias)
        scores: npt.NDArray[np.float64] = logits_B2.double().softmax(dim=-1)[:, 0].cpu().numpy()
        if self.calibration:
            scores = self.calibration.apply(scores)
        return scores, cache

    def _answers(
        self, scores: npt.NDArray[np.float64], lives: Sequence[bool], cache: Any, *, explain: bool = True
    ) -> list[Judged]:
        named = self._named(cache, lives)
        texts = [""] * len(lives)
        if explain:
            written: list[list[int]] = [[] for _ in lives]
            for step in self._decode(cache, lives, named):
                for row, token in step:
                    written[row].append(token)
            texts = [self.processor.text(ids) for ids in written]
        return [
            Judged(score, live, LIVE if one is None else one.spoof_type, None if one is None else one.confidence, text)
            for score, live, one, text in zip(scores.tolist(), lives, named, texts, strict=True)
        ]

    def _named(self, cache: Any, lives: Sequence[bool]) -> list[Named | None]:
        """The attack on each image that was rejected."""
        rejected = [row for row, live in enumerate(lives) if not live]
        found: list[Named | None] = [None] * len(lives)
        if rejected:
            for row, one in zip(rejected, self._namer.name(cache, rejected), strict=True):
                found[row] = one
        return found

    def _decode(
        self, cache: Any, lives: Sequence[bool], named: Sequence[Named | None]
    ) -> Iterator[list[tuple[int, int]]]:
        """Steps of (row, token): first those that name the attack, then what is decoded behind them."""
        processor = self.processor
        attacks = ["" if one is None else one.spoof_type for one in named]
        openings = [processor.opening(attack) for attack in attacks]
        phrases = [processor.growing(opening) for opening in openings]
        yield [(row, token) for row, opening in enumerate(openings) for token in opening]

        def may_say(row: int, tokens: Sequence[int]) -> bool:
            clauses, ends = processor.clauses, tokens[-1] == processor.end_id
            if clauses is None:
                return ends or names_no_other(processor.text([*openings[row], *tokens]), attacks[row])
            whole, phrase = processor.growing([*openings[row], *tokens]), phrases[row]
            own = _behind(whole[len(phrase) :], phrase=bool(phrase))
            if own is None or ends:
                return own is not None and clauses.may_end(own)
            # A token that adds nothing to be seen could go on for ever.
            return clauses.may_go_on(own, attacks[row]) and whole != processor.growing([*openings[row], *tokens[:-1]])

        yield from greedy(
            self.model.language,
            cache,
            [[*processor.verdicts.of(live), *opening] for live, opening in zip(lives, openings, strict=True)],
            end_id=processor.end_id,
            limits=[processor.max_answer_tokens - len(opening) for opening in openings],
            may_say=may_say,
        )

    def _compile(self) -> None:
        """Compiles for one picture and for several."""
        side, views = self.processor.image_size, len(self.processor.kinds)
        try:
            for count in {1, self.batch}:  # one picture is a shape of its own, every other number is one shape
                self._start(torch.zeros(count, views, 3, side, side, dtype=torch.uint8))
        except Exception as error:
            # Whatever the compiler raises is not the model's fault: the same code has run without compiling.
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"torch.compile failed: {type(error).__name__}: {reason}", "install g++, or load without `compile`"
            ) from error


def _behind(text: str, *, phrase: bool) -> str | None:
    """An interpretation without what joins it to the phrase before it, a space, or to the bare verdict, a full stop and
    a space; None where it is joined in another way than training showed."""
    if not phrase and text[:1] not in ("", "."):
        return None
    rest = text if phrase else text[1:]
    return rest[1:] if rest[:1] in ("", " ") else None
