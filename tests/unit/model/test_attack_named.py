"""The attack that an answer names: chosen by likelihood, and the only one that its text can name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_processor import merges_yes_with_the_full_stop, processor
from tiny_model import faces, tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ifas.core.config import FacesConfig
from ifas.core.errors import ConfigError
from ifas.core.taxonomy import ATTACKS, KEYWORDS, keyword_forms, media_named
from ifas.model.attack_named import LEAST, names_no_other, prior, shares
from ifas.model.build import build, save
from ifas.model.decoding import greedy
from ifas.model.judge import Judge
from ifas.model.processor import PHRASES, IfasProcessor
from ifas.model.small_tokenizer import small_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("named") / "m"
    save(*build(tiny(), seed=5), place)
    return place


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge.load(folder)


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """A model that says the words of media most of the time."""
    model, made = build(tiny("model.max_answer_tokens=30"), seed=5)
    words = [form for forms in keyword_forms().values() for form in forms]
    spelt = [made.tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
    loud = {ids[0] for ids in spelt if len(ids) == 1}
    with torch.no_grad():
        for matrix in (p for p in model.language.model.layers.parameters() if p.ndim == 2):
            matrix.mul_(10)
        head = model.language.get_output_embeddings().weight
        head[sorted(loud)] *= 8
    place = tmp_path_factory.mktemp("talker") / "m"
    save(model, made, place)
    return Judge.load(place)


def test_a_phrase_names_its_attack_alone() -> None:
    assert {attack: media_named(phrase) for attack, phrase in PHRASES.items()} == {a: [a] for a in ATTACKS}
    firsts = [phrase.split()[0] for phrase in PHRASES.values()]
    assert len(set(firsts)) == len(ATTACKS), "told apart by the first word"


def test_training_shows_what_is_scored() -> None:
    """The very tokens behind the verdict, and the caption after them."""
    made = processor(small_tokenizer(), name_attack=True)
    for attack in ATTACKS:
        ids, parts = made.answer(False, "A face.", attack=attack)
        no = len(made.verdicts.no)
        phrase = made.phrase(attack)
        assert ids[no : no + len(phrase)] == phrase
        assert made.text(ids[no:]) == f"{PHRASES[attack]} A face."
        assert len(set(parts[no:])) == 1, "it is part of the interpretation"
    bare = [made.answer(True, "A face.", attack="live"), made.answer(True, "A face.")]
    assert bare[0] == bare[1], "a bona fide answer names none"
    paper = processor(small_tokenizer(), name_attack=False)
    assert paper.answer(False, "A face.", attack="mask") == made.answer(False, "A face.")


def test_an_attack_that_training_never_showed_is_not_named(judge: Judge) -> None:
    settings_of = {"image_size": 64, "image_tokens": judge.processor.image_tokens, "max_answer_tokens": 12}
    made = IfasProcessor(
        small_tokenizer(),
        **settings_of,
        views=judge.processor.kinds,
        face_margin=1.0,
        faces=FacesConfig(finder="none"),
        question=judge.processor.question,
        attacks=("replay", "mask"),
    )
    few = Judge(judge.model, made)
    answers = few.answer(faces(6), threshold=1.1)
    assert {a.spoof_type for a in answers} <= {"replay", "mask"}
    all_named = judge.answer(faces(6), threshold=1.1)
    assert all(a.confidence >= 1 / 2 for a in answers)
    assert all(a.confidence >= 1 / 4 for a in all_named)


def test_likelihoods_are_those_of_the_whole_answers(judge: Judge) -> None:
    """Behind the cache of a batch, in a model made fast, against whole sequences in the plain model."""
    plain, made = build(tiny(), seed=5)
    plain.eval()
    images = faces(4)
    pixels = made.pixel_values([made.views(face) for face in images])
    cache = judge._start(pixels)[1]
    found = judge._namer.log_likelihoods(cache, [0, 2, 3])
    again = judge._namer.log_likelihoods(cache, [3])
    for n, row in enumerate((0, 2, 3)):
        for a, attack in enumerate(ATTACKS):
            phrase = made.phrase(attack)
            ids = torch.tensor([[*made.prompt_ids, *made.verdicts.no, *phrase]])
            with torch.no_grad():
                logits = plain.language(inputs_embeds=plain.embed(pixels[row, None], ids)).logits[0]
            logs = logits.double().log_softmax(-1)[-len(phrase) - 1 : -1]
            wanted = sum(float(logs[i, token]) for i, token in enumerate(phrase))
            assert found[n, a] == pytest.approx(wanted, abs=1e-4)
    np.testing.assert_allclose(again[0], found[2], atol=1e-5)


def test_the_prior_is_taken_out(judge: Judge) -> None:
    """What the model says on every image tells nothing of one: a constant answer becomes no answer."""
    images = faces(5)
    before = judge.processor.attacks
    measured = judge.attack_prior(images)
    assert sum(measured.values()) == pytest.approx(1)
    always = max(measured, key=lambda attack: measured[attack])
    assert {a.spoof_type for a in judge.answer(images, threshold=1.1)} == {always}, "an untrained model says one thing"
    judge.processor.attacks = measured
    try:
        corrected = Judge(judge.model, judge.processor).answer(images, threshold=1.1)
    finally:
        judge.processor.attacks = before
    assert len({a.spoof_type for a in corrected}) > 1
    assert max(a.confidence for a in corrected) < 0.4, "nothing was learned"


@given(st.lists(st.lists(st.floats(-60, 0), min_size=3, max_size=3), min_size=1, max_size=6))
def test_shares_and_prior_are_distributions(logs: list[list[float]]) -> None:
    found, mean = shares(np.array(logs)), prior(np.array(logs))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert mean.sum() == pytest.approx(1)
    assert (mean >= LEAST / (1 + 3 * LEAST)).all()
    np.testing.assert_allclose(found, shares(np.array(logs) - 700), atol=1e-12)


def test_attack_and_text_agree(talker: Judge) -> None:
    images = faces(12)
    answers = [*talker.answer(images, threshold=1.1), *talker.answer(images, threshold=0)]
    for one in answers:
        assert one.live == (one.spoof_type == "live") == (one.confidence is None)
        assert media_named(one.text) == ([] if one.live else [one.spoof_type])
        if not one.live:
            assert one.text.startswith(PHRASES[one.spoof_type])
    assert len({one.text for one in answers}) > 4


def test_unguarded_the_talker_names_others(talker: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the tests that use it."""
    monkeypatch.setattr("ifas.model.judge.names_no_other", lambda _text, _attack: True)
    answers = [*talker.answer(faces(12), threshold=1.1), *talker.answer(faces(12), threshold=0)]
    named = [set(media_named(a.text)) - {a.spoof_type} for a in answers]
    assert sum(bool(other) for other in named) > len(answers) / 4


