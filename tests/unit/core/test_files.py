import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifas.core.files import replacing, sha256_json, sha256_tree, write_json


def test_replacing_a_folder_leaves_the_old_one_on_error(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("kept")
    with pytest.raises(RuntimeError), replacing(target) as beside:
        beside.mkdir()
        (beside / "new").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]


def test_replacing_a_folder_swaps_it_whole(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("")
    with replacing(target) as beside:
        beside.mkdir()
        (beside / "new").write_text("")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_tree_hash_sees_names_and_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = sha256_tree(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    second = sha256_tree(tmp_path)
    (tmp_path / "a" / "y").write_text("2")
    assert len({first, second, sha256_tree(tmp_path)}) == 3


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_json_hash_does_not_depend_on_key_order(value):
    assert sha256_json(value) == sha256_json(dict(reversed(list(value.items()))))


def test_write_json_leaves_nothing_beside(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"bad": object()})
    assert list(tmp_path.iterdir()) == []
