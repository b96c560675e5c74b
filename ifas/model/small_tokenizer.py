"""A small byte-level BPE tokenizer, trained on the fly from a fixed text: for language models built from a shape."""

from __future__ import annotations

from functools import cache
from typing import Any

#: Sentences in the manner of the captions; frequent words become one token, everything else falls back to bytes.
CORPUS = (
    "Is this photo of a real person? Yes. No.",
    "A person looks at the camera in an office, natural skin texture and soft light, sharp background.",
    "A person stands in the street in daylight, the face shows natural shading and clear depth.",
    "A face on a sheet of printed paper with visible wrinkles, flat shading and straight borders around the face.",
    "A photograph held in front of the camera, the colours are dull and the paper edge is visible.",
    "A face shown on the screen of a tablet with a moire pattern and glare from the glossy display.",
    "A phone screen shows a face, there is a regular grid of pixels and a bluish tint around the bezel.",
    "A person wears a mask with a smooth surface, hard edges around the eyes and no skin texture.",
    "A mannequin head with a plastic shine and rigid features under the bright light of a kiosk.",
    "The picture is blurred, the background is dark, the light is strong and comes from the side.",
)

VOCABULARY = 512
END, PAD, UNKNOWN, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|unknown|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.content %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@cache
def _trained() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, UNKNOWN, END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Twice, so that every word of the text is frequent enough to be merged.
    tokenizer.train_from_iterator(CORPUS + CORPUS, trainer)
    return str(tokenizer.to_str())


def small_tokenizer() -> Any:
    """A fresh copy of the tokenizer; always the same vocabulary."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()), eos_token=END, pad_token=PAD, unk_token=UNKNOWN
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