def test_the_stream_names_no_other_at_any_piece(talker: Judge) -> None:
    images = faces(6)
    scores = talker.judge(images)
    threshold = float(np.median(scores))
    answers = talker.answer(images, threshold)
    assert {a.live for a in answers} == {True, False}
    said = [""] * len(images)
    for row, piece in talker.stream(images, threshold):
        said[row] += piece
        assert names_no_other(said[row], "" if answers[row].live else answers[row].spoof_type)
    assert said == [a.text for a in answers]


def test_without_a_text_the_attack_is_the_same(talker: Judge) -> None:
    images = faces(4)
    whole, short = talker.answer(images, 1.1), talker.answer(images, 1.1, explain=False)
    assert [(a.score, a.live, a.spoof_type, a.confidence) for a in whole] == [
        (a.score, a.live, a.spoof_type, a.confidence) for a in short
    ]
    assert [a.text for a in short] == [""] * 4


def test_the_paper_s_bare_form(tmp_path: Path) -> None:
    save(*build(tiny("model.name_attack=false"), seed=5), tmp_path / "m")
    judge = Judge.load(tmp_path / "m")
    for one in judge.answer(faces(5), threshold=1.1):
        assert one.spoof_type in ATTACKS
        assert media_named(one.text) in ([], [one.spoof_type])
        assert not one.text.startswith(PHRASES[one.spoof_type])


def test_a_tokenizer_that_can_not_write_a_phrase_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't write"):
        processor(merges_yes_with_the_full_stop(), name_attack=True)
    with pytest.raises(ConfigError, match="max_answer_tokens"):
        processor(small_tokenizer(), max_answer_tokens=5, name_attack=True)
    assert processor(merges_yes_with_the_full_stop(), name_attack=False).opening("print") == []


# --- any model, any tokenizer ---

PIECES = (
    *("paper", "Paper", "PAPER", " paper", "papers", "pa", "per", "s", "S", "news", "back", " ", "  ", ".", "-", "'"),
    *("screen", " Screen", "scr", "een", "mask", " mask", "ma", "sk", "phone", "tele", "mann", "equin", "dummy", "dum"),
    *("my", "mies", "é", "_", "1", "\n", "photograph", "er", "printed", "print", "out", "display", "ed", "monitor"),
)


