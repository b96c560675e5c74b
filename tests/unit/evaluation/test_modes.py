"""The question asked in other ways: who is asked, what an answer is read as, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ifas.core.config import ModesConfig
from ifas.evaluation import modes
from ifas.evaluation.predict import predict
from ifas.evaluation.protocol import evaluate
from tests.unit.evaluation.tiles import CONFIG, CUES, PROTOCOL, BrightnessJudge, Pictures

ASKING = CONFIG.model_copy(update={"modes": ModesConfig(images=24)})
FIGURES = ("choice_position_bias", "choice_disagreement", "open_disagreement", "open_unparsed")


class Chatty(BrightnessJudge):
    """Chooses the option that it should, or always the same letter; answers as it is told."""

    def __init__(self, letter: int | None = None, text: str = "") -> None:
        super().__init__()
        self.letter, self.text = letter, text

    def choose(self, faces: Sequence[Any], question: str, letters: str) -> np.ndarray:
        found = np.full((len(faces), len(letters)), 0.1)
        for row, face in enumerate(faces):
            bright = face.picture.mean() / 255 >= 0.55
            option = "real person" if bright else "screen"
            at = next(i for i, one in enumerate(letters) if f"{one}. {option}" in question)
            found[row, at if self.letter is None else self.letter] = 0.7
        return found

    def say(self, faces: Sequence[Any]) -> list[str]:
        bright = [face.picture.mean() / 255 >= 0.55 for face in faces]
        return [self.text or ("Yes. A face." if one else "No. On a screen.") for one in bright]


def run(dataset: tuple[pd.DataFrame, Pictures], judge: Chatty) -> tuple[pd.DataFrame, dict[str, Any], pd.DataFrame]:
    found = predict(judge, *dataset, PROTOCOL, ASKING, CUES)
    return found.asked, evaluate(found.frame, PROTOCOL, ASKING, found.handled, found.asked), found.frame


def test_images_are_drawn_evenly_over_sides_and_species(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    asked, tree, frame = run(dataset, Chatty())
    rows = frame.set_index("sample_id").loc[asked["sample_id"]]
    assert set(rows["split"]) == {"test"}
    counts = rows.assign(side=rows["domain"] == "kiosk").groupby(["side", "pai_species"]).size()
    assert counts.to_dict() == {(side, kind): 3 for side in (False, True) for kind in set(frame["pai_species"])}
    assert tree["modes"]["n"] == 24 == tree["slices"]["target"]["open_unparsed"]["n"] * 2
    shuffled = dataset[0].sample(frac=1, random_state=1)
    assert set(run((shuffled, dataset[1]), Chatty())[0]["sample_id"]) == set(asked["sample_id"])


def test_a_letter_that_decides_is_position_bias(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    for letter in (0, 3):
        asked, tree, _ = run(dataset, Chatty(letter))
        assert tree["slices"]["target"]["choice_position_bias"]["value"] == 1
        assert {tuple(sorted(json.loads(one))) for one in asked["chosen_by_order"]} == {tuple(sorted(modes.OPTIONS))}
    _, fair, _ = run(dataset, Chatty())
    assert fair["slices"]["target"]["choice_position_bias"]["value"] == 0
    assert fair["slices"]["target"]["choice_position_bias"]["n_subjects"] > 1


def test_answers_against_the_verdict_are_counted_by_hand(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    asked, tree, frame = run(dataset, Chatty())
    rows = frame.merge(asked, on="sample_id")
    for name, column in (("choice_disagreement", "chosen"), ("open_disagreement", "open_says")):
        wrong = (rows[column] == "live") != rows["verdict"].astype(bool)
        for side, where in (("target", rows["domain"] == "kiosk"), ("source_test", rows["domain"] != "kiosk")):
            assert tree["slices"][side][name]["errors"] == int(wrong[where].sum())
            assert tree["slices"][side][name]["n"] == int(where.sum())
    assert tree["slices"]["target"]["open_unparsed"]["value"] == 0
    _, silent, _ = run(dataset, Chatty(text="Even light."))
    for name in ("open_unparsed", "open_disagreement"):
        assert silent["slices"]["target"][name]["value"] == 1, "an answer that says neither agrees with no verdict"
    assert silent["modes"]["open"] == {"neither": 24}


def test_who_is_not_asked_has_no_figures(dataset: tuple[pd.DataFrame, Pictures]) -> None:
    found = predict(BrightnessJudge(), *dataset, PROTOCOL, CONFIG, CUES)
    assert found.asked.empty
    tree = evaluate(found.frame, PROTOCOL, CONFIG, found.handled, found.asked)
    assert "modes" not in tree
    for name in FIGURES:
        assert tree["slices"]["target"][name]["value"] is None
        assert "evaluate.modes" in tree["slices"]["target"][name]["reason"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes. A screen behind the person.", "live"),
        ("no", "spoof"),
        ("NO. Printed on paper.", "spoof"),
        ("It is a photo on a phone.", "spoof"),
        ("A real person in even light.", None),
        ("Nobody.", None),
        ("...", None),
        ("", None),
    ],
)
def test_what_an_open_answer_says(text: str, said: str | None) -> None:
    assert modes.says(text) == said


def test_each_option_stands_at_each_letter_once() -> None:
    questions = [modes.question(order) for order in modes.orders()]
    assert (
        questions[0] == "What does this photo show? A. real person B. print C. screen D. mask. Answer with the letter."
    )
    for option in modes.OPTIONS.values():
        assert sorted(letter for one in questions for letter in "ABCD" if f"{letter}. {option}" in one) == list("ABCD")
