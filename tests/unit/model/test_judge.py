"""Scores and explanations of a saved model."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import faces, tiny

from ifas.core.calibration import Calibration, log_odds
from ifas.core.errors import ConfigError
from ifas.core.taxonomy import media_named
from ifas.faces.face import Face
from ifas.model.build import build, save
from ifas.model.judge import Judge


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("judge") / "m"
    save(*build(tiny(), seed=5), place)
    return place


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge.load(folder)


def test_score_is_the_softmax_over_yes_and_no_at_the_first_answer_position(judge: Judge) -> None:
    images = faces(3)
    scores = judge.judge(images)
    assert scores.shape == (3,)
    assert scores.dtype == np.float64
    model, processor = judge.model, judge.processor
    for image, score in zip(images, scores, strict=True):
        ids = torch.tensor([processor.prompt_ids])
        with torch.no_grad():
            embeds = model.embed(processor.pixel_values([processor.views(image)]), ids)
            logits = model.language(inputs_embeds=embeds).logits[0, -1].double()
        yes, no = logits[processor.verdicts.yes[0]], logits[processor.verdicts.no[0]]
        assert score == pytest.approx((yes.exp() / (yes.exp() + no.exp())).item(), abs=1e-6)


def test_a_calibration_makes_scores_and_verdicts(folder: Path, judge: Judge) -> None:
    images, raw = faces(4), judge.judge(faces(4))
    made = Calibration(temperature=0.2, bias=float(-log_odds(raw).mean() / 0.2))
    other = Judge.load(folder, calibration=made)
    scores = other.judge(images)
    np.testing.assert_allclose(scores, made.apply(raw), atol=1e-5)
    assert np.abs(scores - raw).max() > 1e-3
    answers = other.answer(images, 0.5)
    assert [a.score for a in answers] == scores.tolist()
    assert [a.live for a in answers] == (scores >= 0.5).tolist()
    assert {a.live for a in answers} == {True, False}, "both sides of the threshold"


def texts(judge: Judge, images: list[Face], verdicts: list[bool] | None = None) -> list[str]:
    return [one.text for one in judge.explain(images, verdicts)]


def test_answers_do_not_depend_on_batch_order_or_size(judge: Judge) -> None:
    images = faces(7)
    whole = judge.judge(images)
    order = [4, 0, 6, 2, 5, 1, 3]
    np.testing.assert_allclose(judge.judge([images[i] for i in order]), whole[order], atol=1e-5)
    np.testing.assert_allclose([judge.judge([image])[0] for image in images], whole, atol=1e-5)
    small = Judge(judge.model, judge.processor, batch=3)
    np.testing.assert_allclose(small.judge(images), whole, atol=1e-5)
    assert texts(small, images) == texts(judge, images) == [texts(judge, [image])[0] for image in images]


@settings(max_examples=20)
@given(order=st.permutations(range(7)), count=st.integers(1, 7), batch=st.integers(1, 8))
def test_scores_of_any_batch_size_and_order(judge: Judge, order: list[int], count: int, batch: int) -> None:
    images = [faces(7)[i] for i in order[:count]]
    alone = [judge.judge([image])[0] for image in images]
    other = Judge(judge.model, judge.processor, batch=batch)
    np.testing.assert_allclose(other.judge(images), alone, atol=1e-5)
    np.testing.assert_allclose([a.score for a in other.answer(images)], alone, atol=1e-5)


def test_no_images(judge: Judge) -> None:
    assert judge.judge([]).shape == (0,)
    assert judge.explain([]) == []
    assert judge.answer([]) == []
    assert list(judge.stream([])) == []


def test_an_answer_is_the_score_and_the_text_of_one_prefill(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    images = faces(7)
    scores = judge.judge(images)
    threshold = float(np.median(scores))
    lives = [bool(score >= threshold) for score in scores]
    assert len(set(lives)) == 2
    explained = judge.explain(images, lives)
    prefill, calls = judge._prefill, []
    monkeypatch.setattr(judge, "_prefill", lambda *a: calls.append(len(a[0])) or prefill(*a))
    answers = judge.answer(images, threshold)
    assert calls == [7]
    assert [a.score for a in answers] == scores.tolist(), "the very numbers of `judge`"
    assert [a.live for a in answers] == lives
    assert answers == explained


def test_streamed_pieces_join_to_the_text(judge: Judge) -> None:
    images = faces(5)
    small = Judge(judge.model, judge.processor, batch=2)
    joined = [""] * 5
    pieces = list(small.stream(images, threshold=0.4))
    for row, piece in pieces:
        assert piece
        joined[row] += piece
    assert joined == [a.text for a in judge.answer(images, threshold=0.4)]
    assert len(pieces) > 5, "not each text in one piece"


def test_a_stream_may_be_left(judge: Judge) -> None:
    stream = judge.stream(faces(9))
    next(stream)
    stream.close()
    assert judge.judge(faces(2)).shape == (2,)


def test_bfloat16_is_close(judge: Judge, folder: Path) -> None:
    half = Judge.load(folder, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    np.testing.assert_allclose(half.judge(faces(5)), judge.judge(faces(5)), atol=0.02)
    assert [a.score for a in half.answer(faces(5))] == half.judge(faces(5)).tolist()
    assert Judge.load(folder, dtype="auto").model.dtype == torch.float32, "as it was saved"
    with pytest.raises(ConfigError, match="float16"):
        Judge.load(folder, dtype="float16")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++")
def test_compiled(tmp_path: Path) -> None:
    """One layer of each part: compiling takes long."""
    one = ("vision.shape.num_hidden_layers=1", "language.shape.num_hidden_layers=1")
    save(*build(tiny(*(f"model.{field}" for field in one)), seed=5), tmp_path / "m")
    judge, compiled = Judge.load(tmp_path / "m"), Judge.load(tmp_path / "m", batch=4, compile=True)
    images = faces(6)
    np.testing.assert_allclose(compiled.judge(images), judge.judge(images), atol=1e-5)
    answers = compiled.answer(images[:1])
    assert answers[0].score == pytest.approx(judge.judge(images[:1])[0], abs=1e-5)
    assert [a.text for a in answers] == texts(judge, images[:1])


def test_nothing_to_compile_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder.parent / "inductor"))
    # By its own means: what monkeypatch sets there it removes afterwards, for all tests of this process.
    with config.patch({"cpp.cxx": ("/nowhere/g++",)}), pytest.raises(ConfigError, match=r"torch\.compile failed"):
        Judge.load(folder, compile=True)


def greedy(judge: Judge, image: Face, live: bool, attack: str) -> list[int]:
    """Decoding without a cache, one token at a time: the likeliest that names no other medium."""
    model, processor = judge.model, judge.processor
    pixels = processor.pixel_values([processor.views(image)])
    ids = [*processor.prompt_ids, *processor.verdicts.of(live)]
    written = [] if live else processor.phrase(attack)
    while len(written) < processor.max_answer_tokens:
        with torch.no_grad():
            logits = model.language(inputs_embeds=model.embed(pixels, torch.tensor([ids + written]))).logits
        order = logits[0, -1].argsort(descending=True).tolist()
        allowed = (token for token in order if set(media_named(processor.text([*written, token]))) <= {attack})
        written.append(next(allowed))
        if written[-1] == processor.end_id:
            break
    return written


def test_explanation_follows_the_forced_verdict(judge: Judge) -> None:
    images = faces(4)
    verdicts = [True, False, False, True]
    answers = judge.explain(images, verdicts)
    for image, live, one in zip(images, verdicts, answers, strict=True):
        assert one.live == live
        assert one.text == judge.processor.text(greedy(judge, image, live, one.spoof_type))


def test_without_a_verdict_the_likelier_one_is_forced(judge: Judge) -> None:
    images = faces(4)
    verdicts = [bool(score >= 0.5) for score in judge.judge(images)]
    assert judge.explain(images) == judge.answer(images) == judge.explain(images, verdicts)


def test_text_stops_at_the_end_token(judge: Judge) -> None:
    processor = judge.processor
    ids, _ = processor.answer(True, "A face on paper.")
    words = ids[len(processor.verdicts.yes) :]
    assert processor.text([*words, *words]) == "A face on paper."


def test_verdicts_of_different_lengths(judge: Judge) -> None:
    """A tokenizer may spell one verdict with more tokens than the other."""
    from ifas.model.verdict import VerdictTokens

    processor = judge.processor
    longer = Judge(judge.model, processor)
    old = processor.verdicts
    processor.verdicts = VerdictTokens(shared=(), yes=(old.yes[0], 40), no=old.no)
    try:
        images, verdicts = faces(3), [True, False, True]
        answers = longer.explain(images, verdicts)
        wanted = [greedy(judge, i, v, a.spoof_type) for i, v, a in zip(images, verdicts, answers, strict=True)]
        assert [one.text for one in answers] == [processor.text(ids) for ids in wanted]
    finally:
        processor.verdicts = old


def test_not_a_model_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ifas model directory"):
        Judge.load(tmp_path)


def test_a_cut_weights_file_is_refused(tmp_path: Path) -> None:
    save(*build(tiny()), tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ConfigError, match="can't be loaded"):
        Judge.load(tmp_path / "m")


def test_a_choice_is_the_softmax_over_the_letters_behind_another_question(judge: Judge) -> None:
    images, question = faces(3), "What does this photo show? A. real person B. print C. screen D. mask."
    shares = judge.choose(images, question, "ABCD")
    assert shares.shape == (3, 4)
    model, processor = judge.model, judge.processor
    letters = [processor.tokenizer.encode(letter, add_special_tokens=False) for letter in "ABCD"]
    assert {len(ids) for ids in letters} == {1}, "this tokenizer has a token for each letter"
    for image, row in zip(images, shares, strict=True):
        ids = torch.tensor([processor.prompt(question)])
        with torch.no_grad():
            embeds = model.embed(processor.pixel_values([processor.views(image)]), ids)
            logits = model.language(inputs_embeds=embeds).logits[0, -1].double()
        np.testing.assert_allclose(row, logits[[one[0] for one in letters]].softmax(0).numpy(), atol=1e-6)
    np.testing.assert_allclose(judge.choose(images[1:2], question, "ABCD")[0], shares[1], atol=1e-5)
    with pytest.raises(ConfigError, match="can't tell the letters AA apart"):
        judge.choose(images, question, "AA")


def test_an_open_answer_is_the_greedy_one_with_nothing_forced(judge: Judge) -> None:
    images = faces(2)
    model, processor = judge.model, judge.processor
    for image, said in zip(images, judge.say(images), strict=True):
        ids, written = torch.tensor([processor.prompt_ids]), []
        with torch.no_grad():
            embeds = model.embed(processor.pixel_values([processor.views(image)]), ids)
            while len(written) < processor.max_answer_tokens and processor.end_id not in written:
                token = model.language(inputs_embeds=embeds).logits[0, -1].argmax()
                written.append(int(token))
                embeds = torch.cat([embeds, model.language.get_input_embeddings()(token.view(1, 1))], dim=1)
        assert said == processor.text(written)


def test_pooled_features_are_the_levels_of_all_views(judge: Judge) -> None:
    images = faces(5)
    found = judge.pooled(images)
    pixels = judge.processor.pixel_values([judge.processor.views(one) for one in images])
    with torch.no_grad():
        _, levels = judge.model.see(pixels)
    np.testing.assert_allclose(found, torch.cat(levels, dim=1).numpy(), atol=1e-5)
    np.testing.assert_allclose(judge.pooled(images[3:4])[0], found[3], atol=1e-5)
