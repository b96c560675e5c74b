"""Whatever the model wrote, a corrective turn says only what label and evidence say."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifas.captioning.identity import identifies
from ifas.captioning.specialists import specialists
from ifas.core.claims import Cue, Fact, Known, claimed, contradicts, holds, invented_cues, sure_of
from ifas.core.taxonomy import KEYWORDS, PAI_SPECIES, SPOOF_TYPES, media_named, spoof_type_of
from ifas.training.alignment.answers import Answer
from ifas.training.alignment.codebook import CODEBOOK, Correction, corrections
from ifas.training.alignment.examples import Example
from ifas.training.alignment.mixture import balanced, correctives, mixture, yes_share
from ifas.training.alignment.turns import WORDS, Turn, turn
from ifas.training.job import Row

CUES = {name: Cue(name, one.clause, one.words, one.supports) for name, one in specialists().items()}
NONE = dict.fromkeys(CUES, 0.0)

PRINT = Known("1a", "print", "print.a4", {**NONE, "paper margin": 0.9, "medium border": 0.7})
LIVE = Known("2b", "live", "live", {**NONE, "depth": 0.95})
REPLAY = Known("3c", "replay", "replay.phone", {**NONE, "bezel": 1.0, "medium border": 1.0})


def errors(answer: Answer, known: Known) -> set[str]:
    return {one.error for one in corrections(answer, known, CUES)}


def pair(error: str, answer: Answer, known: Known) -> Correction:
    return next(one for one in corrections(answer, known, CUES) if one.error == error)


def test_a_right_answer_is_not_corrected() -> None:
    said = "The face is on printed paper. A straight bright edge runs beside the head."
    assert corrections(Answer(False, said), PRINT, CUES) == []
    assert corrections(Answer(True, "A person. The background lies out of focus behind the head."), LIVE, CUES) == []


@pytest.mark.parametrize(
    ("error", "answer", "known", "denied", "affirmed"),
    [
        ("verdict flip", Answer(True, "A person."), PRINT, Fact("live"), Fact("attack")),
        ("verdict flip", Answer(False, "A person."), LIVE, Fact("attack"), Fact("live")),
        ("contradiction", Answer(False, "A person looks here."), PRINT, Fact("live"), Fact("medium", "print")),
        ("wrong attack", Answer(False, "A phone screen."), PRINT, Fact("medium", "replay"), Fact("medium", "print")),
    ],
)
def test_each_error_has_its_denial_and_its_affirmation(
    error: str, answer: Answer, known: Known, denied: Fact, affirmed: Fact
) -> None:
    assert pair(error, answer, known) == Correction(error, denied, affirmed)


def test_invented_media_and_cues_are_denied() -> None:
    medium = pair("invented", Answer(True, "A sheet of paper."), LIVE)
    assert medium.denied == Fact("medium", "print")
    assert holds(medium.affirmed, LIVE, CUES)
    cue = pair("invented", Answer(True, "A person. Small sharp highlights lie on the face."), LIVE)
    assert cue.denied == Fact("cue", "specular")


def test_a_cue_beside_which_a_like_one_is_sure_is_not_denied() -> None:
    """The bezel's specialist is silent beside a brighter edge, but an edge is there: nobody knows its tone."""
    text = "A straight dark frame runs beside the head, on paper."
    assert holds(Fact("cue", "bezel"), PRINT, CUES) is None
    assert "bezel" in claimed(text, CUES)
    assert invented_cues(text, PRINT, CUES) == []
    assert "invented" not in errors(Answer(False, text), PRINT)
    bare = replace(PRINT, sure=NONE)
    assert {"bezel", "medium border"} == set(invented_cues(text, bare, CUES))


def test_the_surest_cue_is_missed_where_it_is_not_said() -> None:
    missed = pair("missed cue", Answer(False, "The face is on a screen."), REPLAY)
    assert missed.affirmed == Fact("cue", "bezel")
    assert holds(missed.denied, REPLAY, CUES) is False
    assert "missed cue" not in errors(Answer(False, "A screen with a dark frame."), REPLAY)
    assert "missed cue" not in errors(Answer(False, "A screen."), replace(REPLAY, sure={**NONE, "bezel": 0.7}))


def test_evidence_against_the_label_decides_nothing() -> None:
    odd = replace(LIVE, sure={**NONE, "bezel": 1.0})
    assert holds(Fact("cue", "bezel"), odd, CUES) is None


@pytest.mark.parametrize(
    ("species", "unclear"),
    [("mask.paper_face", "print"), ("mask.makeup_cosmetic", "mask"), ("mask.partial_eye", "mask")],
)
def test_what_a_species_leaves_open_is_neither_denied_nor_affirmed(species: str, unclear: str) -> None:
    known = Known("4d", "mask", species)
    assert holds(Fact("medium", unclear), known, CUES) is None
    with pytest.raises(ValueError, match="nothing is known"):
        turn(Fact("medium", unclear), known, CUES)


def test_without_specialists_only_the_label_is_asked_about() -> None:
    known = Known("5e", "print", "print.a4", sure_of('{"wave_peak": 3.0}'))
    found = corrections(Answer(True, "Small letters stand beside the face."), known, CUES)
    assert {fact.about for one in found for fact in one[1:]} <= {"live", "attack", "medium"}
    assert sure_of('{"specialists": {"bezel": 0.5}}') == {"bezel": 0.5}
    assert sure_of("") == {}


