"""A new spoof type arrives: quarantined, evaluated at once, released by a second person,
then trained on; canaries never.

The proof that nothing of a batch was trained on is that its shard can be deleted before training: a run that read one
image of it would fail.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ifas.core.errors import CorruptShardError, IfasError
from ifas.core.files import read_json, sha256_file
from ifas.core.manifest import SHARDS_DIR, read_manifest
from ifas.data.quarantine import add, records
from ifas.data.registry import Registry
from ifas.steps.chain import run_chain
from ifas.steps.execute import execute
from ifas.steps.folder import gather
from ifas.steps.releasing import release_batch
from tests import toy_dataset


def delivery(root: Path, seed: int, kind: str) -> Path:
    for subject in range(8):
        path = root / f"s{subject}" / "0.png"
        path.parent.mkdir(parents=True)
        rng = np.random.default_rng([seed, subject])
        cv2.imwrite(str(path), toy_dataset.draw(rng, kind, 1.0)[..., ::-1])
    return root


def train_without(config, made: Path, out: Path, *batches: str) -> Path:
    """Trains on a run's artifacts again, with every shard that holds one of the batches taken away."""
    dataset = made / "ingest" / "dataset"
    manifest = read_manifest(dataset)
    theirs = manifest["batch"].isin(batches)
    assert set(manifest.loc[theirs, "batch"]) == set(batches)
    shards = set(manifest.loc[theirs, "shard"])
    assert not shards & set(manifest.loc[~theirs, "shard"])
    kept = {shard: (dataset / SHARDS_DIR / shard).rename(out.with_suffix(f".{shard}")) for shard in shards}
    inputs = {
        "dataset": dataset,
        "captions": made / "caption" / "captions",
        "validation": made / "validate" / "validation",
        "lineage": made / "validate" / "lineage",
    }
    try:
        outputs = {"model": out / "model", "lineage": out / "lineage"}
        out.mkdir()
        execute("train", config, run_id="again", inputs=inputs, outputs=outputs, use_cache=False)
    finally:
        for shard, file in kept.items():
            file.rename(dataset / SHARDS_DIR / shard)
    return out / "model" / "model.safetensors"


@pytest.mark.slow
def test_a_new_spoof_type_arrives(tmp_path, monkeypatch):
    from ifas.core.config import load
    from ifas.data.pack import pack

    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "home"))
    pack("folder", toy_dataset.make(tmp_path / "raw"), tmp_path / "packed", name="toy")
    registry = Registry.init(tmp_path / "registry")
    registry.publish(tmp_path / "packed")
    about = {"domain": "office", "by": "ada", "licence": "CC0-1.0"}
    quarantined = add(
        registry, "toy", delivery(tmp_path / "a", 100, "replay"), source="field", species="replay.tablet", **about
    ).batch
    canary = add(
        registry,
        "toy",
        delivery(tmp_path / "b", 200, "print"),
        source="sentinel",
        species="print.a4",
        canary=True,
        **about,
    ).batch
    config = load(
        "tiny",
        [
            f"ingest.registry={registry.path}",
            "ingest.dataset=toy",
            f"gate.ledger=sqlite:///{tmp_path / 'ledger.db'}",
            "train.max_source_share=1",
        ],
    )
    first = tmp_path / "runs" / "first"
    run_chain(config, "first", first / "artifacts")
    gather(first, first / "artifacts")
    slices = read_json(first / "metrics.json")["slices"]
    for batch in (quarantined, canary):
        assert slices[f"batch:{batch}"]["n"] == 8  # the whole batch, whatever its splits
    without = train_without(config, first / "artifacts", tmp_path / "neither", quarantined, canary)
    assert sha256_file(without) == sha256_file(first / "artifacts" / "train" / "model" / "model.safetensors")

    release_batch(registry, "toy", quarantined, run=first, by="grace", reason="looked at all 8")
    assert records(registry, "toy")[quarantined]["evidence"]["run"] == "first"
    second = tmp_path / "runs" / "second"
    run_chain(config, "second", second / "artifacts")
    images = [
        read_json(run / "artifacts" / "train" / "lineage")["entries"][-1]["facts"]["images"] for run in (first, second)
    ]
    assert images[1]["replay"] > images[0]["replay"]
    assert images[1]["print"] == images[0]["print"]
    # Now the released batch is read in training, so it can't be missing; the canaries still can.
    train_without(config, second / "artifacts", tmp_path / "no-canary-2", canary)
    with pytest.raises(IfasError) as missing:
        train_without(config, second / "artifacts", tmp_path / "no-field-2", quarantined)
    assert isinstance(missing.value, CorruptShardError) or "shard" in str(missing.value)
