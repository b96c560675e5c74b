"""What packaging refuses, and that it leaves nothing half-written. The Bento itself is tested over HTTP in e2e."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from ifas.core.errors import DataError, GateError, IfasError, MachineError, NotApproved
from ifas.core.files import sha256_tree
from ifas.core.imaging import ImageLimits
from ifas.core.records import Lineage
from ifas.serving import package, stage
from ifas.serving.package import build_bento
from tests.unit.serving.bento_records import CANDIDATE, approval, lineage, metrics, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "model")


def build(model, out, **changes):
    figures = metrics()
    given = {"approval": approval(model), "metrics": figures, "lineage": lineage(figures), **changes}
    return build_bento(
        model, given["approval"], given["metrics"], given["lineage"], name="ifas", limits=ImageLimits(), out=out
    )


@pytest.mark.parametrize("state", ["pending", "rejected", "refused", "expired", "", "APPROVED"])
def test_any_other_state_is_refused_by_name(model, tmp_path, state):
    with pytest.raises(NotApproved) as caught:
        build(model, tmp_path / "out", approval=approval(model, state=state))
    assert CANDIDATE in caught.value.what
    assert f"is {state};" in caught.value.what
    assert "ifas approve" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_pending_says_the_command(model, tmp_path):
    with pytest.raises(NotApproved) as caught:
        build(model, tmp_path / "out", approval=approval(model, state="pending"))
    assert f"ifas approve {CANDIDATE} --reason" in caught.value.fix


def test_another_model_than_the_approved_one(model, tmp_path):
    other = tmp_path / "model"
    shutil.copytree(model, other)
    with (other / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(GateError, match="was approved with"):
        build(other, tmp_path / "out", approval=approval(model))
    assert not (tmp_path / "out").exists()


def test_an_approval_of_other_evidence_can_not_be_replayed(model, tmp_path):
    with pytest.raises(GateError, match="other evidence"):
        build(model, tmp_path / "out", approval=approval(model, evidence_sha256="f" * 64))


@pytest.mark.parametrize("edited", [("threshold", "value"), ("calibration", "bias"), ("calibration", "temperature")])
def test_other_metrics_than_the_evaluated_ones(model, tmp_path, edited):
    better = metrics()
    better[edited[0]][edited[1]] = 0.1
    with pytest.raises(GateError, match="metrics"):
        build(model, tmp_path / "out", metrics=better)


@pytest.mark.parametrize("key", ["candidate", "state", "model_sha256", "evidence_sha256", "product"])
def test_an_incomplete_approval(model, tmp_path, key):
    given = approval(model)
    del given[key]
    with pytest.raises(DataError, match=key):
        build(model, tmp_path / "out", approval=given)


def test_an_approval_by_nobody(model, tmp_path):
    with pytest.raises(DataError, match="who approved"):
        build(model, tmp_path / "out", approval=approval(model, actor=""))


def test_records_that_lack(model, tmp_path):
    with pytest.raises(DataError, match="step ingest"):
        build(model, tmp_path / "out", lineage=Lineage(run_id="r"))


@pytest.mark.parametrize("damage", [{"temperature": -1.0}, {"temperature": None}, {"bias": float("inf")}])
def test_a_damaged_calibration(model, tmp_path, damage):
    figures = metrics()
    figures["calibration"] |= damage
    with pytest.raises(DataError, match="calibration"):
        build(model, tmp_path / "out", metrics=figures, lineage=lineage(figures))


def test_no_disk_space(model, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(package.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(MachineError, match="packaging needs"):
        build(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_build_leaves_nothing_and_shows_the_log(model, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "SERVICE", "ifas.serving.service:NoSuchClass")
    with pytest.raises(IfasError, match="NoSuchClass"):
        build(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_bento_that_stands_stays_when_the_next_one_fails(model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "package.json").write_text("{}")
    with pytest.raises(NotApproved):
        build(model, tmp_path / "out", approval=approval(model, state="pending"))
    assert (tmp_path / "out" / "package.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("candidate", "version"),
    [("c-1", "c-1"), ("Run_7.B", "run_7.b"), ("a/b:c", "a-b-c"), ("  x ", "x")],
)
def test_tags(candidate, version):
    assert stage.tag_version(candidate) == version


def test_a_candidate_id_that_makes_no_tag():
    with pytest.raises(IfasError, match="no Bento tag"):
        stage.tag_version("///")


def test_the_model_is_untouched(model):
    assert sha256_tree(model) == approval(model)["model_sha256"]
