"""New spoof data is quarantined until checked: batches, their records, caps, release by a second person."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifas.core.errors import ConfigError, DataError, RegistryError
from ifas.core.files import sha256_file
from ifas.core.manifest import read_manifest
from ifas.core.records import Lineage, LineageEntry
from ifas.data.dataset import verify
from ifas.data.pack import pack
from ifas.data.quarantine import Added, BatchRefused, add, records, release
from ifas.data.quarantine.delivery import same_picture_other_label
from ifas.data.registry import Fetched, Registry
from ifas.data.revisions import read_record
from ifas.data.shards import ShardImages
from ifas.steps.releasing import release_batch
from tests.unit.data.pictures import folder_dataset, picture, put


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base")
    pack("folder", folder_dataset(root / "raw"), root / "packed", name="faces", licence="CC0-1.0")
    Registry.init(root / "registry").publish(root / "packed")
    return root


def copied(root: Path, tmp_path: Path) -> Registry:
    for name in ("registry", "registry-remote"):
        shutil.copytree(root / name, tmp_path / name, symlinks=True)
    return Registry.init(tmp_path / "registry", str(tmp_path / "registry-remote"))


@pytest.fixture
def registry(published: Path, tmp_path: Path) -> Registry:
    """The dataset, and no batch."""
    return copied(published, tmp_path)


@pytest.fixture(scope="module")
def with_batches(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `published`, with batch red-team.001 of the delivery `new` and canary set red-team.002 of `canary`."""
    root = tmp_path_factory.mktemp("batches")
    there = copied(published, root)
    added(there, delivery(root / "new"), max_rows=8)
    added(there, delivery(root / "canary", seed=700), canary=True, max_rows=8)
    return root


@pytest.fixture
def batches(with_batches: Path, tmp_path: Path) -> Registry:
    """A registry of one's own with a quarantined batch and a canary set."""
    return copied(with_batches, tmp_path)


def delivery(root: Path, seed: int = 500, subjects: int = 3, images: int = 2) -> Path:
    for s in range(subjects):
        for n in range(images):
            put(root / f"p{s}" / f"{n}.jpg", picture(seed * 1000 + s * 10 + n))
    return root


def added(registry: Registry, root: Path, **changes: object) -> Added:
    wanted = {"source": "red-team", "species": "replay.phone", "domain": "desk", "by": "ada", "licence": "CC0-1.0"}
    return add(registry, "faces", root, **{**wanted, **changes})  # type: ignore[arg-type]


def fetched(registry: Registry, out: Path) -> Path:
    registry.fetch("faces", "HEAD", out)
    verify(out)
    return out


def test_a_batch_enters_quarantined_and_leaves_the_rest_alone(registry: Registry, tmp_path: Path) -> None:
    before = read_manifest(fetched(registry, tmp_path / "before"))
    done = added(registry, delivery(tmp_path / "new"))
    assert (done.batch, done.rows, done.status) == ("red-team.001", 6, "quarantined")
    after = read_manifest(fetched(registry, tmp_path / "after"))
    old, new = after[after["batch"].isna()], after[after["batch"] == done.batch]
    assert old.reset_index(drop=True).astype(str).equals(before.astype(str))
    assert set(new["status"]) == {"quarantined"}
    assert set(new["pai_species"]) == {"replay.phone"}
    assert set(new["label"]) == {"spoof"}
    assert set(new["dataset"]) == {"faces"}
    assert all(s.startswith("red-team.001/p") for s in new["subject_id"])
    assert set(new["source"]) == {f"red-team.001/p{s}/{n}.jpg" for s in range(3) for n in range(2)}
    images = ShardImages(tmp_path / "after")
    for row in new.itertuples():
        assert images.read(row.shard, row.row) == (tmp_path / "new" / row.source.split("/", 1)[1]).read_bytes()
    # Shards that were there are the very files that were there.
    for shard in sorted((tmp_path / "before" / "shards").iterdir()):
        assert sha256_file(shard) == sha256_file(tmp_path / "after" / "shards" / shard.name)
    record = records(registry, "faces")[done.batch]
    assert (record["added_by"], record["source"], record["rows"]) == ("ada", "red-team", 6)


@pytest.mark.slow
def test_the_same_delivery_again_adds_nothing(batches: Registry, tmp_path: Path) -> None:
    root = delivery(tmp_path / "new")
    with pytest.raises(DataError, match="in the dataset already"):
        added(batches, root)
    put(root / "p9" / "0.jpg", picture(77))
    again = added(batches, root)
    assert (again.batch, again.rows, len(again.duplicates)) == ("red-team.003", 1, 6)


def test_dry_run_adds_nothing(registry: Registry, tmp_path: Path) -> None:
    head = registry.resolve("faces")
    done = added(registry, delivery(tmp_path / "new"), dry_run=True)
    assert (done.rows, done.published) == (6, None)
    assert registry.resolve("faces") == head


