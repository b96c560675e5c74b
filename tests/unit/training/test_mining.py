"""Mining: the same answers again whatever the batch, greedy where nothing is random, and never outside of training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_training import ToyImages, config, manifest, picture

from ifas.core.config import AlignConfig
from ifas.core.errors import DataError
from ifas.core.imaging import decode
from ifas.faces.face import Face
from ifas.model.build import build, save
from ifas.model.decoding import greedy
from ifas.model.judge import Judge
from ifas.model.verdict import VerdictTokens
from ifas.training.alignment.answers import Answer, Respondent, choose, uniforms
from ifas.training.alignment.examples import faces, measurable, minable
from ifas.training.alignment.stage import mine

IDS = [f"{i:064x}" for i in range(5)]
PICTURES = [Face.whole(decode(picture(i))) for i in range(5)]


@pytest.fixture(scope="module")
def model() -> Any:
    return build(config("model.max_answer_tokens=8").model, seed=3)


def drawn(model: Any, order: list[int], batch: int = 16, seed: int = 0, temperature: float = 1.0) -> dict[int, Any]:
    said = Respondent(*model, batch=batch).sample(
        [PICTURES[i] for i in order], [IDS[i] for i in order], draws=3, temperature=temperature, seed=seed
    )
    return dict(zip(order, said, strict=True))


def test_draws_depend_on_seed_and_picture_not_on_batch_and_order(model: Any) -> None:
    once = drawn(model, [0, 1, 2, 3, 4])
    assert once == drawn(model, [0, 1, 2, 3, 4])
    assert once == drawn(model, [4, 2, 0, 3, 1], batch=2)
    assert once != drawn(model, [0, 1, 2, 3, 4], seed=1)
    assert all(len(set(answers)) > 1 for answers in once.values()), "an untrained model says something else each time"


def test_greedy_is_the_unguided_answer_and_the_limit_of_sampling(model: Any) -> None:
    """What the model says of itself: the judge lets it name one attack only, and so hides what is to be corrected."""
    said = list(Respondent(*model).greedy(PICTURES))
    judge, processor = Judge(*model), model[1]
    lives = [score >= 0.5 for score in judge.judge(PICTURES)]
    assert [one.live for one in said] == lives
    _, cache = judge._start(next(judge._pixels(PICTURES)))
    written: list[list[int]] = [[] for _ in lives]
    verdicts = [processor.verdicts.of(live) for live in lives]
    for step in greedy(model[0].language, cache, verdicts, end_id=processor.end_id, limits=[8] * len(lives)):
        for row, token in step:
            written[row].append(token)
    assert [one.text for one in said] == [processor.text(ids) for ids in written]
    assert {answer for answers in drawn(model, [0], temperature=1e-6).values() for answer in answers} == {said[0]}


def test_verdicts_of_different_lengths_share_no_padding(model: Any) -> None:
    _, processor = model
    before = processor.verdicts
    try:
        processor.verdicts = VerdictTokens(shared=(), yes=(11, 12, 13), no=(14, 15))
        together = drawn(model, [0, 1, 2, 3, 4])
        assert {answer.live for answers in together.values() for answer in answers} == {True, False}
        assert together == {k: v for i in range(5) for k, v in drawn(model, [i]).items()}
    finally:
        processor.verdicts = before


def test_choose_follows_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    marks = (np.arange(4000) + 0.5) / 4000
    for temperature in (0.5, 1.0, 2.0):
        picked = choose(logits.expand(4000, -1), temperature, marks)
        share = torch.bincount(picked, minlength=4) / 4000
        assert share.tolist() == pytest.approx((logits[0] / temperature).softmax(-1).tolist(), abs=1e-3)
    assert choose(logits, 1.0, np.array([1 - 1e-16])).item() == 3
    assert choose(logits, 1.0, None).item() == 3


def test_random_numbers_differ_between_pictures_and_draws() -> None:
    rows = [uniforms(0, IDS[i], draw, 6) for i in range(2) for draw in range(2)]
    assert len({tuple(row) for row in rows}) == 4
    assert all(((row >= 0) & (row < 1)).all() for row in rows)


def rows(split: str = "train", n: int = 12) -> pd.DataFrame:
    return manifest(n).assign(split=split, subject_id=[f"p{i // 3}" for i in range(n)], pai_species="print")


@pytest.mark.parametrize(
    ("column", "value"), [("split", "dev"), ("split", "test"), ("status", "quarantined"), ("status", "canary")]
)
def test_no_row_outside_of_released_training_data_is_mined(column: str, value: str) -> None:
    frame = rows()
    frame.loc[7, column] = value
    with pytest.raises(DataError, match=rf"{7:064x} .*{value}"):
        minable(frame, set(), 3)


def test_a_training_picture_that_is_also_test_data_is_not_mined() -> None:
    with pytest.raises(DataError, match=f"both sides of the split, the first is {5:064x}"):
        minable(rows(), {f"{5:064x}", "f" * 64}, 12)


def test_measured_are_released_dev_rows_that_nobody_trained_on() -> None:
    assert len(measurable(rows("dev"), set(), 100)) == 12
    for split in ("train", "test"):
        with pytest.raises(DataError, match="released dev rows"):
            measurable(rows(split), set(), 100)
    with pytest.raises(DataError, match="both sides"):
        measurable(rows("dev"), {f"{3:064x}"}, 100)


def test_the_most_frequent_type_does_not_crowd_out_the_others() -> None:
    frame = rows(n=30)
    frame.loc[frame.index >= 9, "spoof_type"] = "live"
    kinds = [one.known.spoof_type for one in minable(frame, set(), 9)]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"live": 3, "print": 3, "replay": 3}
    assert minable(frame, set(), 9) == minable(frame.sample(frac=1, random_state=1), set(), 9)
    assert len(minable(pd.concat([frame, frame.head(5)]), set(), 100)) == 30, (
        "a picture that occurs twice is mined once"
    )


class Counting(ToyImages):
    reads = 0

    def read(self, shard: str, row: int) -> bytes:
        Counting.reads += 1
        return picture(row)


def test_mined_answers_are_kept_and_belong_to_model_and_settings(model: Any, tmp_path: Path) -> None:
    save(*model, tmp_path / "model")
    chosen = minable(rows(), set(), 5)
    asked = AlignConfig(samples=2)
    first = mine(asked, tmp_path / "model", chosen, Counting(), tmp_path)
    assert Counting.reads == 5
    assert [len(answers) for answers in first] == [2] * 5
    assert all(isinstance(answer, Answer) for answers in first for answer in answers)
    assert mine(asked, tmp_path / "model", chosen, Counting(), tmp_path) == first
    assert Counting.reads == 5, "nothing is sampled twice"
    mine(asked.model_copy(update={"seed": 1}), tmp_path / "model", chosen, Counting(), tmp_path)
    assert Counting.reads == 10


class Broken(ToyImages):
    def read(self, shard: str, row: int) -> bytes:
        return b"no picture"


def test_a_picture_that_can_not_be_read_is_named() -> None:
    with pytest.raises(DataError, match=rf"{0:064x} .*row 0"):
        list(faces(minable(rows(), set(), 1), Broken()))
