"""What a RayJob runs: `ifas step` with s3:// URIs, on a real S3 server, equals the step in this process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ifas.core import storage
from ifas.core.files import sha256_tree
from ifas.steps.execute import execute


@pytest.mark.slow
def test_step_on_an_object_store_equals_step_in_process(config, s3, tmp_path):
    dataset, lineage = tmp_path / "dataset", tmp_path / "lineage.json"
    execute("ingest", config, run_id="r", inputs={}, outputs={"dataset": dataset, "lineage": lineage})
    here = tmp_path / "captions"
    inputs = {"dataset": dataset, "lineage": lineage}
    execute(
        "caption", config, run_id="r", inputs=inputs, outputs={"captions": here, "lineage": tmp_path / "lineage-2.json"}
    )
    prefix = f"s3://{s3.bucket}/staged"
    storage.store(dataset, f"{prefix}/dataset")
    storage.store(lineage, f"{prefix}/lineage.json")
    settings = tmp_path / "config.yaml"
    settings.write_text(json.dumps(config.model_dump(mode="json")))
    ifas = str(Path(sys.executable).with_name("ifas"))
    command = [ifas, "step", "caption", "--config", str(settings), "--run-id", "r", "--no-cache"]
    command += ["-i", f"dataset={prefix}/dataset", "-i", f"lineage={prefix}/lineage.json"]
    command += ["-o", f"captions={prefix}/captions", "-o", f"lineage={prefix}/lineage-2.json"]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
    back = storage.fetch(f"{prefix}/captions", tmp_path / "back")
    assert sha256_tree(back) == sha256_tree(here)
    entries = json.loads(storage.fetch(f"{prefix}/lineage-2.json", tmp_path / "l").read_text())["entries"]
    assert [e["step"] for e in entries] == ["ingest", "caption"]
