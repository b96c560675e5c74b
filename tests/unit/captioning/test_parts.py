"""Captions shard by shard: the same here and on Ray, again after kills, and with bad pictures among them."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifas.captioning.embedded import EmbeddedCaptioner
from ifas.captioning.parts import caption_shard, load, part_file, save, shards_of
from ifas.captioning.scf import run_scf
from ifas.core.config import CaptionConfig
from ifas.core.errors import CorruptShardError
from ifas.core.files import sha256_tree
from ifas.core.manifest import read_manifest
from ifas.data.pack import pack
from ifas.data.shards import ShardImages
from tests import toy_dataset

QUICK = CaptionConfig(imitate_steps=3, tune_steps=2)
CAPTION = """
import sys; from pathlib import Path
from ifas.captioning.scf import run_scf
import ifas.captioning.spoof_aware, cv2, PIL.PngImagePlugin, pandas, pyarrow.parquet
from ifas.core.config import CaptionConfig
from ifas.core.manifest import read_manifest
from ifas.data.shards import ShardImages
data, out, work = map(Path, sys.argv[1:])
print("go", flush=True)
run_scf(read_manifest(data), ShardImages(data), CaptionConfig(imitate_steps=3, tune_steps=2),
        source_domains=["office", "street"], out=out, work=work)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    pack("folder", toy_dataset.make(root / "raw"), root / "packed", name="toy", shard_bytes=150_000)
    assert len(list((root / "packed" / "shards").iterdir())) > 8
    return root / "packed"


def captioned(packed: Path, out: Path, config: CaptionConfig = QUICK, work: Path | None = None) -> str:
    run_scf(read_manifest(packed), ShardImages(packed), config, source_domains=["office", "street"], out=out, work=work)
    return sha256_tree(out)


ON_RAY = """
import os, sys; from pathlib import Path
from ifas.captioning.parts import shards_of
from ifas.captioning.ray_captions import ray_parts
from ifas.captioning.scf import run_scf
from ifas.core.config import CaptionConfig
from ifas.core.errors import IfasError
from ifas.core.manifest import read_manifest
from ifas.data.shards import ShardImages
what, data, out, work = sys.argv[1], *map(Path, sys.argv[2:])
config = CaptionConfig(imitate_steps=3, tune_steps=2, actors=2)
if what == "all":
    sys.stderr = sys.stdout  # notes as well
    run_scf(read_manifest(data), ShardImages(data), config, source_domains=["office", "street"], out=out, work=work)
else:
    shards = [rows for _, _, rows in shards_of(read_manifest(data))][:4]
    class Deadly:
        def __init__(self, data):
            self.images, self.deadly = ShardImages(data), shards[2][0].shard
        def read(self, shard, row):
            return os._exit(1) if shard == self.deadly else self.images.read(shard, row)

    try:
        list(ray_parts(shards, (Deadly if what == "deadly" else ShardImages)(data), config, work))
    except IfasError as error:
        print(error.what)
print("done")
"""


def on_ray(what: str, data: Path, out: Path, work: Path) -> str:
    """Runs a driver in a process of its own and returns what it printed.

    Ray ends its driver at once, without an exception, when it believes its node dead, as on a machine too busy to
    answer in time. A driver that was ended is started again; finished shards are not captioned again.
    """
    command = [sys.executable, "-c", ON_RAY, what, *map(str, (data, out, work))]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode == 0:
            return done.stdout
    raise AssertionError(done.stderr[-3000:])


@pytest.mark.slow
def test_ray_says_the_same(packed: Path, tmp_path: Path) -> None:
    here = captioned(packed, tmp_path / "here")
    said = on_ray("all", packed, tmp_path / "ray", tmp_path / "work")
    assert sha256_tree(tmp_path / "ray") == here
    assert not (tmp_path / "work" / "captions").exists()
    assert "(actors: 2, nodes: 1)" in said


@pytest.mark.slow
def test_a_shard_that_kills_its_actors_is_named_after_a_few_tries(packed: Path, tmp_path: Path) -> None:
    victim = shards_of(read_manifest(packed))[2][2][0].shard
    assert f"shard {victim} was begun 4 times" in on_ray("deadly", packed, tmp_path / "none", tmp_path / "parts")


