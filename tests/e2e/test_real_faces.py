"""The whole chain on real portraits, staged as subjects: ingest to a served Bento, then four real camera pictures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SHARED

SUBJECTS = 12
#: A folder in which the models of all portraits are trained, or were; the test below needs an hour for that.
TRAINED = os.environ.get("IFAS_PORTRAITS_WORK", "")


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(
    not TRAINED, reason="IFAS_PORTRAITS_WORK names no folder: three trainings on 400 portraits, an hour"
)
def test_photographs_and_unseen_portraits_are_judged_rightly():
    """Three seeds: four photographs from real cameras all right, 95 % of the portraits of other people accepted."""
    command = [sys.executable, "-m", "benchmarks.portraits", "--work", TRAINED, "--faces", str(SHARED / "portraits")]
    command += ["--ask", *map(str, sorted((SHARED / "samples").iterdir())), "--seeds", "3"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.shared
def test_chain_on_real_portraits(tmp_path, capsys):
    faces = tmp_path / "faces"
    faces.mkdir()
    for portrait in sorted((SHARED / "portraits").glob("*.jpg"))[:SUBJECTS]:
        shutil.copy(portrait, faces)
    (faces / "broken.jpg").write_bytes(b"not a picture")
    pictures = sorted((SHARED / "samples").iterdir())
    command = [str(Path(sys.executable).with_name("ifas")), "demo", "--faces", str(faces)]
    for picture in pictures:
        command += ["--ask", str(picture)]
    for override in ("train.steps=30", "gate.policy=builtin:permissive", "evaluate.explain=gallery"):
        command += ["--set", override]
    env = {**os.environ, "IFAS_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    env.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr

    run = tmp_path / "runs" / "latest"
    answers = [item for item in json.loads((run / "demo.json").read_text()) if item["truth"] is None]
    with capsys.disabled():
        print("\nwhat the served model says about real pictures (four pictures support no rate):")
        for item in answers:
            answer = item["answer"]
            said = answer.get("explanation") or answer.get("reason")
            print(f"  {Path(item['picture']).name}: {answer['verdict']} {answer.get('score')}: {said}")
    assert [Path(item["picture"]).name for item in answers] == [p.name for p in pictures]
    assert all(item["answer"]["verdict"] in ("live", "spoof") for item in answers)
    lineage = json.loads((run / "lineage.json").read_text())
    assert [e["step"] for e in lineage["entries"]][-1] == "package"
    index = lineage["entries"][0]["facts"]["index"]
    # Real faces are never called synthetic, and no mask is staged from a flat picture.
    assert index["synthetic"] is False
    kinds = {kind for splits in index["counts"].values() for counts in splits.values() for kind in counts}
    assert kinds == {"live", "print", "replay"}
