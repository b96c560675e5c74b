"""The rules on a valid manifest with one thing broken at a time, through Great Expectations."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import captioned
import numpy as np
import pandas as pd
import pytest

from ifas.core.config import ValidateConfig
from ifas.core.errors import ConfigError
from ifas.validation import suite
from ifas.validation.rules import rules
from ifas.validation.suite import check, conclude, validate

Mutation = Callable[[pd.DataFrame], pd.DataFrame | None]


def put(column: str, value: object, *rows: int) -> Mutation:
    def change(frame: pd.DataFrame) -> None:
        frame[column] = frame[column].astype(object)
        for row in rows or (0,):
            frame.at[row, column] = value
        frame[column] = frame[column].infer_objects()

    return change


def flipped(phash: str, *bits: int) -> str:
    """Bit 0 is the last of the finer ones, 512 the last of the 64 that find candidates."""
    code = int(phash, 16)
    for bit in bits:
        code ^= 1 << bit
    return f"{code:0144x}"


def duplicate(row: int, of: int, *bits: int) -> Mutation:
    return lambda frame: put("phash", flipped(frame.at[of, "phash"], *bits), row)(frame)


def both(*changes: Mutation) -> Mutation:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        for one in changes:
            result = one(frame)
            frame = frame if result is None else result
        return frame

    return change


def status(frame: pd.DataFrame, config: ValidateConfig | None = None) -> dict[str, str]:
    found = check(frame, rules(config or ValidateConfig()), ("office", "street"))
    return {one.rule.id: one.status for one in found if one.status != "passed"}


# Rows 0 to 17 are train, 18 to 29 dev, 30 to 41 test; in each triple live, print, replay.
MUTATIONS: list[tuple[str, str, Mutation]] = [
    ("sample-id-format", "not hex", put("sample_id", "x" * 64)),
    ("sample-id-format", "short", put("sample_id", "ab12")),
    ("sample-id-unique", "twice", lambda f: put("sample_id", f.at[1, "sample_id"], 0)(f)),
    ("values-present", "no device source", put("source", None)),
    ("values-present", "no split", put("split", None)),
    ("column-types", "numbers as text", put("caption_source", 3)),
    ("image-size", "no width", put("width", 0, 5)),
    ("face-box-inside", "leaves on the right", put("face_box", [30.0, 10.0, 40.0, 40.0])),
    ("face-box-inside", "leaves above", put("face_box", [1.0, -4.0, 40.0, 40.0])),
    ("face-box-inside", "no height", put("face_box", [1.0, 1.0, 40.0, 0.0])),
    ("face-box-inside", "three numbers", put("face_box", [1.0, 1.0, 40.0])),
    ("frame-index", "negative", put("frame_index", -1)),
    ("row-index", "negative", put("row", -1)),
    ("place-unique", "same place", put("row", 7, 8)),
    ("phash-format", "short", put("phash", "abc")),
    ("split-known", "validation", lambda f: f.replace({"split": {"test": "validation"}})),
    ("label-known", "genuine", put("label", "genuine")),
    ("species-known", "hologram", put("pai_species", "hologram")),
    ("spoof-type-known", "hologram", put("spoof_type", "hologram", 31)),
    ("label-agrees", "live label on a print", put("label", "live", 1)),
    ("species-agrees", "phone as print", put("pai_species", "replay.phone", 1)),
    ("licence-present", "blank", put("licence", "  ")),
    ("licence-present", "null", put("licence", None)),
    ("subject-in-one-split", "train person in test", put("subject_id", "train0", 30)),
    ("media-in-one-split", "train video in dev", put("media_id", "train0-office-live", 18)),
    ("duplicates-in-one-split", "same hash", duplicate(40, 1)),
    ("duplicates-in-one-split", "1 bit", duplicate(40, 1, 0)),
    ("duplicates-in-one-split", "2 bits", duplicate(20, 35, 512 + 17, 512 + 63)),
    ("splits-present", "no dev", lambda f: f[f["split"] != "dev"].copy()),
    (
        "classes-populated",
        "one print in dev",
        lambda f: f.drop(f[(f.split == "dev") & (f.spoof_type == "print")].index[1:]),
    ),
    ("classes-populated", "no live in test", lambda f: f[(f.split != "test") | (f.label != "live")].copy()),
    ("caption-present", "blank", put("caption", "\n ")),
    ("caption-present", "null", put("caption", None)),
    ("live-caption-clean", "a real face, no mask", put("caption", "A real face, no mask.")),
    ("attack-caption-medium", "prints called replay", put("caption", "A phone's screen.", *range(1, 42, 3))),
    ("domain-balance", "one street image", lambda f: f.assign(domain=["street"] * 2 + ["office"] * 40)),
    ("not-synthetic", "one rendered", put("synthetic", True, 2)),
]


#: A sample of the manifest as a sentence names it: which one, where.
SAMPLE = r"sample [0-9a-f]{12}, domain (office|street), split (train|dev|test), class (live|print|replay)"
#: What a user reads of each rule that failed: which case, which split, class, domain or sample, and what is wrong.
SAID = {
    "sample-id-format": r"sample_id is (x{64}|ab12) \(sample \w+, domain office, split train, class live\)",
    "sample-id-unique": rf"2 of 42 images .*other rows have it too \({SAMPLE}; {SAMPLE}\)",
    "values-present": r"column (source|split) has no value in 1 of 42 rows: sample [0-9a-f]{12}\.",
    "column-types": r"column caption_source holds mixed-integer instead of string\.",
    "image-size": rf"0 x 80 pixels \({SAMPLE}\)",
    "face-box-inside": rf"(in an image of 64 x 80|3 numbers instead of x, y, w, h) \({SAMPLE}\)",
    "frame-index": rf"frame_index is -1 \({SAMPLE}\)",
    "row-index": rf"row is -1 \({SAMPLE}\)",
    "place-unique": rf"several samples point to row 7 of shard-00000.parquet \({SAMPLE}; {SAMPLE}\)",
    "phash-format": rf"phash is abc \({SAMPLE}\)",
    "split-known": r"split is validation \(sample .*; and 9 more\. Expected: train, dev or test",
    "label-known": rf"label is genuine \({SAMPLE}\)\. Expected: live or spoof",
    "species-known": rf"pai_species is hologram \({SAMPLE}\)",
    "spoof-type-known": r"spoof_type is hologram \(sample [0-9a-f]{12}, domain office, split test, class hologram\)",
    "label-agrees": rf"label live with spoof type print \({SAMPLE}\)",
    "species-agrees": rf"species replay.phone with spoof type print \({SAMPLE}\)",
    "licence-present": rf"no licence \({SAMPLE}\)",
    "subject-in-one-split": rf"person train0 of toy is in test and train \({SAMPLE};.*; and 4 more\.",
    "media-in-one-split": rf"medium train0-office-live of toy is in dev and train \({SAMPLE}; {SAMPLE}\)",
    "duplicates-in-one-split": r"an image in (train|dev) (has the same hash as|differs in \d of 64 bits from) \w{64}",
    "splits-present": r"split dev of the source domains office, street has 0 images\.",
    "classes-populated": r"class (print in split dev has 1|live in split test has 0) of at least 2 images\.",
    "caption-present": rf"no caption \({SAMPLE}\)",
    "live-caption-clean": rf"the caption of a bona fide image names mask: A real face, no mask\. \({SAMPLE}\)",
    "attack-caption-medium": rf"it shows a print attack, but the caption names replay: .* \({SAMPLE}; .*11 more\.",
    "domain-balance": r"domain street has 2 images, while the largest has 40\.",
    "not-synthetic": rf"1 of 42 images \(2\.4%\): rendered, not photographed \({SAMPLE}\)\.",
}


@pytest.mark.parametrize(("rule", "case", "change"), MUTATIONS, ids=[f"{m[0]}: {m[1]}" for m in MUTATIONS])
def test_a_mutation_fails_its_rule(rule: str, case: str, change: Mutation) -> None:
    frame = captioned.manifest()
    changed = change(frame)
    findings = check(frame if changed is None else changed, rules(ValidateConfig()), ("office", "street"))
    found = {one.rule.id: one.status for one in findings if one.status != "passed"}
    # A live label on a print also makes its caption that of a bona fide picture, and so on: these follow.
    also = {"label-agrees": {"live-caption-clean"}, "attack-caption-medium": {"exposure"}}.get(rule, set())
    assert found.pop(rule) == "failed"
    assert set(found) <= also, case
    (broken,) = (one for one in findings if one.rule.id == rule)
    assert re.search(SAID[rule], broken.said, re.DOTALL), broken.said
    assert broken.said.endswith(f". Expected: {broken.rule.expected}")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(duplicate(1, 4, 3), id="near-duplicate within train"),
        pytest.param(duplicate(40, 1, 512 + 3, 512 + 5, 512 + 9), id="3 bits across splits"),
        pytest.param(duplicate(40, 1, 512 + 3, *range(61)), id="1 bit across splits, 61 finer bits"),
        pytest.param(put("subject_id", "train0", 6), id="person twice in train"),
        pytest.param(both(put("subject_id", "train0", 30), put("dataset", "other", 30)), id="same name elsewhere"),
        pytest.param(put("caption", "A newspaper reader, unmasked."), id="words that only hold a keyword"),
        pytest.param(put("caption", "A phone's screen.", 1), id="few wrong captions"),
        pytest.param(put("face_box", [24.0, 30.0, 40.2, 50.0]), id="box on the edge"),
        pytest.param(lambda f: f.sample(frac=1, random_state=1), id="rows in another order"),
        pytest.param(lambda f: f.convert_dtypes(), id="nullable dtypes"),
    ],
)
def test_what_is_allowed_passes(change: Mutation) -> None:
    frame = captioned.manifest()
    changed = change(frame)
    assert status(frame if changed is None else changed) == {}


def test_every_rule_has_a_mutation() -> None:
    elsewhere = {"not-empty", "columns-present", "exposure"}
    assert {rule.id for rule in rules(ValidateConfig())} == {m[0] for m in MUTATIONS} | elsewhere
    assert set(SAID) == {m[0] for m in MUTATIONS}


def test_valid_manifest_through_parquet(tmp_path: Path) -> None:
    captioned.manifest().to_parquet(tmp_path / "m.parquet")
    report = validate(
        pd.read_parquet(tmp_path / "m.parquet"), ValidateConfig(), out=tmp_path / "out", source_domains=["office"]
    )
    assert report.passed
    assert report.blocking_failures == ()
    assert report.summary == "30 rules: 30 passed on 42 images"
    assert report.facts["images"] == 42
    assert set(report.facts["status"].values()) == {"passed"}
    json.dumps(report.facts)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "results.json"]


def test_failures_name_samples_and_values(tmp_path: Path) -> None:
    frame = captioned.manifest()
    put("subject_id", "train0", 30)(frame)
    report = validate(frame, ValidateConfig(), out=tmp_path)
    assert not report.passed
    assert len(report.blocking_failures) == 1
    assert report.blocking_failures[0].startswith("No person is in two splits: not so for 7 of 42 images")
    rule = next(r for r in json.loads((tmp_path / "results.json").read_text())["rules"] if r["status"] == "failed")
    assert rule["id"] == "subject-in-one-split"
    assert {e["id"] for e in rule["examples"]} == set(frame["sample_id"][[*range(6), 30]])
    assert rule["examples"][0]["value"] == "person train0 of toy is in test and train"
    assert rule["examples"][0]["where"] == "domain office, split train, class live"
    assert "domain office, split train, class live" in (tmp_path / "report.html").read_text()


def test_at_most_ten_examples(tmp_path: Path) -> None:
    validate(captioned.manifest().assign(licence=""), ValidateConfig(), out=tmp_path)
    entries = {r["id"]: r for r in json.loads((tmp_path / "results.json").read_text())["rules"]}
    assert entries["licence-present"]["observed"] == "42 of 42 images (100.0%)"
    assert len(entries["licence-present"]["examples"]) == 10


def test_target_domains_train_rows_do_not_count() -> None:
    frame = captioned.manifest()
    found = check(frame[(frame.domain == "street") | (frame.split == "test")], rules(ValidateConfig()), ["office"])
    assert {one.rule.id for one in found if one.status == "failed"} >= {"splits-present"}


def test_exposure_notes_a_medium_no_training_caption_names() -> None:
    frame = captioned.manifest()
    put("caption", "A grid of lines.", *range(2, 18, 3))(frame)
    found = {one.rule.id: one for one in check(frame, rules(ValidateConfig()), ("office", "street"))}
    assert {name for name, one in found.items() if one.status != "passed"} == {"exposure", "attack-caption-medium"}
    assert "0 training captions name replay. Expected: 1 caption or more" in found["exposure"].said


def test_min_per_class_and_max_hamming_are_used() -> None:
    frame = captioned.manifest()
    duplicate(40, 1, 3, 5, 9)(frame)
    assert set(status(frame, ValidateConfig(max_hamming=3))) == {"duplicates-in-one-split"}
    assert set(status(captioned.manifest(), ValidateConfig(min_per_class=5))) == {"classes-populated"}


def test_no_attacks_at_all_is_no_crash() -> None:
    frame = captioned.manifest()
    assert status(frame[frame.label == "live"]) == {}


def test_advisory_demotes_and_unknown_ids_are_listed(tmp_path: Path) -> None:
    frame = captioned.manifest().assign(licence="")
    report = validate(frame, ValidateConfig(advisory=("licence-present",)), out=tmp_path)
    assert report.passed
    assert report.summary == "30 rules: 29 passed, 1 advisory note on 42 images"
    assert "a blocking rule that this run only reports" in (tmp_path / "report.html").read_text()
    with pytest.raises(ConfigError, match="no-such-rule") as caught:
        validate(frame, ValidateConfig(advisory=("licence-present", "no-such-rule")), out=tmp_path / "other")
    assert "subject-in-one-split" in caught.value.fix
    assert not (tmp_path / "other").exists()


def test_missing_column_is_reported_with_what_depends_on_it(tmp_path: Path) -> None:
    report = validate(captioned.manifest().drop(columns=["phash", "caption"]), ValidateConfig(), out=tmp_path)
    assert not report.passed
    state = report.facts["status"]
    assert {k for k, v in state.items() if v == "failed"} == {"columns-present"}
    assert {k for k, v in state.items() if v == "not checked"} == {
        "phash-format",
        "duplicates-in-one-split",
        "caption-present",
        "live-caption-clean",
        "attack-caption-medium",
        "exposure",
    }
    entries = {r["id"]: r for r in json.loads((tmp_path / "results.json").read_text())["rules"]}
    assert [e["id"] for e in entries["columns-present"]["examples"]] == ["caption", "phash"]
    assert "column phash is missing (perceptual hash, 144 hex digits)" in report.blocking_failures[0]
    assert entries["phash-format"]["observed"] == "not checked: no column phash"


def test_demoting_the_schema_does_not_let_unchecked_rules_pass() -> None:
    config = ValidateConfig(advisory=("columns-present",))
    frame = captioned.manifest().drop(columns=["phash"])
    assert not conclude(check(frame, rules(config)), frame).passed


def test_missing_sample_id_falls_back_to_row_numbers() -> None:
    frame = captioned.manifest().drop(columns=["sample_id"]).assign(licence="")
    one = next(f for f in check(frame, rules(ValidateConfig())) if f.rule.id == "licence-present")
    assert one.examples[0].id == "row 0"


@pytest.mark.parametrize("frame", [captioned.manifest().iloc[:0], pd.DataFrame()], ids=["no rows", "no columns"])
def test_empty_manifest_fails_clearly(frame: pd.DataFrame, tmp_path: Path) -> None:
    report = validate(frame, ValidateConfig(), out=tmp_path)
    assert not report.passed
    assert report.blocking_failures[0] == (
        "The manifest holds images: not so for the manifest: 0 images. Expected: at least 1 image"
    )
    assert report.facts["status"]["not-empty"] == "failed"


def test_wrong_type_is_not_a_broken_check() -> None:
    frame = captioned.manifest()
    frame["width"] = "wide"
    found = status(frame)
    assert found == {"column-types": "failed", "image-size": "not checked", "face-box-inside": "not checked"}


def test_broken_checks_are_told_from_bad_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(rows: pd.DataFrame) -> pd.Series:
        raise RuntimeError("boom")

    every = rules(ValidateConfig())
    # Great Expectations can't compare text with a number, and reports that as a failure.
    in_gx = replace(next(r for r in every if r.id == "row-index"), id="in-gx", values="shard")
    in_ours = replace(next(r for r in every if r.id == "image-size"), id="in-ours", values=crash)
    monkeypatch.setattr(suite, "rules", lambda config: (*every, in_gx, in_ours))
    report = validate(captioned.manifest(), ValidateConfig(), out=tmp_path)
    assert not report.passed
    state = report.facts["status"]
    assert state.pop("in-gx") == state.pop("in-ours") == "broken"
    assert set(state.values()) == {"passed"}
    assert all("the check itself is broken" in line for line in report.blocking_failures)
    assert "RuntimeError: boom" in report.blocking_failures[1]
    assert "BROKEN CHECK" in (tmp_path / "report.html").read_text()


def test_report_is_self_contained_and_escaped(tmp_path: Path) -> None:
    frame = captioned.manifest()
    put("caption", "<script>alert(1)</script> behind a mask", 0)(frame)
    put("licence", "", 4)(frame)
    put("synthetic", True, 1)(frame)
    validate(frame, ValidateConfig(), out=tmp_path, source_domains=["office", "<b>"])
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>" not in page
    assert not re.search(r"https?://|<link|<img|@import|url\(|\bsrc=", page)
    assert page.index("FAILED, blocks the run") < page.index("NOTE") < page.index("✓ passed")
    for finding in ("No caption of a bona fide image names an attack medium", frame.at[4, "sample_id"]):
        assert finding in page


def test_same_input_same_bytes(tmp_path: Path) -> None:
    frame = captioned.manifest().assign(licence="", synthetic=np.arange(42) % 2 == 0)
    for name in ("a", "b"):
        validate(frame, ValidateConfig(), out=tmp_path / name, source_domains=["office"])
    for file in ("results.json", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_input_is_left_as_it_was(tmp_path: Path) -> None:
    frame = captioned.manifest()
    validate(frame, ValidateConfig(), out=tmp_path)
    pd.testing.assert_frame_equal(frame, captioned.manifest())


def test_notes_name_samples_and_not_only_counts(tmp_path: Path) -> None:
    """What the run's summary, the model card and `ifas data import` print of an advisory rule."""
    report = validate(captioned.manifest().assign(synthetic=True), ValidateConfig(), out=tmp_path)
    note = report.facts["notes"]["not-synthetic"]
    assert note.startswith("not so for 42 of 42 images (100.0%): rendered, not photographed (sample ")
    assert "; and 39 more. Expected: no rendered image" in note
    assert "True" not in note


def test_different_faults_of_one_rule_are_each_named() -> None:
    frame = captioned.manifest()
    for row, name in enumerate(("hologram", "robot", "statue", "puppet")):
        put("label", name, row * 3)(frame)
    one = next(f for f in check(frame, rules(ValidateConfig())) if f.rule.id == "label-known")
    assert all(f"label is {name} (sample " in one.said for name in ("hologram", "robot", "statue"))
    assert "; and 1 more. Expected:" in one.said


def test_no_module_of_validation_imports_another_in_a_circle() -> None:
    """No circular imports, also not for types only or inside a function."""
    import ast
    from graphlib import TopologicalSorter

    import ifas.validation

    folder = Path(ifas.validation.__file__).parent
    graph: dict[str, set[str]] = {}
    for file in folder.glob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        direct = {str(node.module).split(".")[2] for node in nodes if str(node.module).startswith("ifas.validation.")}
        whole = {alias.name for node in nodes if node.module == "ifas.validation" for alias in node.names}
        graph[file.stem] = direct | whole
    assert len(graph) > 10
    list(TopologicalSorter(graph).static_order())