@pytest.mark.slow
def test_ray_goes_on_behind_finished_shards_and_names_a_damaged_one(packed: Path, tmp_path: Path) -> None:
    shards = [rows for _, _, rows in shards_of(read_manifest(packed))][:4]
    folder = tmp_path / "parts"
    folder.mkdir()
    # The captions of two shards are here already; should they be made again, they would differ.
    done = caption_shard(shards[0], ShardImages(packed), EmbeddedCaptioner(), QUICK)
    save(dataclasses.replace(done, captions=done.captions[::-1]), part_file(folder, shards[0], QUICK))
    damaged = tmp_path / "damaged"
    subprocess.run(["cp", "-r", str(packed), str(damaged)], check=True)
    victim = damaged / "shards" / shards[3][0].shard
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1])
    assert shards[3][0].shard in on_ray("parts", damaged, tmp_path / "none", folder)
    victim.write_bytes(whole)
    assert on_ray("parts", damaged, tmp_path / "none", folder) == "done\n"
    for rows in shards:
        part = load(part_file(folder, rows, QUICK), len(rows))
        again = caption_shard(rows, ShardImages(packed), EmbeddedCaptioner(), QUICK)
        assert part is not None
        assert part.captions == (again.captions[::-1] if rows is shards[0] else again.captions)
        assert np.array_equal(part.features, again.features)


@pytest.mark.slow
def test_captioning_killed_six_times(packed: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    expected = captioned(packed, tmp_path / "quiet")
    seconds = time.monotonic() - began
    dice = random.Random(6)
    kills = 0
    while kills < 6:
        out, work = tmp_path / f"out{kills}", tmp_path / f"work{kills}"
        for attempt in range(4):
            child = subprocess.Popen(
                [sys.executable, "-c", CAPTION, *map(str, (packed, out, work))],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            assert child.stdout is not None
            assert child.stdout.readline() == "go\n", child.communicate()
            if attempt < 3 and kills < 6:
                time.sleep(dice.uniform(0, 0.8 * seconds))
                kills += child.poll() is None
                os.killpg(child.pid, signal.SIGKILL) if child.poll() is None else None
                child.communicate()
                assert not out.exists() or sha256_tree(out) == expected
                continue
            _, error = child.communicate(timeout=120)
            assert child.returncode == 0, error
            break
        assert sha256_tree(out) == expected
        rows = read_manifest(out, captioned=True)
        assert sorted(rows["sample_id"]) == sorted(read_manifest(packed)["sample_id"])


def test_shards_keep_the_places_of_their_rows() -> None:
    frame = pd.DataFrame(
        {"sample_id": list("abcd"), "shard": ["y", "x", "y", "x"], "row": [0, 1, 2, 3],
         "face_box": [None, [1, 2, 3, 4], float("nan"), np.array([1.0, 2.0])], "label": ["live", "spoof"] * 2}
    )  # fmt: skip
    found = shards_of(frame, samples=8)
    assert [(shard, places) for shard, places, _ in found] == [("y", [0, 2]), ("x", [1, 3])]
    assert [w.box for w in found[1][2]] == [(1.0, 2.0, 3.0, 4.0), None]
    assert [[w.draws for w in rows] for _, _, rows in found] == [[0, 0], [7, 7]]


def test_parts_come_back_as_they_were(packed: Path, tmp_path: Path) -> None:
    class Images:
        def __init__(self) -> None:
            self.real = ShardImages(packed)

        def read(self, shard: str, row: int) -> bytes:
            return b"no picture" if row == 1 else self.real.read(shard, row)

    _, _, rows = shards_of(read_manifest(packed), QUICK.samples)[0]
    part = caption_shard(rows, Images(), EmbeddedCaptioner(), QUICK)
    assert part.captions[1] is None
    assert "decoded" in part.why[1]
    assert [c is None for c in part.captions].count(True) == 1
    path = part_file(tmp_path, rows, QUICK)
    assert load(path, len(rows)) is None
    save(part, path)
    back = load(path, len(rows))
    assert back is not None
    assert (back.captions, back.seen, back.why) == (part.captions, part.seen, part.why)
    assert (back.drawn, back.scenes) == (part.drawn, part.scenes)
    assert {len(texts) for texts in part.drawn} == {0, QUICK.samples - 1}
    assert np.array_equal(back.features, part.features)
    assert load(path, len(rows) + 1) is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert load(path, len(rows)) is None
    # Other rows and other captioners have other files; the place of the work has not.
    assert part_file(tmp_path, rows[1:], QUICK) != path
    assert part_file(tmp_path, rows, QUICK.model_copy(update={"captioner": "transformers"})) != path
    assert part_file(tmp_path, rows, QUICK.model_copy(update={"actors": 2, "tune_steps": 9})) == path


def test_a_damaged_shard_is_not_one_bad_picture(packed: Path) -> None:
    class Damaged:
        def read(self, shard: str, row: int) -> bytes:
            raise CorruptShardError("shard is corrupt")

    _, _, rows = shards_of(read_manifest(packed))[0]
    with pytest.raises(CorruptShardError):
        caption_shard(rows, Damaged(), EmbeddedCaptioner(), QUICK)
