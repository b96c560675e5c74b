"""A candidate of a pod that is gone, packaged on a machine that has nothing but the ledger and the store."""

from __future__ import annotations

import shutil
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import pytest

from ifas.core import storage
from ifas.core.config import load
from ifas.core.errors import DataError
from ifas.core.files import read_json
from ifas.data.registry import Registry
from ifas.promotion.ledger import Ledger
from ifas.serving.client import serve
from ifas.steps.chain import run_chain
from ifas.steps.entry import run_component
from ifas.steps.release import package_candidate
from ifas.trigger.events import CandidateApproved
from tests.servers import Endpoint
from tests.servers_events import KEY, receiver

pytestmark = pytest.mark.slow


@dataclass
class Artifact:
    """As KFP hands it to a component: on the pod's disk, and kept in the store when the pod ends."""

    uri: str
    path: str

    def keep(self) -> None:
        storage.store(Path(self.path), self.uri)


def test_a_model_is_packaged_where_no_pod_left_anything(
    registry: Registry, s3: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, ledger = tmp_path / "pod", f"sqlite:///{tmp_path / 'ledger.db'}"
    of_this_machine = f"gate.ledger=sqlite:///{tmp_path / 'first.db'}"
    settings = [f"ingest.registry={registry.path}", "ingest.dataset=toy", "approve.by_policy=false"]
    config = load("tiny", [*settings, f"gate.ledger={ledger}"])
    run_chain(load("tiny", [*settings, of_this_machine]), "cluster-run", pod)  # its candidate has this machine's paths

    def at(step: str, name: str) -> Artifact:
        return Artifact(f"minio://{s3.bucket}/root/{step}/{name}", str(pod / step / name))

    inputs = {
        "dataset": at("ingest", "dataset"),
        "captions": at("caption", "captions"),
        "model": at("train", "model"),
        "evaluation": at("evaluate", "evaluation"),
        "lineage": at("evaluate", "lineage"),
    }
    for one in inputs.values():
        storage.store(Path(one.path), one.uri.replace("minio://", "s3://"))
    shutil.rmtree(pod / "gate")
    outputs = {name: at("gate", name) for name in ("candidate", "lineage")}
    with receiver() as hook:
        monkeypatch.setenv("IFAS_EVENTS_URL", hook.url)
        monkeypatch.setenv("IFAS_EVENTS_SECRET", f"whsec_{b64encode(KEY).decode()}")
        run_component("gate", config.model_dump_json(), "cluster-run", inputs=inputs, outputs=outputs)
        monkeypatch.delenv("IFAS_EVENTS_URL")
    ((_, told),) = hook.seen
    for one in outputs.values():
        storage.store(Path(one.path), one.uri.replace("minio://", "s3://"))
    candidate = read_json(pod / "gate" / "candidate")["candidate"]
    # What a later approval's event has as well: all that the pipeline `release` needs.
    assert told["type"] == "dev.ifas.candidate.pending"
    checked = CandidateApproved.model_validate(told["data"])
    assert (checked.candidate, checked.record) == (candidate, f"s3://{s3.bucket}/root/gate/candidate")
    assert checked.model == f"s3://{s3.bucket}/root/train/model"
    shutil.rmtree(pod)

    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "another machine"))
    opened = Ledger(ledger)
    assert all(place.startswith("s3://") for place in opened.get(candidate).facts["artifacts"].values())
    opened.approve(candidate, actor="ann", reason="good")
    package_candidate(config, candidate, tmp_path / "built")
    with serve(tmp_path / "built") as url:
        assert url.startswith("http")

    # Somebody puts another model where the run left its own.
    (tmp_path / "other").write_text("{}")
    storage.store(tmp_path / "other", f"s3://{s3.bucket}/root/train/model/config.json")
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "a third machine"))
    with pytest.raises(DataError, match="is not what it should be"):
        package_candidate(config, candidate, tmp_path / "again")
    opened.close()
