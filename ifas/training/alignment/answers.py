"""A model's own answers: sampled, to find what has to be corrected; greedy, to measure.

Each token is drawn by inverting the distribution at one uniform number, and those numbers are a function of the seed,
the image and the draw alone. So neither the batch nor the order of the images changes an answer, but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

    from ifas.faces.face import Face
    from ifas.model.processor import IfasProcessor

    Floats = npt.NDArray[np.float64]

#: Images at once.
BATCH = 16

T = TypeVar("T")


class Answer(NamedTuple):
    """One answer to the fixed question: accepted as bona fide or not, and the interpretation."""

    live: bool
    text: str


class Respondent:
    """Answers of one model.

    Args:
        model, processor: from `build.load`.
        batch: images at once.
    """

    def __init__(self, model: Any, processor: IfasProcessor, batch: int = BATCH) -> None:
        self.model = model.eval()
        self.processor = processor
        self.batch = batch

    def sample(
        self, faces: Iterable[Face], ids: Sequence[str], *, draws: int, temperature: float, seed: int
    ) -> Iterator[list[Answer]]:
        """`draws` answers to each image: verdict among Yes and No, then words, all at one temperature.

        Args:
            faces: of the images.
            ids: hex sample ids; with the seed and the draw they decide the random numbers.
        """
        length = 1 + self.processor.max_answer_tokens
        for chunk, names in zip(_chunks(faces, self.batch), _chunks(ids, self.batch), strict=True):
            uniforms_RT = np.stack([uniforms(seed, name, draw, length) for name in names for draw in range(draws)])
            said = self._answer(chunk, draws, uniforms_RT, temperature)
            yield from (said[i : i + draws] for i in range(0, len(said), draws))

    def greedy(self, faces: Iterable[Face]) -> Iterator[Answer]:
        """The likelier verdict and the greedy interpretation of each image."""
        for chunk in _chunks(faces, self.batch):
            yield from self._answer(chunk, 1, None, 1.0)

    @torch.inference_mode()
    def _answer(
        self, faces: Sequence[Face], draws: int, uniforms_RT: Floats | None, temperature: float
    ) -> list[Answer]:
        """Answers to each image's draws, R = images * draws rows in all."""
        prefilled = self._prefill(faces, draws)
        tokens, pair = self.processor.verdicts, [self.processor.verdicts.yes[0], self.processor.verdicts.no[0]]
        first_R = None if uniforms_RT is None else uniforms_RT[:, 0]
        # Index 0 is Yes.
        verdicts = [choice == 0 for choice in choose(prefilled[0][:, pair], temperature, first_R).tolist()]
        answers: list[Answer | None] = [None] * len(verdicts)
        alike = len(tokens.yes) == len(tokens.no)
        for group in ((True, False),) if alike else ((True,), (False,)):
            rows = [row for row, live in enumerate(verdicts) if live in group]
            if not rows:
                continue
            # Verdicts of different lengths in one batch would need padding, so each has a prefill of its own.
            cache = prefilled[1] if len(rows) == len(verdicts) else self._prefill(faces, draws)[1]
            if len(rows) < len(verdicts):
                cache.batch_select_indices(torch.tensor(rows, device=self.model.device))
            ids_RS = torch.tensor([tokens.of(verdicts[row]) for row in rows], device=self.model.device)
            rest_RT = None if uniforms_RT is None else uniforms_RT[rows, 1:]
            for row, ids in zip(rows, self._words(ids_RS, cache, rest_RT, temperature), strict=True):
                answers[row] = Answer(verdicts[row], self.processor.text(ids))
        return [answer for answer in answers if answer is not None]

    def _prefill(self, faces: Sequence[Face], draws: int) -> tuple[Tensor, Any]:
        """Logits (R, V) of the verdict and the cache, each image's repeated for its draws."""
        processor, device = self.processor, self.model.device
        pixels = processor.pixel_values([processor.views(face) for face in faces]).to(device)
        prompt_BT = torch.tensor([processor.prompt_ids], device=device).expand(len(faces), -1)
        hidden_BW, cache = self.model.prefill(pixels, prompt_BT)
        logits_BV = self.model.language.get_output_embeddings()(hidden_BW)
        if draws > 1:
            cache.batch_repeat_interleave(draws)
        return logits_BV.repeat_interleave(draws, dim=0), cache

    def _words(self, ids_RS: Tensor, cache: Any, uniforms_RT: Floats | None, temperature: float) -> list[list[int]]:
        """Token ids after `ids_RS`, which the cache has not seen yet, up to the end token or `max_answer_tokens`."""
        end = self.processor.end_id
        written: list[Tensor] = []
        ended_R = torch.zeros(ids_RS.shape[0], dtype=torch.bool, device=ids_RS.device)
        for position in range(self.processor.max_answer_tokens):
            out = self.model.language(input_ids=ids_RS, past_key_values=cache, use_cache=True, logits_to_keep=1)
            at_R = None if uniforms_RT is None else uniforms_RT[:, position]
            next_R = choose(out.logits[:, -1], temperature, at_R).masked_fill(ended_R, end)
            written.append(next_R)
            ended_R |= next_R == end
            if bool(ended_R.all()):
                break
            ids_RS, cache = next_R[:, None], out.past_key_values
        return torch.stack(written, dim=1).tolist() if written else [[] for _ in range(ids_RS.shape[0])]


def choose(logits_RV: Tensor, temperature: float, uniforms_R: Floats | None) -> Tensor:
    """Indices (R,): the likeliest, or by inverse transform sampling from softmax(logits / temperature).

    Args:
        uniforms_R: one number in [0, 1) per row; None takes the likeliest.
    """
    if uniforms_R is None:
        return logits_RV.argmax(dim=-1)
    cumulated_RV = (logits_RV.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    marks_R1 = torch.as_tensor(uniforms_R, device=logits_RV.device)[:, None] * cumulated_RV[:, -1:]
    return (cumulated_RV <= marks_R1).sum(dim=-1).clamp(max=logits_RV.shape[-1] - 1)


def uniforms(seed: int, sample_id: str, draw: int, length: int) -> Floats:
    """Numbers in [0, 1) of one answer (length,)."""
    return np.random.default_rng([seed, int(sample_id, 16), draw]).random(length)


def _chunks(things: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(things)
    while chunk := list(islice(rest, size)):
        yield chunk
