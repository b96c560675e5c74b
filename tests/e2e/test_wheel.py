"""The wheel, installed elsewhere: a user who never sees this repository imports a dataset and runs the whole chain."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests import toy_dataset

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def installed(root: Path) -> Path:
    """bin/ of a new environment with the wheel; all other packages are those of this one, the editable ifas apart."""
    source = root / "source"  # a build leaves folders behind
    source.mkdir()
    for name in ("ifas", "components", "pipelines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-c", BUILD, str(root)], cwd=source, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = root.glob("*.whl")
    shutil.rmtree(source)
    venv.create(root / "venv", with_pip=True)
    here = root / "venv" / "bin"
    subprocess.run([here / "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    (own,) = (root / "venv" / "lib").glob("*/site-packages")
    # Folders named by a .pth are searched, their own .pth files, such as that of the editable ifas, are not read.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (own / "others.pth").write_text("\n".join(others) + "\n")
    return here


@pytest.mark.slow
def test_the_wheel_runs_the_chain_in_an_empty_folder(tmp_path: Path) -> None:
    here = installed(tmp_path)
    raw = toy_dataset.make(tmp_path / "raw")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "IFAS_HOME", "VIRTUAL_ENV")}

    def call(*command: str) -> str:
        done = subprocess.run(
            [here / command[0], *command[1:]], cwd=elsewhere, env=kept, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    places = "import ifas, ifas_components as c, ifas_pipelines as p; print(ifas.__file__, c.__file__, p.__file__)"
    assert all(Path(place).is_relative_to(tmp_path / "venv") for place in call("python", "-c", places).split())
    call("ifas", "data", "import", "folder", str(raw), "--name", "toy", "--accept-licence", "A. Tester")
    dataset = ("--set", "ingest.dataset=toy", "--set", "ingest.registry=.ifas/registry")
    told = json.loads(call("ifas", "run", "-c", "tiny", "--runner", "process", "--json", *dataset))
    assert told["steps"][-1]["step"] == "package"
    run = elsewhere / told["run"]
    assert {"report.html", "validation.html", "bento"} <= {path.name for path in run.iterdir()}
    assert (run / "bento" / "MODEL_CARD.md").is_file()
    # What a demo needs beside the chain: the simulator with its assets, and the compiled pipeline.
    drawn = "from pathlib import Path; from ifas.simulator import make_demo; make_demo(Path('d'), subjects=6, limit=1)"
    call("python", "-c", drawn)
    assert len(list((elsewhere / "d").rglob("*.jpg"))) == 1
    call("ifas", "compile", "retrain.yaml", "-s", "cluster.image=ifas:1", "-s", "cluster.storage=s3://b/kept")
    assert "ifas demo" in call("ifas", "demo", "--help")
    assert sorted(path.name for path in elsewhere.iterdir()) == [".ifas", "d", "retrain.yaml", "runs"]