def test_contradiction_reads_both_ways() -> None:
    assert contradicts(True, "The face is on a screen.", CUES)
    assert contradicts(False, "A person looks at the camera.", CUES)
    assert not contradicts(False, "A straight dark frame runs beside the head.", CUES), "a cue of an attack is a reason"
    assert contradicts(False, "The background lies out of focus behind the head.", CUES), "masks show depth, too"


SPECIES = sorted(PAI_SPECIES)
FRAGMENTS = [
    *(cue.clause for cue in CUES.values()),
    *(word for cue in CUES.values() for word in cue.words),
    *KEYWORDS,
    *(sentence for _, sentence in WORDS.values()),
    "a young woman named Ada Byron",
    "no",
]
TEXTS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(", ".join))
KNOWN = st.builds(
    lambda species, sure, number: Known(f"{number:012x}", spoof_type_of(species), species, sure),
    st.sampled_from(SPECIES),
    st.one_of(st.just({}), st.fixed_dictionaries(dict.fromkeys(CUES, st.floats(0, 1)))),
    st.integers(0, 2**40),
)


def entailed(made: Turn, known: Known) -> bool:
    """Read from the words alone: is what the turn says so, by label and evidence?"""
    media = {"printed paper": "print", "screen": "replay", "mask cover": "mask", "mannequin": "mannequin"}
    if made.question.startswith("Can it be seen that "):
        name = next(n for n, cue in CUES.items() if cue.clause == made.question[len("Can it be seen that ") : -1])
        sure = known.sure[name]
        right = (sure >= 0.5 and known.spoof_type in CUES[name].supports) if made.yes else sure < 0.2
    elif "living person" in made.question:
        right = made.yes == (known.spoof_type == "live")
    elif "deceive" in made.question:
        right = made.yes == (known.spoof_type != "live")
    else:
        kind = next(kind for words, kind in media.items() if words in made.question)
        right = made.yes == (known.spoof_type == kind) and not (
            known.species.startswith("mask.paper") and kind == "print"
        )
    # The text names the true medium or none, and claims only what is measured and fits.
    named = set(media_named(made.text))
    spoken = all(
        known.sure.get(name, 0) >= 0.5
        for name in claimed(made.text, CUES)
        if CUES[name].clause.lower() == made.text.lower().rstrip(".")
    )
    person = "A living person" in made.text
    return right and named <= {known.spoof_type} - {"live"} and spoken and (not person or known.live)


@settings(max_examples=400)
@given(known=KNOWN, live=st.booleans(), text=TEXTS)
def test_every_turn_is_entailed_by_label_and_evidence(known: Known, live: bool, text: str) -> None:
    for one in corrections(Answer(live, text), known, CUES):
        no, yes = turn(one.denied, known, CUES), turn(one.affirmed, known, CUES)
        assert (no.yes, yes.yes) == (False, True)
        for made in (no, yes):
            assert entailed(made, known)
            assert identifies(made.text) == []
            assert identifies(made.question) == []
            assert made.judged == ("living" in made.question or "deceive" in made.question)


@settings(max_examples=60)
@given(
    data=st.lists(st.tuples(KNOWN, st.lists(st.builds(Answer, st.booleans(), TEXTS), max_size=4)), max_size=12),
    most=st.integers(2, 6),
)
def test_yes_and_no_are_balanced_and_questions_asked_once(data: list[tuple[Known, list[Answer]]], most: int) -> None:
    mined = [(Example(known, "s", i, None, "p", "c"), answers) for i, (known, answers) in enumerate(data)]
    found, counted = correctives(mined, CUES, most=most)
    assert set(counted) == set(CODEBOOK)
    for share in yes_share([one.turn for one in found]).values():
        assert 0.45 <= share <= 0.55
    asked = Counter((one.example.row, one.turn.question) for one in found)
    assert all(times == 1 for times in asked.values())
    assert all(times <= most for times in Counter(one.example.row for one in found).values())


def test_an_unbalanced_set_is_cut_not_filled() -> None:
    mined = [
        (Example(replace(PRINT, sample_id=f"{i:x}"), "s", i, None, "p", "c"), [Answer(True, "A person.")])
        for i in range(9)
    ]
    found, _ = correctives(mined, CUES, most=2)
    only_yes = [one for one in found if one.turn.yes]
    assert len(only_yes) == 9
    assert balanced(only_yes) == []
    assert len(balanced([*only_yes, *(one for one in found if not one.turn.yes)][:12])) == 6


def test_half_of_what_is_drawn_are_chosen_answers_and_classes_stay_balanced() -> None:
    chosen = [Row(str(i), "s", i, kind, "c", 2.0) for i, kind in enumerate(["live"] * 6 + ["print"] * 2)]
    turns = [Row("0", "s", 0, "live", "t", question="Is it?", yes=bool(i % 2)) for i in range(3)]
    rows = mixture(chosen, turns, balance=True, weighted=False)
    assert sum(r.weight for r in rows if r.question) == pytest.approx(1)
    weights = {k: sum(r.weight for r in rows if not r.question and r.spoof_type == k) for k in ("live", "print")}
    assert weights == pytest.approx({"live": 0.5, "print": 0.5})
    plain = mixture(chosen, turns, balance=False, weighted=True)
    assert [r.weight for r in plain[:8]] == pytest.approx([1 / 8] * 8)


def test_the_words_name_their_own_medium_alone() -> None:
    for fact, (_, sentence) in WORDS.items():
        assert media_named(sentence) == ([fact.name] if fact.about == "medium" else [])
        assert identifies(sentence) == []
    assert {fact.name for fact in WORDS if fact.about == "medium"} == set(SPOOF_TYPES[1:])
    assert all(media_named(cue.clause) == [] for cue in CUES.values()), "a clause names no medium"
