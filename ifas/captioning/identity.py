"""No caption says who a person is, or how old, of which gender or ethnicity: faces are biometric data.

A captioner trained on the web says such things by habit. Words of gender are replaced by neutral ones, words of age and
ethnicity are removed, and a clause that names a person is removed as a whole. A name is recognised by its capitals, or
by the words before it ("named ...", "looks like ..."). Names in small letters without such words are missed, so the
prompt of a captioner asks it, too, not to name anyone.
"""

from __future__ import annotations

import re

from ifas.captioning.sentences import NOTHING_LEFT, sentences, without_clauses

#: Gendered word -> neutral word.
NEUTRAL = {
    **dict.fromkeys(
        [
            "man",
            "woman",
            "boy",
            "girl",
            "guy",
            "lady",
            "gentleman",
            "gal",
            "dude",
            "male",
            "female",
            "mother",
            "father",
            "husband",
            "wife",
        ],
        "person",
    ),
    **dict.fromkeys(
        ["brother", "sister", "son", "daughter", "king", "queen", "mr", "mrs", "ms", "miss", "sir", "madam"], "person"
    ),
    **dict.fromkeys(["men", "women", "boys", "girls", "guys", "ladies", "gentlemen", "males", "females"], "people"),
    **dict.fromkeys(["he", "she"], "the person"),
    **dict.fromkeys(["him", "hers"], "the person"),
    **dict.fromkeys(["his", "her"], "the"),
    **dict.fromkeys(["himself", "herself"], "itself"),
    **dict.fromkeys(
        ["child", "kid", "baby", "toddler", "teenager", "teen", "adult", "senior", "infant", "youth", "elder"], "person"
    ),
    **dict.fromkeys(
        [
            "children",
            "kids",
            "babies",
            "toddlers",
            "teenagers",
            "teens",
            "adults",
            "seniors",
            "infants",
            "youths",
            "elders",
        ],
        "people",
    ),
    **dict.fromkeys(["actor", "actress", "singer", "celebrity", "politician", "president", "model"], "person"),
}
#: Words of age and ethnicity that go where they stand before a noun.
_DROPPED = (
    r"young|younger|old|older|elderly|aged|middle-aged|teenage|adolescent|youthful|senior-aged|juvenile",
    r"asian|african|african-american|caucasian|european|hispanic|latino|latina|latin|indian|chinese|japanese|korean|"
    r"arab|arabic|american|mexican|nigerian|russian|german|french|italian|british|vietnamese|thai|turkish|persian|"
    r"jewish|muslim|nordic|slavic|mediterranean|oriental|ethnic|multiracial|biracial",
    r"(?:dark|light|fair|brown|black|white|pale|tan)-skinned",
    r"masculine|feminine|manly|womanly|boyish|girlish",
)
_DROP = re.compile(rf"\b(?:{'|'.join(_DROPPED)})\b[\s,]*", re.IGNORECASE)
#: Colours that speak of a person and not of a thing.
_COLOUR = re.compile(r"\b(?:black|white|brown|yellow)\s+(?=(?:person|people)\b)", re.IGNORECASE)
_YEARS = re.compile(
    r"\b(?:(?:about|around|aged?|roughly|maybe)\s+)?\d{1,3}(?:\s*(?:-|to)\s*\d{1,3})?[\s-]*years?(?:[\s-]+olds?|\s+of\s+age)?"
    r"|\bin\s+(?:his|her|their|the)\s+(?:early\s+|mid\s+|mid-|late\s+)?"
    r"(?:teens|twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties|\d0s)\b"
    r"|\bage[ds]?\s+\d{1,3}\b",
    re.IGNORECASE,
)
_GENDERED = re.compile(rf"\b(?:{'|'.join(NEUTRAL)})\b", re.IGNORECASE)
#: A person is named: after such words, or as two capitalised words in a row, or one inside a sentence.
_NAMED = re.compile(
    r"\b(?:named|called|known\s+as|identified\s+as|resembl\w+|looks\s+(?:just\s+)?like|similar\s+to|portrait\s+of)\s+"
    r"(?:(?:the|a|an)\s+(?:famous|former|well-known)\b|[A-Z])"
    r"|\b[A-Z][a-z'’-]+\s+(?:[A-Z]\.\s+)?[A-Z][a-z'’-]+\b"
    r"|(?<=[a-z,;]\s)(?!I\b|[A-Z]{2})[A-Z][a-z'’-]+\b"
)
_ABOUT = re.compile(
    r"\b(?:gender|ethnicity|ethnic\s+origin|nationality|race|skin\s+(?:tone|colou?r)|age)\b", re.IGNORECASE
)
_JOINTS = re.compile(r"\s*[,;]\s+|\s+(?:and|who|which)\s+")


def without_identity(text: str) -> tuple[str, int]:
    """A caption without who, how old, which gender or ethnicity; and how many words or clauses were changed."""
    cut = 0
    kept = []
    for sentence in sentences(text):
        sentence, dropped = _DROP.subn("", sentence)
        cut += dropped
        if _tells(sentence):
            sentence, clauses = without_clauses(sentence, _tells, _JOINTS)
            cut += clauses
        sentence, gendered = _GENDERED.subn(_neutral, sentence)
        sentence, coloured = _COLOUR.subn("", sentence)
        cut += gendered + coloured
        kept.append(_tidy(sentence))
    return (" ".join(s for s in kept if s) or NOTHING_LEFT), cut


def _tells(text: str) -> bool:
    """Whether a text names a person, or speaks of age, gender or ethnicity in a way that only a cut removes."""
    return any(pattern.search(text) for pattern in (_NAMED, _ABOUT, _YEARS))


def identifies(text: str) -> list[str]:
    """What `without_identity` would take out of a text: empty where the text may be used as it is."""
    found = [m.group(0).strip() for p in (_NAMED, _ABOUT, _YEARS, _DROP, _GENDERED, _COLOUR) for m in p.finditer(text)]
    return list(dict.fromkeys(found))


def _neutral(match: re.Match[str]) -> str:
    word = NEUTRAL[match.group(0).lower()]
    return word.capitalize() if match.group(0)[0].isupper() else word


def _tidy(sentence: str) -> str:
    """Articles and spaces after words were changed; a capital at the start."""
    sentence = re.sub(r"\s+([,.;!?])", r"\1", re.sub(r"\s{2,}", " ", sentence)).strip(" ,;")
    sentence = re.sub(r"\b(an)(?=\s+[^aeiou\W])", "a", sentence)
    sentence = re.sub(r"\b(a)(?=\s+[aeio])", "an", sentence)
    sentence = re.sub(r"\b(An)(?=\s+[^aeiou\W])", "A", sentence)
    sentence = re.sub(r"\b(person|people)(?:\s+\1)+\b", r"\1", sentence)
    return sentence[:1].upper() + sentence[1:]
