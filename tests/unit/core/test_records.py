import pytest

from ifas.core.errors import DataError
from ifas.core.records import Lineage, LineageEntry


def entry(step: str) -> LineageEntry:
    return LineageEntry(
        step=step, config="c", code="d", inputs={}, outputs={"x": "1"}, summary="s", facts={"n": 1},
        image="local", started="2026-01-01T00:00:00+00:00", seconds=1.0,
    )  # fmt: skip


def chain() -> Lineage:
    return Lineage(run_id="r").append(entry("ingest")).append(entry("caption")).append(entry("validate"))


def test_chain_verifies_after_a_round_trip():
    Lineage.model_validate_json(chain().model_dump_json()).verify()


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("change", [{"seconds": 2.0}, {"facts": {"n": 2}}, {"outputs": {"x": "2"}}])
def test_any_alteration_is_found(position, change):
    lineage = chain()
    entries = list(lineage.entries)
    entries[position] = entries[position].model_copy(update=change)
    with pytest.raises(DataError, match=entries[position].step):
        Lineage(run_id="r", entries=entries).verify()


def test_a_removed_entry_is_found():
    lineage = chain()
    with pytest.raises(DataError):
        Lineage(run_id="r", entries=[lineage.entries[0], lineage.entries[2]]).verify()
