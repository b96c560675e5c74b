"""What `ifas demo` asks and prints: images chosen before anything is predicted, wrong answers shown as wrong."""

import pandas as pd

from ifas.cli.demo import answer_lines, first_of_each_species


def test_the_first_released_test_image_of_each_species_by_id() -> None:
    rows = [
        ("d", "test", "kiosk", "print.bent", "released"),
        ("b", "test", "kiosk", "print.bent", "released"),
        ("a", "test", "kiosk", "print.bent", "quarantined"),
        ("c", "test", "kiosk", "live", "released"),
        ("0", "test", "office", "live", "released"),
        ("1", "train", "kiosk", "live", "released"),
        ("e", "test", "kiosk", "mask.rigid3d", "released"),
    ]
    manifest = pd.DataFrame(rows, columns=["sample_id", "split", "domain", "pai_species", "status"])
    chosen = first_of_each_species(manifest.sample(frac=1, random_state=0), ("kiosk",))
    assert chosen[["pai_species", "sample_id"]].to_numpy().tolist() == [
        ["live", "c"],
        ["mask.rigid3d", "e"],
        ["print.bent", "b"],
    ]


def test_right_and_wrong_answers_and_none_are_told_apart() -> None:
    spoof = {"verdict": "spoof", "score": 0.1, "spoof_type_confidence": 0.8, "explanation": "On paper."}
    answers = [
        {"truth": "live", "picture": "a", "answer": {"verdict": "live", "score": 0.9, "explanation": "A face."}},
        {"truth": "live", "picture": "b", "answer": {**spoof, "spoof_type": "print"}},
        {"truth": "print.bent", "picture": "c", "answer": {**spoof, "spoof_type": "print"}},
        {"truth": "replay.phone", "picture": "d", "answer": {**spoof, "spoof_type": "print"}},
        {
            "truth": "mask.rigid3d",
            "picture": "e",
            "answer": {"verdict": None, "reason": "no_face", "error": "None."},
        },
        {"truth": None, "picture": "mine.jpg", "answer": {**spoof, "spoof_type": "mask"}},
    ]
    target = {
        "bpcer": {"value": 0.25, "n": 8},
        "apcer_pooled": {"value": 0.1, "n": 10},
        "explanation_medium": {"value": None, "n": 0},
    }
    lines = answer_lines(answers, {"slices": {"target": target}})
    assert [line[:5] for line in lines[:-1:2]] == ["right", "WRONG", "right", "WRONG", "WRONG", "     "]
    assert "no verdict (no_face)" in lines[8]
    assert lines[-1] == "test      bona fide accepted 75 % of 8, attacks rejected 90 % of 10"
