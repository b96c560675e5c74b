"""What packaging refuses, and that it leaves nothing half-written. The Bento itself is tested over HTTP in e2e."""

from __future__ import annotations

from collections import namedtuple

import pytest

from ifas.core.errors import DataError, IfasError, MachineError
from ifas.core.files import sha256_tree
from ifas.core.imaging import ImageLimits
from ifas.core.records import Lineage
from ifas.serving import package, stage
from ifas.serving.package import build_bento
from tests.unit.serving.bento_records import approval, lineage, metrics, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "model")


def build(model, out, **changes):
    figures = metrics()
    given = {"approval": approval(model), "metrics": figures, "lineage": lineage(figures), **changes}
    return build_bento(
        model, given["approval"], given["metrics"], given["lineage"], name="ifas", limits=ImageLimits(), out=out
    )


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
    with pytest.raises(DataError, match="step ingest"):
        build(model, tmp_path / "out", lineage=Lineage(run_id="r"))
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
