"""A picture damaged inside a whole file: packed, found by `validate`, left out of training, and the run goes on."""

from pathlib import Path

import pandas as pd
import pytest

from ifas.core.config import RunConfig, load
from ifas.core.errors import ValidationFailed
from ifas.core.files import read_json
from ifas.core.manifest import COLUMNS, MANIFEST_FILE, read_manifest
from ifas.core.records import UNREADABLE_FILE, StepResult
from ifas.data.pack import pack
from ifas.data.registry import Registry
from ifas.steps.execute import execute
from tests import toy_dataset

BAD = ("office/live/train00/train00_office_live.png", "kiosk/print/test00/test00_kiosk_print.png")


def damaged_registry(root: Path) -> Registry:
    """The drawn dataset with two pictures whose compressed data are overwritten in one place."""
    raw = toy_dataset.make(root / "raw")
    for source in BAD:
        data = bytearray((raw / source).read_bytes())
        data[300:500] = bytes(200)
        (raw / source).write_bytes(data)
    report = pack("folder", raw, root / "packed", name="toy")
    assert report.refused == ()
    registry = Registry.init(root / "registry")
    registry.publish(root / "packed")
    return registry


def with_bad_rows(captions: Path, dataset: Path) -> None:
    """Puts the rows that captioning left out back, as a captioner that does not decode leaves them."""
    captioned, packed = read_manifest(captions, captioned=True), read_manifest(dataset)
    assert not set(captioned["source"]) & set(BAD), "captioning survives what it can't decode"
    lost = packed[packed["source"].isin(BAD)]
    others = captioned.set_index("spoof_type").loc[lost["spoof_type"]].groupby(level=0, sort=False).first()
    added = others.reset_index()[captioned.columns]
    for column in COLUMNS:
        added[column.name] = lost[column.name].to_numpy()
    (captions / MANIFEST_FILE).unlink()
    pd.concat([captioned, added], ignore_index=True).to_parquet(captions / MANIFEST_FILE, index=False)


def without_faces(captions: Path) -> None:
    """Says of three training images that their face can't be judged, as captioning does with a finder."""
    rows = read_manifest(captions, captioned=True).astype({"face_refused": object})
    chosen = rows.index[(rows["split"] == "train") & ~rows["source"].isin(BAD)][::9][:3]
    rows.loc[chosen, "face_refused"] = ["no_face", "no_face", "blurred"]
    (captions / MANIFEST_FILE).unlink()
    rows.to_parquet(captions / MANIFEST_FILE, index=False)


@pytest.mark.slow
def test_damaged_pictures_are_found_listed_and_left_out(tmp_path: Path) -> None:
    registry = damaged_registry(tmp_path)
    config = load("tiny", [f"ingest.registry={registry.path}", "ingest.dataset=toy", "validation.max_unreadable=0.05"])
    made: dict[str, Path] = {"lineage": tmp_path / "lineage"}

    def step(name: str, inputs: tuple[str, ...], output: str, config: RunConfig = config) -> StepResult:
        given = {key: made[key] for key in (*inputs, "lineage") if made[key].exists()}
        outputs = {output: tmp_path / f"{name}-{output}", "lineage": tmp_path / f"{name}-lineage"}
        result = execute(name, config, run_id="r", inputs=given, outputs=outputs, use_cache=False)
        made.update(outputs)
        return result

    step("ingest", (), "dataset")
    step("caption", ("dataset",), "captions")
    with_bad_rows(made["captions"], made["dataset"])
    without_faces(made["captions"])

    with pytest.raises(ValidationFailed, match=r"2 of 120 images can't be decoded"):
        step("validate", ("dataset", "captions"), "validation", load("tiny", ["validation.max_unreadable=0.01"]))
    assert not (tmp_path / "validate-validation").exists(), "nothing that a training could be started on"
    assert BAD[0] in (tmp_path / "validate-validation.failed" / "report.html").read_text()
    step("validate", ("dataset", "captions"), "validation")
    assert not (tmp_path / "validate-validation.failed").exists()
    listed = pd.read_parquet(made["validation"] / UNREADABLE_FILE).set_index("source")
    assert set(listed.index) == set(BAD)
    assert listed["reason"].str.contains("can't be decoded").all()
    (section,) = [s for s in read_json(made["validation"] / "results.json")["sections"] if s["id"] == "unreadable"]
    assert section["unreadable"] == 2
    assert section["flags"]

    step("train", ("dataset", "captions", "validation"), "model")
    facts = read_json(made["lineage"])["entries"][-1]["facts"]
    assert facts["unreadable"] == 1, "the other one is of the test split"
    assert facts["without_face"] == {"blurred": 1, "no_face": 2}
    assert facts["images"]["total"] == 44
    step("evaluate", ("dataset", "captions", "model"), "evaluation")
    predictions = pd.read_parquet(made["evaluation"] / "predictions.parquet").set_index("sample_id")
    assert predictions.loc[listed.loc[BAD[1], "sample_id"], "refused"]
