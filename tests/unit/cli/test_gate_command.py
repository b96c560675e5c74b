"""`ifas gate`: a decision in words, and another policy on the same candidates. The ledger's bytes stay as they are."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule

RULES = Policy(
    name="mine",
    rules=[
        Rule(id="people", metric="bpcer", slice="target", max=0.2, reason="b"),
        Rule(id="attacks", metric="apcer_max", slice="target", max=0.1, bound="interval", min_n=10, reason="b"),
    ],
)


def figures(errors: int) -> dict[str, Any]:
    def rate(wrong: int) -> dict[str, Any]:
        return {"value": wrong / 40, "interval": [0.0, wrong / 40 + 0.05], "errors": wrong, "n": 40}

    species = {"print.a4": rate(0), "mask.paper": rate(errors)}
    return {
        "data": {"synthetic": True},
        "slices": {
            "target": {
                "n_subjects": 12,
                "bpcer": rate(4),
                "apcer": species,
                "apcer_max": {**species["mask.paper"], "species": "mask.paper"},
            }
        },
    }


@pytest.fixture
def there(tmp_path: Path) -> tuple[Path, str, list[str]]:
    """The file of a ledger, the option that names it, and its candidates."""
    file = tmp_path / "ledger.db"
    ledger = Ledger(f"sqlite:///{file}")
    ids = [
        ledger.submit(
            product="ifas",
            run_id="r",
            evidence={"model": str(errors), "champion": ""},
            model_sha256=str(errors),
            dataset_revision="d",
            metrics=figures(errors),
            decision=decide(figures(errors), None, RULES),
            facts={"policy": RULES.model_dump(mode="json")},
        ).id
        for errors in (0, 8)
    ]
    ledger.close()
    return file, f"gate.ledger=sqlite:///{file}", ids


def test_explain_says_every_rule_failed_ones_first(ifas: Any, there: tuple[Path, str, list[str]]) -> None:
    _, ledger, (good, bad) = there
    done = ifas("gate", "--explain", bad, "-c", "tiny", "-s", ledger)
    assert done.code == 0, done.err
    said = done.out.splitlines()
    assert said[0] == f"candidate {bad} is refused: 1 of 2 rules of policy mine failed"
    assert "synthetic" in said[1]
    assert said[2] == "FAILED  attacks: apcer_max of target"
    assert said[3].strip() == (
        "value 0.2000, bound 0.2500 (interval of mask.paper), max 0.1, margin -0.1500, n 40 (at least 10), subjects 12"
    )
    assert said[5].strip() == (
        "flips it: the upper end of the interval of mask.paper would have to fall by 0.1500, from 0.2500 to 0.1"
    )
    assert "flips it: 5 more errors of 40 would fail it" in done.out

    tree = json.loads(ifas("gate", "--explain", good[:8], "--json", "-c", "tiny", "-s", ledger).out)
    assert (tree["candidate"], tree["state"], tree["passed"]) == (good, "pending", True)
    assert [rule["id"] for rule in tree["rules"]] == ["attacks", "people"], "the nearer to its limit first"
    assert tree["rules"][0]["flips"]
    assert tree["rules"][0]["number"] == pytest.approx(0.05)


def test_replay_shows_who_would_be_decided_otherwise(
    ifas: Any, there: tuple[Path, str, list[str]], tmp_path: Path
) -> None:
    _, ledger, (good, bad) = there
    tight = RULES.model_copy(update={"name": "tight", "rules": [RULES.rules[0].model_copy(update={"max": 0.05})]})
    policy = tmp_path / "tight.yaml"
    policy.write_text(json.dumps(tight.model_dump(mode="json", exclude_none=True)))
    words = ("gate", "--replay", str(policy), "-c", "tiny", "-s", ledger)
    done = ifas(*words)
    assert done.code == 0, done.err
    first, head, *rows, last = done.out.splitlines()
    assert first == "product ifas, 2 candidates under policy tight; nothing was written"
    assert head.split()[:4] == ["candidate", "made", "state", "then"]
    assert [row.split()[0] for row in rows] == [bad, good]
    assert [row.split()[2:5] for row in rows] == [["refused", "failed", "failed"], ["pending", "passed", "failed"]]
    assert rows[0].endswith("people (target)")
    assert last == "1 of 2 would be decided otherwise"

    tree = json.loads(ifas(*words, "--last", "1", "--product", "ifas", "--json").out)
    assert [one["candidate"] for one in tree["candidates"]] == [bad]
    assert tree["candidates"][0]["new"]["rules"][0]["id"] == "people"


@pytest.mark.parametrize(
    "words", [("--replay", "builtin:strict"), ("--replay", "builtin:demo", "--json"), ("--explain",)]
)
def test_the_ledger_is_only_read(ifas: Any, there: tuple[Path, str, list[str]], words: tuple[str, ...]) -> None:
    file, ledger, (good, _) = there

    def state() -> dict[str, str]:
        return {
            one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in file.parent.iterdir() if one.is_file()
        }

    before, touched = state(), file.stat().st_mtime_ns
    file.chmod(0o444)
    done = ifas("gate", *words, *([good] if words == ("--explain",) else []), "-c", "tiny", "-s", ledger)
    assert done.code == 0, done.err
    assert state() == before
    assert file.stat().st_mtime_ns == touched
