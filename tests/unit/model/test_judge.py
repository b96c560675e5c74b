"""Scores and explanations of a saved model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import pictures, tiny

from ifas.core.errors import ConfigError
from ifas.model.build import build, save
from ifas.model.judge import Judge


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("judge") / "m"
    save(*build(tiny(), seed=5), folder)
    return Judge.load(folder)


def test_score_is_the_softmax_over_yes_and_no_at_the_first_answer_position(judge: Judge) -> None:
    images = pictures(3)
    scores = judge.judge(images)
    assert scores.shape == (3,)
    assert scores.dtype == np.float64
    model, processor = judge.model, judge.processor
    for image, score in zip(images, scores, strict=True):
        ids = torch.tensor([processor.prompt_ids])
        with torch.no_grad():
            embeds = model.embed(processor.pixel_values([processor.image(image)]), ids)
            logits = model.language(inputs_embeds=embeds).logits[0, -1].double()
        yes, no = logits[processor.verdicts.yes[0]], logits[processor.verdicts.no[0]]
        assert score == pytest.approx((yes.exp() / (yes.exp() + no.exp())).item(), abs=1e-6)


def test_answers_do_not_depend_on_batch_order_or_size(judge: Judge) -> None:
    images = pictures(7)
    whole = judge.judge(images)
    order = [4, 0, 6, 2, 5, 1, 3]
    np.testing.assert_allclose(judge.judge([images[i] for i in order]), whole[order], atol=1e-5)
    np.testing.assert_allclose([judge.judge([image])[0] for image in images], whole, atol=1e-5)
    small = Judge(judge.model, judge.processor, batch=3)
    np.testing.assert_allclose(small.judge(images), whole, atol=1e-5)
    assert small.explain(images) == judge.explain(images) == [judge.explain([i])[0] for i in images]


def test_no_images(judge: Judge) -> None:
    assert judge.judge([]).shape == (0,)
    assert judge.explain([]) == []


def greedy(judge: Judge, image: np.ndarray, live: bool) -> list[int]:  # type: ignore[type-arg]
    """Decoding without a cache, one token at a time."""
    model, processor = judge.model, judge.processor
    pixels = processor.pixel_values([processor.image(image)])
    ids = [*processor.prompt_ids, *processor.verdicts.of(live)]
    written: list[int] = []
    while len(written) < processor.max_answer_tokens:
        with torch.no_grad():
            logits = model.language(inputs_embeds=model.embed(pixels, torch.tensor([ids + written]))).logits
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == processor.end_id:
            break
    return written


def test_explanation_follows_the_forced_verdict(judge: Judge) -> None:
    images = pictures(4)
    verdicts = [True, False, False, True]
    wanted = [judge.processor.text(greedy(judge, i, v)) for i, v in zip(images, verdicts, strict=True)]
    assert judge.explain(images, verdicts) == wanted


def test_without_a_verdict_the_likelier_one_is_forced(judge: Judge) -> None:
    images = pictures(4)
    assert judge.explain(images) == judge.explain(images, [bool(s >= 0.5) for s in judge.judge(images)])


def test_text_stops_at_the_end_token(judge: Judge) -> None:
    processor = judge.processor
    ids, _ = processor.answer(True, "A face on paper.")
    words = ids[len(processor.verdicts.yes) :]
    assert processor.text([*words, *words]) == "A face on paper."


def test_verdicts_of_different_lengths_are_decoded_apart(judge: Judge) -> None:
    """A tokenizer may spell one verdict with more tokens than the other."""
    from ifas.model.verdict import VerdictTokens

    processor = judge.processor
    longer = Judge(judge.model, processor)
    old = processor.verdicts
    processor.verdicts = VerdictTokens(shared=(), yes=(old.yes[0], 40), no=old.no)
    try:
        images, verdicts = pictures(3), [True, False, True]
        wanted = [processor.text(greedy(judge, i, v)) for i, v in zip(images, verdicts, strict=True)]
        assert longer.explain(images, verdicts) == wanted
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
