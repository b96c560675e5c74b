"""What `ifas run` finds in the folder of runs."""

import pytest

from ifas.core.errors import DataError
from ifas.steps.folder import check_latest, point_latest


def test_latest_moves_on_and_a_file_or_folder_of_that_name_is_left_alone(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        point_latest(tmp_path / name)
        assert (tmp_path / "latest").resolve() == tmp_path / name
    (tmp_path / "latest").unlink()
    check_latest(tmp_path)
    (tmp_path / "latest").write_text("my notes")
    for act in (lambda: check_latest(tmp_path), lambda: point_latest(tmp_path / "first")):
        with pytest.raises(DataError, match="latest is not a link"):
            act()
    assert (tmp_path / "latest").read_text() == "my notes"
