"""One whole chain as a newcomer would have it: a registry, a training on two ranks of Ray and DeepSpeed, a Bento that
answers over HTTP."""

from pathlib import Path

import pandas as pd
import pytest

from ifas.core.config import RunConfig
from ifas.core.files import read_json
from ifas.core.manifest import read_manifest
from ifas.data.shards import ShardImages
from ifas.serving.client import ask, serve
from ifas.steps.chain import run_chain
from ifas.steps.folder import gather


def test_from_a_registry_to_an_answering_bento(config: RunConfig, tmp_path: Path) -> None:
    two = config.train.model_copy(update={"workers": 2, "batch": 2, "zero_stage": 2})
    run = tmp_path / "runs" / "first"
    artifacts = run / "artifacts"
    run_chain(config.model_copy(update={"train": two}), "first", artifacts)
    lineage = gather(run, artifacts)
    lineage.verify()
    assert [entry.step for entry in lineage.entries] == [
        *("ingest", "caption", "validate", "train", "evaluate", "gate", "approve", "package")
    ]
    assert lineage.of("train").facts["workers"] == 2

    judged = pd.read_parquet(run / "predictions.parquet").set_index("sample_id")
    threshold = read_json(run / "metrics.json")["threshold"]["value"]
    rows = read_manifest(artifacts / "ingest" / "dataset")
    asked = rows[rows["sample_id"].isin(judged.index)].groupby("label").head(2)
    assert set(asked["label"]) == {"live", "spoof"}
    images = ShardImages(artifacts / "ingest" / "dataset")
    with serve(run / "bento") as url:
        for row in asked.itertuples():
            answer = ask(url, images.read(row.shard, row.row))
            score = judged.loc[row.sample_id, "score"]
            assert answer["score"] == pytest.approx(score, abs=1e-5)
            assert answer["threshold"] == pytest.approx(threshold, abs=1e-6)
            assert answer["verdict"] == ("live" if answer["score"] >= threshold else "spoof")
            assert answer["candidate"] == lineage.of("gate").facts["candidate"]
