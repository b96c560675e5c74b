import pytest

from ifas.core.errors import DataError
from ifas.core.taxonomy import KEYWORDS, PAI_SPECIES, SPOOF_TYPES, media_named, spoof_type_of


def test_species_begin_with_their_spoof_type():
    assert all(name.split(".")[0] == kind for name, kind in PAI_SPECIES.items())
    assert set(KEYWORDS.values()) <= set(SPOOF_TYPES[1:])


def test_unknown_species_tells_how_to_add_it():
    with pytest.raises(DataError, match=r"PAI_SPECIES in ifas/core/taxonomy\.py"):
        spoof_type_of("hologram")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a face on Paper", ["print"]),
        ("reading a newspaper", []),
        ("a screenshot of a smartphone", []),
        ("two screens behind a mask", ["replay", "mask"]),
        ("paper, printed paper", ["print"]),
        ("", []),
    ],
)
def test_media_are_matched_on_word_boundaries(text, named):
    assert media_named(text) == named