def fused() -> Any:
    """Tokens are joined as they are: a word may begin and end inside of any of them."""
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(("<end>", *PIECES))}, unk_token="<end>"))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def spaced() -> Any:
    """Tokens are whole words: a space between each two."""
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(("<end>", *PIECES))}, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def pieces_of_words() -> Any:
    """WordPiece: what continues a word begins with ##."""
    vocabulary = {p: i for i, p in enumerate(("<end>", *PIECES, *(f"##{p.strip()}x"[:-1] for p in PIECES)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def single_bytes() -> Any:
    """Every token is one byte; a character may take several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(("<end>", *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def language(size: int, seed: int) -> Any:
    """A random language model of a vocabulary."""
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(vocab_size=size, initializer_range=1.0, **shape)).eval()


@pytest.mark.parametrize("make", [fused, spaced, pieces_of_words, single_bytes])
def test_no_model_with_no_tokenizer_can_name_another(make: Callable[[], Any]) -> None:
    tokenizer = make()
    made = IfasProcessor.__new__(IfasProcessor)  # its text alone is used: these tokenizers can't say Yes
    made.tokenizer, made.end_id = tokenizer, 0
    tried = []

    @settings(max_examples=25)
    @given(seed=st.integers(0, 2**30), attack=st.sampled_from(["", *ATTACKS]), limit=st.integers(1, 25))
    def check(seed: int, attack: str, limit: int) -> None:
        model = language(len(tokenizer), seed)
        with torch.no_grad():
            prompt = torch.randint(1, len(tokenizer), (3, 4), generator=torch.Generator().manual_seed(seed))
        for guarded in (True, False):
            with torch.no_grad():
                cache = model(input_ids=prompt, use_cache=True).past_key_values
            said: list[list[int]] = [[], [], []]

            def may_say(_row: int, tokens: Sequence[int], guarded: bool = guarded) -> bool:
                return not guarded or names_no_other(made.text(tokens), attack)

            for step in greedy(model, cache, [[1]] * 3, end_id=0, limits=[limit] * 3, may_say=may_say):
                for row, token in step:
                    said[row].append(token)
            texts = [made.text(ids) for ids in said]
            if guarded:
                for ids in said:
                    for count in range(len(ids) + 1):
                        assert media_named(made.text(ids[:count])) in ([], [attack])
            else:
                tried.append(any(not names_no_other(text, attack) for text in texts))

    check()
    if make is not single_bytes:  # random bytes hardly ever are a word; see the next test
        assert any(tried), "unguarded, some would"


@pytest.mark.parametrize("word", [*KEYWORDS, "Papers", "SCREEN", "Maſk"])
def test_words_are_forbidden_letter_by_letter(word: str) -> None:
    """The end of a forbidden word is refused, whatever comes before; inside of a longer word it is not."""
    kind = (media_named(word) or [""])[0]
    for text, wrong in ((f"a {word}", True), (f"a x{word}", False), (f"a {word}x", False), (f"a ({word})", True)):
        assert names_no_other(text, kind)
        assert names_no_other(text, "") == (not wrong or not kind)
    assert names_no_other("a newspaper", "")
    assert not names_no_other("a paper", "mask")


def test_a_model_that_wants_to_spell_a_forbidden_word() -> None:
    """Byte by byte: it spells "paper" for ever, and gets as far as "pape"."""
    tokenizer = single_bytes()
    made = IfasProcessor.__new__(IfasProcessor)
    made.tokenizer, made.end_id = tokenizer, 0
    wish = tokenizer.encode("paper paper paper")
    asked = []

    class Wishes:
        def get_input_embeddings(self) -> Any:
            return torch.nn.Embedding(1, 1)

        def __call__(self, **_inputs: Any) -> Any:
            logits = torch.zeros(1, 1, len(tokenizer))
            logits[0, 0, wish[len(asked)]] = 9
            logits[0, 0, tokenizer.encode("x")[0]] = 5
            asked.append(1)
            return type("Out", (), {"logits": logits})

    said: list[int] = []
    for step in greedy(
        Wishes(), None, [[1]], end_id=0, limits=[17], may_say=lambda _r, ids: names_no_other(made.text(ids), "mask")
    ):
        said += [token for _, token in step]
    assert made.text(said) == "papex papex papex"