def contradicting(root: Path) -> dict[str, str]:
    """Puts offending rows into a delivery; source -> what the refusal must say."""
    rows = [{"path": f"p{s}/{n}.jpg", "subject_id": f"p{s}"} for s in range(3) for n in range(2)]
    rows[0]["label"] = "live"
    rows[1]["pai_species"] = "print.a4"
    rows[2].pop("subject_id")
    rows[3]["face_box"] = [1, 2]  # type: ignore[assignment]
    unlisted = rows.pop(4)["path"]
    rows.append({"path": "p7/gone.jpg", "subject_id": "p7"})
    (root / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return {
        "p0/0.jpg": "label is 'live'",
        "p0/1.jpg": "pai_species is 'print.a4'",
        "p1/0.jpg": "no subject",
        "p1/1.jpg": "face_box",
        unlisted: "does not list it",
        "p7/gone.jpg": "not there",
    }


def test_every_offending_row_is_listed(registry: Registry, tmp_path: Path) -> None:
    root = delivery(tmp_path / "new")
    expected = contradicting(root)
    head = registry.resolve("faces")
    with pytest.raises(BatchRefused) as refused:
        added(registry, root)
    reasons = {row.source: row.reason for row in refused.value.rows}
    assert set(reasons) == set(expected)
    for source, words in expected.items():
        assert words in reasons[source]
        assert source in str(refused.value)
    assert registry.resolve("faces") == head


def test_unlabelled_images_are_refused(registry: Registry, tmp_path: Path) -> None:
    put(tmp_path / "new" / "loose.jpg", picture(900))
    with pytest.raises(BatchRefused, match=r"loose\.jpg: not labelled"):
        added(registry, tmp_path / "new")


def test_what_the_dataset_says_otherwise_is_refused(registry: Registry, tmp_path: Path) -> None:
    root = delivery(tmp_path / "new")
    live = picture(0)  # desk/live/s0/0.jpg of the dataset
    put(root / "p0" / "same.jpg", live)
    with pytest.raises(BatchRefused, match=r"p0/same\.jpg: the dataset holds the same bytes as live"):
        added(registry, root)
    # Other bytes, same picture: saved again.
    (root / "p0" / "same.jpg").write_bytes(live + b"trailing bytes after the end of the image")
    with pytest.raises(BatchRefused, match=r"looks the same as desk/live/s0/0\.jpg"):
        added(registry, root)


def test_two_people_who_look_alike_in_the_coarse_bits_are_not_the_same_picture() -> None:
    """As two real people do; only the finer bits tell them apart."""
    coarse, finer = "0" * 16, np.random.default_rng(0).bytes(64).hex()
    batch = pd.DataFrame({"phash": [coarse + finer], "source": ["new.jpg"], "label": ["spoof"]})

    def refused(finer: str) -> list[str]:
        row = {"phash": [f"{3:016x}" + finer, None], "source": ["old.jpg", "damaged.jpg"], "label": ["live", "live"]}
        return [one.source for one in same_picture_other_label(batch, pd.DataFrame(row))]

    assert refused(finer) == ["new.jpg"]
    assert refused(np.random.default_rng(1).bytes(64).hex()) == []


def test_one_bad_image_does_not_stop_a_batch(registry: Registry, tmp_path: Path) -> None:
    root = delivery(tmp_path / "new")
    put(root / "p0" / "bad.jpg", b"no image")
    done = added(registry, root)
    assert done.rows == 6
    assert [source for source, _ in done.refused] == ["red-team.001/p0/bad.jpg"]


def test_a_source_has_a_cap(batches: Registry, tmp_path: Path) -> None:
    # Six of eight rows are taken; canaries, which are not trained on, do not count: `with_batches` added six of them.
    with pytest.raises(DataError, match="source red-team holds 6 rows, 6 more pass its cap of 8"):
        added(batches, delivery(tmp_path / "two", seed=600), max_rows=8)
    # Another source has a cap of its own.
    assert added(batches, tmp_path / "two", source="lab", max_rows=8, dry_run=True).batch == "lab.001"
    assert records(batches, "faces")["red-team.002"]["status"] == "canary"


def evidence(registry: Registry, batch: str) -> dict[str, str]:
    return {"run": "r", "revision": "x", "rows_sha256": records(registry, "faces")[batch]["rows_sha256"]}


def test_release_needs_a_second_person_a_reason_and_evidence(batches: Registry, tmp_path: Path) -> None:
    registry, batch = batches, "red-team.001"
    good = evidence(registry, batch)
    for match, by, reason, shown in (
        ("added batch", "Ada", "looks right", good),
        ("needs a reason", "grace", " ", good),
        ("nobody is named", " ", "fine", good),
        ("other rows", "grace", "fine", {**good, "rows_sha256": "0" * 64}),
        ("other rows", "grace", "fine", {"run": "r"}),
    ):
        with pytest.raises(DataError, match=match):
            release(registry, "faces", batch, by=by, reason=reason, evidence=shown)
    with pytest.raises(ConfigError, match=r"red-team\.001"):
        release(registry, "faces", "nobody.001", by="grace", reason="fine", evidence=good)
    assert records(registry, "faces")[batch]["status"] == "quarantined"
    release(registry, "faces", batch, by="grace", reason="checked all 6", evidence=good)
    record = records(registry, "faces")[batch]
    assert (record["status"], record["released_by"], record["reason"]) == ("released", "grace", "checked all 6")
    assert record["evidence"] == good
    manifest = read_manifest(fetched(registry, tmp_path / "after"))
    assert set(manifest["status"]) == {"released", "canary"}
    with pytest.raises(DataError, match="was released by grace"):
        release(registry, "faces", batch, by="linus", reason="again", evidence=good)


def test_a_canary_is_never_released(batches: Registry) -> None:
    with pytest.raises(DataError, match="never trained on"):
        release(
            batches, "faces", "red-team.002", by="grace", reason="please", evidence=evidence(batches, "red-team.002")
        )


class Overtaken(Registry):
    """A registry where somebody publishes a new revision just after this one has fetched the newest."""

    def __init__(self, path: Path | str, other: Path) -> None:
        super().__init__(path)
        self.other = other

    def fetch(self, name: str, revision: str, out: Path, *, remote: str = "") -> Fetched:
        got = super().fetch(name, revision, out, remote=remote)
        Registry(self.path).publish(self.other)
        return got


@pytest.mark.slow
def test_what_others_publish_meanwhile_is_not_lost(batches: Registry, tmp_path: Path) -> None:
    other = tmp_path / "other"
    raw = folder_dataset(tmp_path / "raw", 3, subjects=1, domains=("desk",))
    pack("folder", raw, other, name="faces", licence="CC0-1.0")
    shown = evidence(batches, "red-team.001")
    with pytest.raises(RegistryError, match="a new revision since"):
        release(Overtaken(batches.path, other), "faces", "red-team.001", by="grace", reason="fine", evidence=shown)
    assert read_record(Path(batches.path), "HEAD", "faces")["rows"] == 6


def lineage(run: Path, registry: Registry, steps: tuple[str, ...], **facts: object) -> Path:
    """A run's lineage as the runner writes it, up to some step."""
    index = {"batches": records(registry, "faces")}
    chain = Lineage(run_id="run-1")
    for step in steps:
        own = {"dataset": "faces", "revision": registry.resolve("faces"), "index": index, **facts}
        chain = chain.append(
            LineageEntry(
                step=step,
                config="c",
                code="c",
                inputs={},
                outputs={},
                summary=f"{step} done",
                facts=own if step == "ingest" else {},
                image="local",
                started="2026-01-01T00:00:00",
                seconds=1,
            )
        )
    run.mkdir(exist_ok=True)
    (run / "lineage.json").write_text(chain.model_dump_json())
    return run


def test_release_rests_on_a_run_that_validated_the_batch(
    registry: Registry, with_batches: Path, tmp_path: Path
) -> None:
    run = lineage(tmp_path / "early", registry, ("ingest", "caption", "validate"))
    registry, batch = copied(with_batches, tmp_path / "late"), "red-team.001"

    def ask(folder: Path) -> None:
        release_batch(registry, "faces", batch, run=folder, by="grace", reason="fine")

    with pytest.raises(DataError, match="has not seen batch"):
        ask(run)
    with pytest.raises(DataError, match="did not pass validation"):
        ask(lineage(tmp_path / "failed", registry, ("ingest", "caption")))
    with pytest.raises(DataError, match="not about the dataset"):
        ask(lineage(tmp_path / "other", registry, ("ingest", "validate"), dataset="other"))
    with pytest.raises(DataError, match="can't be read"):
        ask(tmp_path / "nowhere")
    good = lineage(tmp_path / "good", registry, ("ingest", "caption", "validate"))
    text = (good / "lineage.json").read_text()
    (good / "lineage.json").write_text(text.replace("validate done", "validate fine"))
    with pytest.raises(DataError, match="altered"):
        ask(good)
    (good / "lineage.json").write_text(text)
    ask(good)
    assert records(registry, "faces")[batch]["evidence"]["run"] == "run-1"


@pytest.mark.slow
def test_two_at_once_both_get_in(registry: Registry, tmp_path: Path) -> None:
    roots = [delivery(tmp_path / f"new{n}", seed=800 + n) for n in range(2)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda root: added(registry, root), roots))
    assert {one.batch for one in done} == {"red-team.001", "red-team.002"}
    manifest = read_manifest(fetched(registry, tmp_path / "after"))
    assert manifest["batch"].value_counts().to_dict() == {"red-team.001": 6, "red-team.002": 6}


def test_errors_name_what_is_wrong(registry: Registry, tmp_path: Path) -> None:
    root = delivery(tmp_path / "new")
    with pytest.raises(DataError, match="not in the taxonomy"):
        added(registry, root, species="hologram")
    with pytest.raises(DataError, match="not usable"):
        added(registry, root, source="Red Team")
    with pytest.raises(DataError, match="holds no images"):
        added(registry, put(tmp_path / "empty" / "readme.txt", b"x").parent)
    (root / "samples.jsonl").write_text('{"path": "../../etc/passwd"}\n')
    with pytest.raises(DataError, match="line 1: no usable path"):
        added(registry, root)
    with pytest.raises(RegistryError, match="no dataset"):
        records(registry, "nothing")
