"""A closed vocabulary: the loss is that over its tokens, and an answer has no other."""

from pathlib import Path

import pytest
import torch
from tiny_model import CAPTIONS, faces, tiny

from ifas.model.build import build, load, save
from ifas.model.judge import Judge
from ifas.model.vocabulary import close, tokens_of


def test_the_loss_is_a_softmax_over_the_vocabulary_alone() -> None:
    model, processor = build(tiny(), seed=3)
    lives = [True, False, False]
    batch = processor.batch([processor.views(face) for face in faces(3)], lives, list(CAPTIONS[:3]))
    hidden: list[torch.Tensor] = []
    model.language.get_decoder().register_forward_hook(lambda *a: hidden.append(a[2].last_hidden_state))
    model.config.answer_ids = tokens_of([batch["input_ids"][batch["parts"] > 0].tolist(), [0, 7]])
    sums = model(**batch).sums
    ids = torch.tensor(model.config.answer_ids)
    logits = model.language.get_output_embeddings()(hidden[0][:, :-1])
    closed = torch.full_like(logits, -torch.inf)
    closed[..., ids] = logits[..., ids]
    # The placeholders of image tokens lie outside of the head.
    targets = batch["input_ids"][:, 1:, None].clamp(max=logits.shape[-1] - 1)
    nll = -closed.log_softmax(-1).gather(2, targets)[..., 0]
    for part in (1, 2):
        torch.testing.assert_close(sums[part - 1], nll[batch["parts"][:, 1:] == part].sum())


def test_answers_have_no_other_token_and_scores_stay(tmp_path: Path) -> None:
    model, processor = build(tiny("model.max_answer_tokens=30"), seed=3)
    save(model, processor, tmp_path / "open")
    said = [processor.answer(False, caption)[0] for caption in CAPTIONS]
    # Untrained, it says nothing but Yes, which this vocabulary lacks.
    model.config.answer_ids = sorted(set(tokens_of(said)) - {*processor.verdicts.yes})
    save(model, processor, tmp_path / "closed")
    known = set(load(tmp_path / "closed")[0].config.answer_ids)
    closed, opened = Judge.load(tmp_path / "closed"), Judge.load(tmp_path / "open")
    shown = faces(6)
    assert closed.judge(shown) == pytest.approx(opened.judge(shown), abs=1e-6)
    written: list[int] = []
    decode = closed.processor.tokenizer.decode
    closed.processor.tokenizer.decode = lambda ids, **k: written.extend(ids) or decode(ids, **k)
    answers = closed.answer(shown, threshold=0.0)
    assert set(written) <= known
    assert all("Yes" in a.text for a in opened.answer(shown, threshold=0.0))
    assert not any("Yes" in a.text for a in answers)


def test_closing_twice_or_an_open_model_changes_nothing() -> None:
    model, _ = build(tiny())
    head = model.language.get_output_embeddings()
    close(model)
    assert model.language.get_output_embeddings() is head
    model.config.answer_ids = [3, 5]
    close(model)
    once = model.language.get_output_embeddings()
    close(model)
    assert model.language.get_output_embeddings() is once
