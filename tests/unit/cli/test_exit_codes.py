"""Exit codes: one table in the code, the same in the docs, and what a run gives that the gate refused."""

import json
import re
from pathlib import Path

import pytest

import ifas.core.errors as errors
from ifas.core.errors import EXIT_CODES, IfasError, ModelRefused

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"


def kinds(cls: type[IfasError] = IfasError) -> list[type[IfasError]]:
    return [cls, *(kind for below in cls.__subclasses__() for kind in kinds(below))]


def test_the_documented_table_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", DOCS.read_text(), re.MULTILINE)
    assert {int(code): text for code, text in rows} == EXIT_CODES


def test_every_kind_of_error_has_a_documented_code_and_every_code_a_kind() -> None:
    ours = [kind for kind in kinds() if kind.__module__ == errors.__name__]
    assert {kind.exit_code for kind in ours} | {0, 130} == set(EXIT_CODES)
    apart = {kind.__name__: kind.exit_code for kind in ours if IfasError in kind.__bases__}
    assert len(set(apart.values())) == len(apart), f"two kinds share a code: {apart}"


def test_readme_points_to_the_table() -> None:
    assert "docs/cli.md" in (DOCS.parents[1] / "README.md").read_text()


STRICT = {
    "name": "impossible",
    "rules": [
        {"id": "perfect", "metric": "auc", "slice": "target", "min": 1.0, "bound": "interval", "reason": "r"},
        {"id": "measured", "metric": "hter", "slice": "target", "max": 1.0, "reason": "r"},
        {"id": "no-champion", "metric": "hter", "slice": "target", "max_increase": 0.0, "reason": "r"},
    ],
}


@pytest.mark.slow
def test_a_run_tells_refused_waiting_and_approved_apart(ifas, config, tmp_path: Path) -> None:
    """One training; gate and approval differ. Refused is 8, waiting for a person is 0, rejected by one is 8."""
    settings, policy = tmp_path / "c.yaml", tmp_path / "policy.yaml"
    settings.write_text(config.model_dump_json())
    policy.write_text(json.dumps(STRICT))
    run = ("run", "-c", str(settings), "--runner", "process")

    done = ifas(*run, "-s", f"gate.policy={policy}")
    assert done.code == ModelRefused.exit_code == 8, done.err
    assert re.search(r"the gate refused candidate [0-9a-f]{12}, by [12] of 3 rules of policy impossible:", done.err)
    assert "no-champion: hter of target: value" in done.err
    assert "measured" not in done.err
    assert (tmp_path / "runs" / "latest" / "report.html").is_file()
    assert not (tmp_path / "runs" / "latest" / "bento").exists()

    printed = ifas(*run, "-s", f"gate.policy={policy}", "--json")
    assert printed.code == 8
    assert [step["step"] for step in json.loads(printed.out)["steps"]][-1] == "approve"

    waiting = ifas(*run, "-s", "approve.by_policy=false", "--json")
    assert waiting.code == 0, waiting.err
    steps = {step["step"]: step for step in json.loads(waiting.out)["steps"]}
    assert steps["train"]["reused"]
    assert "package" not in steps
    candidate = steps["gate"]["facts"]["candidate"]
    assert ifas("package", candidate, "-c", str(settings)).code == 6
    assert ifas("reject", candidate[:6], "--reason", "not today", "-c", str(settings)).code == 0

    rejected = ifas(*run, "-s", "approve.by_policy=true")
    assert rejected.code == 8, rejected.err
    assert "not today" in rejected.err
