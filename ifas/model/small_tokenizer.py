"""A small byte-level BPE tokenizer, trained on the fly from a fixed text: for language models built from a shape."""

from __future__ import annotations

from functools import cache
from typing import Any

#: Sentences like those of the captions; frequent words become one token, everything else falls back to bytes.
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
    # The words of the embedded captioner.
    "A face before a grey background, an orange top, white clothes, hard light. A face with a brown wall behind it.",
    "The face of a person against a teal wall, dim light, black, blue, green, red, yellow, pink, purple.",
    "Fine wave patterns cross the picture and rippling stripes run over the picture.",
    "A fine regular grid covers everything and tiny dots in even rows cover everything.",
    "A straight dark frame runs beside the head and a bright straight rim cuts the picture. A straight bright edge.",
    "The colours are washed out and black looks grey and the picture is flat and nothing in it is black.",
    "The colours are pale and hardly any strong colour is left and the face has the same colour all over.",
    "The surface of the face is one even colour and small sharp highlights lie on the face. It shines like plastic.",
    "The face and the neck differ in colour and the colour changes at the rim of the face.",
    "The face is smooth as if moulded and no pores or fine lines can be seen.",
    "The skin shows natural shades and fine detail and lips, cheeks and skin differ softly in colour.",
    "The background lies out of focus behind the head and the head stands clear of a soft background.",
    "It looks like a photo printed on paper. This seems to be a sheet of paper with a face on it. It may be a mask.",
    "It looks like a photo of a screen. This seems to be a face on the screen of a device. It may be a display.",
    "No. Printed on paper. No. On a screen. No. Behind a mask. No. Part of a mannequin.",
    "This seems to be a person who wears a mask. It may be a mask over the face. It looks like a mannequin, a dummy.",
)

VOCABULARY = 1024
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
