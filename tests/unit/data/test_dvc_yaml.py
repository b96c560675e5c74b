"""dvc.yaml at the repository root: DVC reads it and orders its stages, and dvc.lock matches the working tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
UP_TO_DATE = "Data and pipelines are up to date."
RENEW = "dvc.lock is stale: run `make data` and commit dvc.lock"


def dvc(folder: Path, *args: str, hint: str = "") -> str:
    """The output of a DVC command, with the `ifas` of this environment; `hint` is shown if it fails."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *args], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{hint}\n{done.stdout}{done.stderr}"
    return done.stdout


def clone(folder: Path) -> Path:
    """The files of a fresh clone that DVC reads; there are no outputs."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made = {out for stage in stages.values() for out in stage["outs"]}
    for path in {"dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore"} | {d for s in stages.values() for d in s["deps"]}:
        if path in made:
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, folder / path)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    with (folder / ".dvc/config").open("a") as config:
        config.write("    no_scm = true\n")
    return folder


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone"))


def test_stages_are_valid_and_in_order(cloned: Path) -> None:
    assert '"demo" -> "pack"' in dvc(cloned, "dag", "--dot")


def test_the_lock_is_that_of_the_working_tree(cloned: Path) -> None:
    said = dvc(cloned, "repro", "--allow-missing", "--dry", hint=RENEW)
    assert UP_TO_DATE in said, f"{RENEW}\n{said}"
    # It is not up to date whatever changes: one line in a module that a stage depends on is enough.
    with (cloned / "ifas/simulator/camera.py").open("a") as module:
        module.write("# changed\n")
    assert UP_TO_DATE not in dvc(cloned, "repro", "--allow-missing", "--dry", "demo")


def test_dependencies_exist_and_config_has_no_telemetry() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made = {out for stage in stages.values() for out in stage["outs"]}
    for stage in stages.values():
        for path in stage["deps"]:
            assert path in made or (ROOT / path).exists()
    config = (ROOT / ".dvc/config").read_text()
    assert "analytics = false" in config
    assert "check_update = false" in config
