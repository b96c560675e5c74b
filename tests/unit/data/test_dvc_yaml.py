"""dvc.yaml at the repository root: DVC reads it and orders its stages; nothing is run here."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_stages_are_valid_and_in_order(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    with (tmp_path / ".dvc/config").open("a") as config:
        config.write("    no_scm = true\n")
    dag = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--dot"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert dag.returncode == 0, dag.stderr
    assert '"demo" -> "pack"' in dag.stdout


def test_dependencies_exist_and_config_has_no_telemetry() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made = {out for stage in stages.values() for out in stage["outs"]}
    for stage in stages.values():
        for path in stage["deps"]:
            assert path in made or (ROOT / path).exists()
    config = (ROOT / ".dvc/config").read_text()
    assert "analytics = false" in config
    assert "check_update = false" in config
