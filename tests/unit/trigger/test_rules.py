"""The trigger's file: every fault is named before anything is served."""

import copy

import pytest
import yaml

from ifas.core.errors import ConfigError
from ifas.trigger.events import TYPES
from ifas.trigger.rules import load, settings
from tests.servers_trigger import APPROVED, DRIFT, FILE, RELEASED, REVISED, event


def write(path, change):
    tree = copy.deepcopy(FILE)
    change(tree)
    path.write_text(yaml.safe_dump(tree))
    return path


def test_fields_of_the_event_become_values_of_the_configuration(tmp_path):
    trigger = load(write(tmp_path / "t.yaml", lambda tree: tree["rules"]["new-data"].update(set={"train.steps": 7})))
    name, rule = trigger.rule_of(REVISED)
    config, arguments = settings(rule, TYPES[REVISED].model_validate(event("1", revision="123")["data"]))
    assert name == "new-data"
    # 123 stays a text: it is not read as YAML.
    assert (config.ingest.dataset, config.ingest.revision, config.train.steps) == ("faces", "123", 7)
    assert arguments == {}
    assert trigger.rule_of(DRIFT) is None
    assert trigger.rule_of(RELEASED)[0] == "new-data"
    assert trigger.rule_of(APPROVED)[1].run == "release"


def test_a_configuration_beside_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("profile: tiny\ntrain: {steps: 3}\n")
    trigger = load(write(tmp_path / "t.yaml", lambda tree: tree["rules"]["new-data"].update(config="mine.yaml")))
    _, rule = trigger.rule_of(REVISED)
    assert settings(rule, TYPES[REVISED].model_validate(event("1")["data"]))[0].train.steps == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["rules"]["new-data"].update(events=["dev.ifas.x"]), "dev.ifas.x is not known"),
        (lambda t: t["senders"]["registry"].update(types=["dev.ifas.x"]), "dev.ifas.x is not known"),
        (lambda t: t["rules"]["new-data"].update(parameters={"ingest.revision": "tag"}), "has no field tag"),
        (lambda t: t["rules"]["new-data"].update(parameters={"ingest.revizion": "revision"}), "revizion"),
        (lambda t: t["rules"]["new-data"].update(parameters={"train.steps": "revision"}), "train.steps"),
        (lambda t: t["rules"]["new-data"].update(set={"train.stepz": 1}), "train.stepz"),
        (lambda t: t["rules"]["new-data"].update(config="huge"), "huge"),
        (lambda t: t["rules"]["new-data"].update(run="reload"), "rules.new-data.run"),
        (lambda t: t["rules"]["approved"].update(arguments={}), "release takes candidate"),
        (lambda t: t["rules"]["approved"].update(events=[APPROVED, REVISED]), "has no field record|has two rules"),
        (lambda t: t["rules"]["approved"].update(events=["dev.ifas.candidate.revoked"]), "may lack the field"),
        (lambda t: t["rules"]["approved"].update(parameters={"gate.product": "product"}), "may lack the field product"),
        (lambda t: t["rules"].update(more=t["rules"]["approved"]), "has two rules"),
        (lambda t: t.update(rules={}), "rules"),
        (lambda t: t.update(extra=1), "extra"),
        (lambda t: t.update(keep_days=6), "keep_days"),
        (
            lambda t: t.update(keep_days=7) or t["rules"]["new-data"].update(cooldown_hours=169),
            "shorter than a cool-down",
        ),
        (lambda t: t.update(clients={"per_second": 0}), "clients.per_second"),
        (lambda t: t["senders"]["registry"].update(secret="whsec_abc"), "secret"),
    ],
)
def test_a_wrong_file(tmp_path, change, said):
    with pytest.raises(ConfigError, match=said) as raised:
        load(write(tmp_path / "wrong.yaml", change))
    assert "wrong.yaml" in str(raised.value)


@pytest.mark.parametrize("text", ["", "[", "a: !!python/object:os.system {}", "\x00"])
def test_what_is_no_file_of_ours(tmp_path, text):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"wrong\.yaml"):
        load(tmp_path / "wrong.yaml")
    with pytest.raises(ConfigError, match="nothing"):
        load(tmp_path / "nothing.yaml")
