"""Pictures and text -> the model's inputs, and its answers back to text. Training and serving share it.

The sequence is `prompt | verdict | interpretation`: the chat template's prompt with the image tokens before the one
fixed question, then the answer "Yes. <caption>" or "No. <phrase> <caption>" and the end token. The phrase names the
attack (`attack_named`); without `name_attack` there is none, as in the paper. It belongs to the interpretation: the
judgment is Yes or No only. Other questions are asked only in training, by alignment. Our choices, not stated in the
paper: the views of `ifas.faces.views`; no system prompt, which would say nothing about the picture; the end token
belongs to the interpretation; a caption longer than `max_answer_tokens` is cut.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from ifas.core.config import FacesConfig
from ifas.core.errors import ConfigError
from ifas.core.files import read_json, write_json
from ifas.core.taxonomy import ATTACKS, media_named
from ifas.faces.detector import MTCNN_FILES, mtcnn_weights
from ifas.faces.face import Face
from ifas.faces.finder import Finder
from ifas.faces.views import Square, cut, square, unframed
from ifas.model.loss import INTERPRETATION, JUDGMENT, PROMPT
from ifas.model.verdict import verdict_tokens
from ifas.model.whole_clauses import WholeClauses

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_TOKEN = "<image>"  # noqa: S105 - a token of text
PROCESSOR_FILE = "processor_config.json"
#: Folder of a model directory with the networks that find faces.
FINDER_DIR = "face_finder"

#: Attack -> the words behind "No." that name it: words of its own keywords, and of no other.
PHRASES: Mapping[str, str] = {
    "print": "Printed on paper.",
    "replay": "On a screen.",
    "mask": "Behind a mask.",
    "mannequin": "Part of a mannequin.",
}

Pixels = npt.NDArray[np.uint8]


class IfasProcessor:
    """Inputs and outputs of one model.

    Args:
        tokenizer: of the language model; the placeholder token is added to it.
        image_size: side in pixels of the square that the tower takes.
        image_tokens: tokens that an image takes, |Q_P| + V * L.
        views: the V kinds of view of an image that the tower takes, see `ifas.faces.views`.
        face_margin: of the view of the face.
        faces: how the face of an image is found.
        finder_weights: folder of the networks that find it; None takes those of the installed package.
        question: the fixed question.
        max_answer_tokens: longest interpretation, end token included.
        name_attack: the answer about an attack begins with the phrase that names it, see `attack_named`.
        attacks: spoof types that the model may name, those that its training showed, and how often it says each
            whatever the image (`attack_named.prior`). Names alone: each equally often.
        clauses: what explanations are made of; None: they are written freely.

    Raises:
        ConfigError: the tokenizer has no end token, can't tell Yes from No, or can't write a phrase.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        image_size: int,
        image_tokens: int,
        views: Sequence[str],
        face_margin: float,
        faces: FacesConfig,
        question: str,
        max_answer_tokens: int,
        finder_weights: Path | None = None,
        name_attack: bool = True,
        attacks: Sequence[str] | Mapping[str, float] = ATTACKS,
        clauses: WholeClauses | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_size = image_size
        self.image_tokens = image_tokens
        self.kinds = tuple(views)
        self.face_margin = face_margin
        self.finder = Finder(faces, finder_weights)
        self.question = question
        self.max_answer_tokens = max_answer_tokens
        self.name_attack = name_attack
        self.clauses = clauses
        often = attacks if isinstance(attacks, Mapping) else dict.fromkeys(attacks, 1 / max(1, len(attacks)))
        self.attacks: dict[str, float] = dict(often)
        if tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has no end token, so an answer would never end", "set its eos_token")
        if IMAGE_TOKEN not in tokenizer.get_vocab():
            from tokenizers import AddedToken

            tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.end_id: int = tokenizer.eos_token_id
        self.verdicts = verdict_tokens(tokenizer)
        self._prompts: dict[str, list[int]] = {}
        self.prompt_ids = self.prompt()
        if name_attack:
            self._check_phrases()

    def prompt(self, question: str = "") -> list[int]:
        """Token ids of the prompt with a question; empty: the fixed one.

        Raises:
            ConfigError: the chat template does not repeat the placeholder once.
        """
        if question not in self._prompts:
            self._prompts[question] = self._prompt(question or self.question)
        return self._prompts[question]

    def _prompt(self, question: str) -> list[int]:
        content = IMAGE_TOKEN + question
        text = self._chat(content) if getattr(self.tokenizer, "chat_template", None) else content + "\n"
        ids = list(self.tokenizer.encode(text, add_special_tokens=False))
        if ids.count(self.image_token_id) != 1:
            raise ConfigError(
                f"the prompt holds the image placeholder {ids.count(self.image_token_id)} times, once is needed",
                "use a language model whose chat template repeats the user's message as it is",
            )
        at = ids.index(self.image_token_id)
        placeholders = [self.image_token_id] * self.image_tokens
        return [*ids[:at], *placeholders, *ids[at + 1 :], *self.verdicts.shared]

    def _chat(self, content: str) -> str:
        from jinja2 import TemplateError

        user = {"role": "user", "content": content}
        options = {"tokenize": False, "add_generation_prompt": True}
        try:
            # An empty system message keeps templates from adding a default one.
            text = self.tokenizer.apply_chat_template([{"role": "system", "content": ""}, user], **options)
        except TemplateError:  # some templates have no system role
            text = self.tokenizer.apply_chat_template([user], **options)
        return str(text)

    def find(self, picture: Pixels) -> Face:
        """The face of an RGB image (H, W, 3), found as for the images that the model was trained on.

        Raises:
            FaceRefused: there is no face that can be judged.
        """
        return self.finder.find(picture)

    def views(self, face: Face, change: Callable[[str, Square], Square] | None = None) -> Pixels:
        """The views of a face, uint8 (V, S, S, 3).

        Args:
            face: in its image.
            change: kind and square of each view -> what is cut in its place, in training.
        """
        face = unframed(face)
        parts = [square(face, kind, self.face_margin) for kind in self.kinds]
        if change:
            parts = [change(kind, part) for kind, part in zip(self.kinds, parts, strict=True)]
        return np.stack([cut(face.picture, part, self.image_size) for part in parts])

    def pixel_values(self, seen: Sequence[Pixels]) -> Tensor:
        """The views of B faces, each (V, S, S, 3) -> uint8 tensor (B, V, 3, S, S). They become floats on the device."""
        import torch

        return torch.from_numpy(np.stack(seen)).permute(0, 1, 4, 2, 3).contiguous()

    def phrase(self, attack: str) -> list[int]:
        """Token ids that follow "No" and name an attack, full stops included."""
        ids: list[int] = self.tokenizer.encode(f". {PHRASES[attack]}", add_special_tokens=False)
        return ids

    def opening(self, attack: str) -> list[int]:
        """What an answer says right after the verdict: the phrase of an attack that may be named, or nothing."""
        return self.phrase(attack) if self.name_attack and attack in self.attacks else []

    def decides(self, attack: str) -> slice:
        """The token of `opening` that tells an attack from the others, as a place in the answer behind the verdict.

        What comes before it is common to several phrases, and what follows it is learned by heart at once.
        """
        mine = self.opening(attack)
        others = [self.phrase(other) for other in self.attacks if other != attack] if mine else []
        at = max((_common(mine, other) for other in others), default=0)
        return slice(at, min(at + 1, len(mine)))

    def _check_phrases(self) -> None:
        fix = "or train in the paper's bare form: model.name_attack=false"
        for attack in self.attacks:
            ids = self.phrase(attack)
            if media_named(self.text(ids)) != [attack]:
                raise ConfigError(f"the tokenizer can't write {PHRASES[attack]!r}", f"choose another one, {fix}")
            if len(ids) >= self.max_answer_tokens:
                raise ConfigError(
                    f"{PHRASES[attack]!r} takes {len(ids)} tokens, which leaves none of model.max_answer_tokens="
                    f"{self.max_answer_tokens}",
                    f"raise it, {fix}",
                )

    def answer(self, live: bool, caption: str, *, attack: str = "", judged: bool = True) -> tuple[list[int], list[int]]:
        """Token ids of an answer and the part of each.

        Verdict, phrase and caption are tokenised apart and joined, so no token spans two of them, however the tokenizer
        merges.

        Args:
            live: Yes or No.
            caption: what follows.
            attack: spoof type that the answer names first; an empty one and `live` name none, nor does the bare form.
            judged: the Yes or No is the judgment; else it is interpretation as well.
        """
        verdict = self.verdicts.of(live)
        opening = self.opening(attack)
        text = f"{'' if opening else '.'} {caption.strip()}"
        words = [*opening, *self.tokenizer.encode(text, add_special_tokens=False), self.end_id]
        words = words[: self.max_answer_tokens]
        first = JUDGMENT if judged else INTERPRETATION
        return [*verdict, *words], [first] * len(verdict) + [INTERPRETATION] * len(words)

    def batch(
        self,
        seen: Sequence[Pixels],
        live: Sequence[bool],
        captions: Sequence[str],
        pad_to: int = 0,
        *,
        questions: Sequence[str] = (),
        attacks: Sequence[str] = (),
        judged: Sequence[bool] = (),
        attack_weight: float = 1.0,
    ) -> dict[str, Tensor]:
        """Inputs of `IfasModel.forward` for B samples.

        Args:
            seen: of each sample, from `views`; none at all: the inputs have no pixel_values.
            live: bona fide or not; of another question, Yes or No.
            captions: interpretations.
            pad_to: least number of positions T.
            questions: of each sample; an empty one, and none at all, is the fixed question.
            attacks: named first by the answer of each sample, see `answer`; none at all: none is.
            judged: whether the Yes or No of each sample is the judgment; none at all: it is.
            attack_weight: of the token that decides which attack is named, in the loss of the interpretation; others
                have 1.
        """
        import torch

        prompts = [self.prompt(question) for question in questions or [""] * len(live)]
        answers = [
            self.answer(is_live, caption, attack=attack, judged=verdict)
            for is_live, caption, attack, verdict in zip(
                live, captions, attacks or [""] * len(live), judged or [True] * len(live), strict=True
            )
        ]
        lengths = [len(prompt) + len(ids) for prompt, (ids, _) in zip(prompts, answers, strict=True)]
        input_ids = torch.full((len(answers), max(pad_to, *lengths)), self.end_id, dtype=torch.long)
        parts = torch.full_like(input_ids, PROMPT)
        weights = torch.ones(input_ids.shape)
        for row, (prompt, (ids, kinds), length) in enumerate(zip(prompts, answers, lengths, strict=True)):
            input_ids[row, :length] = torch.tensor(prompt + ids)
            parts[row, len(prompt) : length] = torch.tensor(kinds)
            start = len(prompt) + len(self.verdicts.of(live[row]))
            decides = self.decides(attacks[row] if attacks else "")
            weights[row, start + decides.start : start + decides.stop] = attack_weight
        pixels = {"pixel_values": self.pixel_values(seen)} if seen else {}
        return {**pixels, "input_ids": input_ids, "parts": parts, "weights": weights}

    def text(self, ids: Sequence[int]) -> str:
        """Interpretation in plain text, from its token ids up to the end token."""
        kept = list(ids)
        if self.end_id in kept:
            kept = kept[: kept.index(self.end_id)]
        decoded: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return " ".join(decoded.split()).removeprefix(".").strip()

    def as_written(self, caption: str) -> str:
        """A caption as an answer says it: tokenizers may change capitals, spaces and unknown characters."""
        return self.text(self.tokenizer.encode(f" {caption.strip()}", add_special_tokens=False))

    def growing(self, ids: Sequence[int]) -> str:
        """Text of an interpretation that goes on: as `text`, but with its space at the end, if it has one."""
        decoded: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return re.sub(r"\s+", " ", decoded)

    def save_pretrained(self, folder: Path) -> None:
        """Writes the tokenizer's files, `processor_config.json` and the networks that find faces."""
        self.tokenizer.save_pretrained(folder)
        faces = self.finder.config
        if faces.finder != "none":
            (folder / FINDER_DIR).mkdir(exist_ok=True)
            for name in MTCNN_FILES:
                source = (self.finder.weights or mtcnn_weights()) / name
                # A model that is saved where it was loaded has them already.
                if source.resolve() != (folder / FINDER_DIR / name).resolve():
                    shutil.copyfile(source, folder / FINDER_DIR / name)
        settings = ("image_size", "image_tokens", "face_margin", "question", "max_answer_tokens", "name_attack")
        saved = {name: getattr(self, name) for name in settings} | {"attacks": self.attacks, "views": self.kinds}
        if self.clauses is not None:
            saved["clauses"] = self.clauses.save()
        write_json(folder / PROCESSOR_FILE, saved | {"faces": faces.model_dump(mode="json")})

    @classmethod
    def from_pretrained(cls, folder: Path) -> IfasProcessor:
        """The processor saved in a model directory.

        Raises:
            ConfigError: not a model directory, or one of an earlier release.
        """
        from transformers import AutoTokenizer

        file = Path(folder) / PROCESSOR_FILE
        if not file.is_file():
            raise ConfigError(f"{folder} is no ifas model directory: it has no {PROCESSOR_FILE}", "train a model first")
        # Models from before `name_attack` were trained in the bare form.
        settings = {"name_attack": False, **read_json(file)}
        try:
            faces = FacesConfig.model_validate(settings.pop("faces"))
        except (KeyError, ValidationError) as error:
            raise ConfigError(f"{file} does not say how faces are found: {error}", "train the model again") from error
        if "clauses" in settings:
            settings["clauses"] = WholeClauses.load(settings["clauses"])
        weights = None if faces.finder == "none" else Path(folder) / FINDER_DIR
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return cls(tokenizer, faces=faces, finder_weights=weights, **settings)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two sequences begin with alike."""
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
