"""Prompt, answers and label masks, also for tokenizers that merge oddly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from tiny_model import tiny
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ifas.core.config import FacesConfig
from ifas.core.errors import ConfigError, FaceRefused
from ifas.core.files import read_json, sha256_tree, write_json
from ifas.faces.face import Face
from ifas.model.build import build, save
from ifas.model.loss import INTERPRETATION, JUDGMENT, PROMPT
from ifas.model.processor import FINDER_DIR, IMAGE_TOKEN, PROCESSOR_FILE, IfasProcessor
from ifas.model.small_tokenizer import small_tokenizer
from ifas.model.verdict import verdict_tokens

TEXT = "A face on paper."


def bpe(words: list[str], merges: list[tuple[str, str]]) -> Any:
    """Byte-level BPE over single characters plus some merges, without pre-tokenisation: it merges across words."""
    characters = sorted({c for w in [*words, "YesNo. ?ĠĊIsthiaprlfecom"] for c in w})
    merged = [a + b for a, b in merges]
    vocabulary = {token: i for i, token in enumerate(["<end>", *characters, *merged])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def merges_yes_with_the_full_stop() -> Any:
    """'Yes.' and 'No. ' are one token each when the whole answer is tokenised at once."""
    steps = [("Y", "e"), ("Ye", "s"), ("N", "o"), ("Yes", "."), ("No", "."), (".", "Ġ"), ("Ġ", "A"), (".Ġ", "A")]
    return bpe(["AfaceonpaperĠ"], steps)


def spells_the_verdict() -> Any:
    """No token for either word: Y-e-s and N-o."""
    return bpe(["AfaceonpaperĠ"], [])


def puts_a_boundary_first() -> Any:
    """SentencePiece manner: a lone word boundary is the first token of both words."""
    vocabulary = {
        t: i for i, t in enumerate(["<end>", "<unk>", "▁", "Yes", "No", ".", "?", "A", "face", "on", "paper"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁|\w+|[.?]"), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " ")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")


ODD: list[Callable[[], Any]] = [merges_yes_with_the_full_stop, spells_the_verdict, puts_a_boundary_first]


def processor(
    tokenizer: Any, max_answer_tokens: int = 40, *, name_attack: bool = False, faces: FacesConfig | None = None
) -> IfasProcessor:
    return IfasProcessor(
        tokenizer,
        image_size=32,
        image_tokens=5,
        views=("face", "frame"),
        face_margin=1.2,
        faces=faces or FacesConfig(finder="none"),
        question="Is this?",
        max_answer_tokens=max_answer_tokens,
        name_attack=name_attack,
    )


@pytest.mark.parametrize("make", [small_tokenizer, *ODD])
def test_judgment_and_interpretation_never_share_a_token(make: Callable[[], Any]) -> None:
    made = processor(make())
    start = len(made.prompt_ids)
    blank = [np.zeros((2, 32, 32, 3), np.uint8)] * 2
    batch = made.batch(blank, [True, False], [TEXT, TEXT])
    for row, live in enumerate((True, False)):
        ids, parts = batch["input_ids"][row].tolist(), batch["parts"][row].tolist()
        assert parts[:start] == [PROMPT] * start
        judgment = [i for i, p in zip(ids, parts, strict=True) if p == JUDGMENT]
        words = [i for i, p in zip(ids, parts, strict=True) if p == INTERPRETATION]
        assert tuple(judgment) == made.verdicts.of(live)
        spoken = made.tokenizer.decode([*made.verdicts.shared, *judgment]).strip()
        assert spoken == ("Yes" if live else "No")
        assert words[-1] == made.end_id
        assert made.text(words).replace(" ", "") == TEXT.replace(" ", "")
        # Part 1 first, then part 2, then only padding.
        first, last = parts.index(JUDGMENT), parts.index(INTERPRETATION)
        assert first == start
        assert last == start + len(judgment)
        assert set(parts[last + len(words) :]) <= {PROMPT}


def test_tokenised_at_once_the_odd_tokenizer_would_hide_the_verdict() -> None:
    """Guards the test above: tokenising the parts apart gives other tokens."""
    tokenizer = merges_yes_with_the_full_stop()
    whole = tokenizer.encode("Yes. " + TEXT, add_special_tokens=False)
    assert tokenizer.encode("Yes", add_special_tokens=False)[0] not in whole


def test_score_compares_the_first_tokens_that_differ() -> None:
    spelt = verdict_tokens(spells_the_verdict())
    assert (len(spelt.yes), len(spelt.no), spelt.shared) == (3, 2, ())
    bounded = puts_a_boundary_first()
    tokens = verdict_tokens(bounded)
    assert bounded.convert_ids_to_tokens(list(tokens.shared)) == ["▁"]
    assert bounded.convert_ids_to_tokens([tokens.yes[0], tokens.no[0]]) == ["Yes", "No"]
    assert processor(bounded).prompt_ids[-1] == tokens.shared[0]


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["<end>", "<unk>", "A"], "can't write"), (["<end>", "<unk>", "Yes"], "can't write")],
)
def test_a_tokenizer_that_can_not_say_it_is_refused(words: list[str], reason: str) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocab={w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ConfigError, match=reason):
        verdict_tokens(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>"))


def test_a_tokenizer_that_says_both_alike_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel(vocab={"<end>": 0, "x": 1}, unk_token="x"))
    tokenizer.normalizer = normalizers.Replace(Regex("Yes|No"), "x")
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ConfigError, match="can't be told apart"):
        verdict_tokens(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>"))


def test_prompt_has_the_image_before_the_question_and_no_default_system_prompt() -> None:
    tokenizer = small_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}SYSTEM{% endif %}"
        "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
    )
    made = processor(tokenizer)
    text = tokenizer.decode(made.prompt_ids)
    assert text.count(IMAGE_TOKEN) == 5
    assert text.rindex(IMAGE_TOKEN) < text.index("Is this?")
    assert "SYSTEM" not in text


def test_a_template_without_a_system_role_still_works() -> None:
    tokenizer = small_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ messages[0].content }}<|assistant|>"
    )
    assert processor(tokenizer).prompt_ids.count(processor(tokenizer).image_token_id) == 5


def test_long_captions_are_cut_and_short_ones_padded() -> None:
    made = processor(small_tokenizer(), max_answer_tokens=4)
    ids, parts = made.answer(True, "paper " * 50)
    assert parts.count(INTERPRETATION) == 4
    assert ids[-1] != made.end_id
    batch = made.batch([np.zeros((2, 32, 32, 3), np.uint8)], [True], ["A"], pad_to=60)
    assert batch["input_ids"].shape == (1, 60)


@pytest.mark.parametrize("make", [small_tokenizer, *ODD])
def test_other_questions_have_their_own_prompt_and_parts(make: Callable[[], Any]) -> None:
    """The fixed question beside a longer one, judged and not: each reads back as it was put, padding is no part."""
    made = processor(make())
    blank = [np.zeros((2, 32, 32, 3), np.uint8)] * 3
    asked = ["", "Is the face on paper?", "Is the face on paper?"]
    batch = made.batch(blank, [True, False, True], [TEXT] * 3, questions=asked, judged=[True, True, False])
    fixed = made.batch(blank[:1], [True], [TEXT])
    width = fixed["input_ids"].shape[1]
    assert batch["input_ids"][0, :width].tolist() == fixed["input_ids"][0].tolist()
    assert batch["parts"][0, :width].tolist() == fixed["parts"][0].tolist()
    assert set(batch["parts"][0, width:].tolist()) <= {PROMPT}
    for row, (live, kinds) in enumerate(((True, JUDGMENT), (False, JUDGMENT), (True, INTERPRETATION))):
        ids, parts = batch["input_ids"][row].tolist(), batch["parts"][row].tolist()
        start = len(made.prompt(asked[row]))
        assert ids[:start] == made.prompt(asked[row])
        assert ids[:start].count(made.image_token_id) == 5
        verdict = made.verdicts.of(live)
        assert tuple(ids[start : start + len(verdict)]) == verdict
        assert parts[start : start + len(verdict)] == [kinds] * len(verdict)
        words = ids[start + len(verdict) : len(parts) - parts[::-1].index(INTERPRETATION)]
        assert made.text(words).replace(" ", "") == TEXT.replace(" ", "")
    said = made.tokenizer.decode(made.prompt(asked[1])).replace(" ", "")
    assert "faceonpaper?" in said
    assert "Isthis?" not in said
    assert made.prompt_ids == made.prompt() == made.prompt("Is this?")


def test_views_of_a_face_become_one_tensor() -> None:
    made = processor(small_tokenizer())
    picture = np.full((60, 40, 3), 200, np.uint8)
    picture[:, 38:] = 50
    views = made.views(Face(picture, (10.0, 10.0, 20.0, 30.0)))
    assert views.shape == (2, 32, 32, 3)
    assert (views[0] == 200).all(), "the square around the face lies inside the image"
    row = views[1][5, :, 0].astype(int)
    assert row[26] == row[27] < 100, "the whole image is padded with itself, mirrored, and not squeezed"
    assert (row[:24] == 200).all()
    assert (row[29:] == 200).all()
    pixels = made.pixel_values([views, views, views])
    assert pixels.shape == (3, 2, 3, 32, 32)
    assert str(pixels.dtype) == "torch.uint8"


def test_saved_where_it_was_loaded(tmp_path: Path) -> None:
    """The prior of the attacks is written into a finished model."""
    model, made = build(tiny("model.faces.finder=mtcnn"))
    save(model, made, tmp_path / "m")
    again = IfasProcessor.from_pretrained(tmp_path / "m")
    again.attacks = {"print": 1.0}
    again.save_pretrained(tmp_path / "m")
    assert IfasProcessor.from_pretrained(tmp_path / "m").attacks == {"print": 1.0}


def test_saved_and_read_again(tmp_path: Path) -> None:
    made = processor(small_tokenizer())
    made.save_pretrained(tmp_path)
    again = IfasProcessor.from_pretrained(tmp_path)
    assert again.prompt_ids == made.prompt_ids
    assert again.verdicts == made.verdicts
    assert again.answer(False, TEXT) == made.answer(False, TEXT)


def test_how_faces_are_found_is_saved_with_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A served model needs no package with weights, and no other settings than those of its training."""
    face = astronaut()[:300, 70:370].copy()
    made = processor(small_tokenizer(), faces=FacesConfig(least_pixels=60))
    made.save_pretrained(tmp_path)
    monkeypatch.setattr("ifas.faces.detector.mtcnn_weights", lambda: pytest.fail("looked for the package"))
    again = IfasProcessor.from_pretrained(tmp_path)
    assert again.finder.config == made.finder.config
    assert min(again.find(face).box[2:]) > 60
    small = cv2.resize(face, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    with pytest.raises(FaceRefused, match="too small"):
        again.find(small)
    again.save_pretrained(tmp_path / "copy")
    assert sha256_tree(tmp_path / "copy" / FINDER_DIR) == sha256_tree(tmp_path / FINDER_DIR)


def test_a_model_of_an_earlier_release_is_refused(tmp_path: Path) -> None:
    processor(small_tokenizer()).save_pretrained(tmp_path)
    settings = read_json(tmp_path / PROCESSOR_FILE)
    for faces in (None, {"finder": "other"}):
        write_json(tmp_path / PROCESSOR_FILE, {k: v for k, v in {**settings, "faces": faces}.items() if v is not None})
        with pytest.raises(ConfigError, match="how faces are found"):
            IfasProcessor.from_pretrained(tmp_path)


def test_no_model_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ifas model directory"):
        IfasProcessor.from_pretrained(tmp_path)


def test_small_tokenizer_is_the_same_every_time() -> None:
    first, second = small_tokenizer(), small_tokenizer()
    assert first.get_vocab() == second.get_vocab()
    assert first.decode(first.encode("été ✓ printed paper")) == "été ✓ printed paper"
