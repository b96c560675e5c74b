"""Which attack an answer names: the likeliest of the taxonomy's, with a confidence of its own.

Greedy words after "No" say what captions say most often. So the attack is not read from them. After the forced verdict
"No", the language model scores each attack's phrase (`processor.PHRASES`) behind the image's KV cache. The text is then
decoded without the words that name another medium (`names_no_other`): attack and text agree by construction. Where the
tokenizer spells such a word in several tokens, its beginning may stay in the text.

Our choices, not stated in the paper, which trains on the bare form "No. <caption>":

- With `model.name_attack` the answer about an attack begins with the phrase of what its caption names: "No. Printed on
  paper. <caption>". So training shows the very tokens that are scored, at the place where they are scored: naming the
  attack is a classification by the language model, and it learns it from the captions alone. In the bare form the same
  phrases are scored, but training never showed one at that place, so they tell less. Each phrase begins with a word of
  its own.
- A model names only attacks that its training showed (`IfasProcessor.attacks`). Of others it has nothing to go by.
- The likelihoods are corrected for what the model says whatever the image is (`prior`): the average over development
  images, measured after training. Blanks would do worse. With three tiny models on the drawn images of
  `benchmarks.alignment` the share of right attacks was 1.00, .99 and .98 uncorrected and with the average, .99, .99 and
  .98 with flat pictures, and .51, .45 and .83 with zeros for image tokens: a tuned model can't read these.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ifas.core.taxonomy import media_named

if TYPE_CHECKING:
    from ifas.model.processor import IfasProcessor

#: Least prior of an attack: no image's correction is larger than its inverse.
LEAST = 1e-3

Floats = npt.NDArray[np.float64]


class Named(NamedTuple):
    """The attack that an answer names, and how sure the model is that it is this one, if it is an attack: 0 to 1."""

    spoof_type: str
    confidence: float


def names_no_other(text: str, attack: str) -> bool:
    """Whether a text names no medium but that of `attack`; with an attack of "", none at all."""
    return set(media_named(text)) <= {attack}


def shares(log_likelihoods_RA: Floats) -> Floats:
    """Each attack's share of the likelihood of all attacks, (R, A)."""
    likelihoods_RA = np.exp(log_likelihoods_RA - log_likelihoods_RA.max(axis=1, keepdims=True))
    return np.asarray(likelihoods_RA / likelihoods_RA.sum(axis=1, keepdims=True))


def prior(log_likelihoods_RA: Floats) -> Floats:
    """What a model says whatever the image is, (A,): the mean of each attack's share over R images, at least LEAST."""
    mean_A = shares(log_likelihoods_RA).mean(axis=0).clip(LEAST)
    return np.asarray(mean_A / mean_A.sum())


class AttackNamer:
    """Names the attack on images that were rejected.

    Args:
        model: `IfasModel`, in eval mode.
        processor: its processor.
    """

    def __init__(self, model: Any, processor: IfasProcessor) -> None:
        self.attacks = tuple(processor.attacks)
        self._log_prior_A = np.log(np.fromiter(processor.attacks.values(), dtype=np.float64))
        self._language = model.language
        self._said = processor.verdicts.no
        self._phrases = [processor.phrase(attack) for attack in self.attacks]

    def name(self, cache: Any, rows: Sequence[int]) -> list[Named]:
        """The likeliest attack on each of some images, and its share of the corrected likelihoods.

        Args:
            cache: KV cache of the prompts of B images; it stays as it is.
            rows: R of the images.
        """
        corrected_RA = shares(self.log_likelihoods(cache, rows) - self._log_prior_A)
        return [Named(self.attacks[best], float(row_A[best])) for row_A in corrected_RA for best in [row_A.argmax()]]

    def log_likelihoods(self, cache: Any, rows: Sequence[int]) -> Floats:
        """log p(phrase | image, "No"), (R, A): of some images and each of `attacks`, in nats.

        One token at a time, as in decoding: a model made fast (`fast`) is right at the last position only.

        Args:
            cache: KV cache of the prompts of B images; it stays as it is.
            rows: R of the images.
        """
        import torch

        device = self._language.get_input_embeddings().weight.device
        answers = [[*self._said, *phrase] for phrase in self._phrases]
        first, width = len(self._said), max(map(len, answers))
        # Padded on the right: what follows changes nothing before it.
        ids_NT = torch.tensor([ids + ids[-1:] * (width - len(ids)) for ids in answers], device=device)
        ids_NT = ids_NT.repeat(len(rows), 1)
        ends_N = torch.tensor([len(ids) for ids in answers], device=device).repeat(len(rows))
        with torch.inference_mode():
            own = copy.deepcopy(cache)
            own.batch_select_indices(torch.tensor(rows, device=device).repeat_interleave(len(answers)))
            found_N = torch.zeros(len(ids_NT), dtype=torch.float64, device=device)
            for place in range(width - 1):
                out = self._language(
                    input_ids=ids_NT[:, place, None], past_key_values=own, use_cache=True, logits_to_keep=1
                )
                if place + 1 >= first:
                    logs_NV = out.logits[:, -1].float().log_softmax(dim=-1)
                    next_N1 = ids_NT[:, place + 1, None]
                    found_N += logs_NV.gather(1, next_N1)[:, 0].double() * (place + 1 < ends_N)
            return found_N.view(len(rows), len(answers)).cpu().numpy()
