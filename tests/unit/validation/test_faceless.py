"""Images without a face that can be judged: listed with the reason, and raised where a group has many."""

import captioned

from ifas.validation.faceless import section


def test_none() -> None:
    found = section(captioned.manifest())
    assert found.rows == found.flags == found.blocking == ()
    assert found.facts == {"without_face": {}, "images": 42}


def test_each_is_listed_and_a_group_with_many_is_named() -> None:
    rows = captioned.manifest().astype({"face_refused": object})
    rows.loc[[3, 7], "face_refused"] = ["no_face", "blurred"]
    found = section(rows)
    assert [(row[0], row[3]) for row in found.rows] == [("3.png", "no_face"), ("7.png", "blurred")]
    assert found.facts["without_face"] == {"blurred": 1, "no_face": 1}
    assert "2 of 42" in found.about
    assert "no face was found in the image: 1" in found.about
    assert f"{rows.at[3, 'pai_species']} of {rows.at[3, 'domain']}: 1 of 7" in found.flags[0]
    assert found.blocking == ()
    assert [shown.value for shown in found.pictures] == ["no_face", "blurred"]
