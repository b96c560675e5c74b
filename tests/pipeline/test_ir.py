"""The compiled pipeline, as a golden file: a change of the DAG or of what it asks of the cluster shows in review.

Regenerate with: IFAS_REGENERATE=1 python -m pytest tests/pipeline
"""

import os
from pathlib import Path

import pytest
import yaml
from ifas_pipelines.remote import compile_to

from ifas.core.errors import DataError
from ifas.steps.contract import STEPS

COMPONENTS = Path(__file__).parents[2] / "components"
GOLDEN = Path(__file__).parent / "golden" / "retrain.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    out = tmp_path_factory.mktemp("ir") / "retrain.yaml"
    compile_to(out)
    return out


@pytest.fixture(scope="module")
def documents(compiled):
    return list(yaml.safe_load_all(compiled.read_text()))


def test_golden(compiled):
    if os.environ.get("IFAS_REGENERATE"):
        GOLDEN.write_text(compiled.read_text())
    assert compiled.read_text() == GOLDEN.read_text(), "IFAS_REGENERATE=1 makes it anew; read the difference"


def test_a_file_of_the_user_s_is_not_overwritten(tmp_path):
    (tmp_path / "mine.yaml").write_text("years of work")
    with pytest.raises(DataError, match=r"not made by ifas.*mine\.yaml"):
        compile_to(tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "years of work"


def test_platform_settings(documents):
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in executors} == set(STEPS)
    for name, spec in executors.items():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert int(spec["activeDeadlineSeconds"]) > 0
        assert spec["secretAsEnv"][0]["secretName"] == "ifas-credentials"
        on_gpu = name in ("exec-caption", "exec-train")
        assert ("nodeSelector" in spec) == on_gpu
        assert ("tolerations" in spec) == on_gpu
        assert ("emptyDirMounts" in spec) == on_gpu


def test_gpu_and_limits(documents):
    executors = documents[0]["deploymentSpec"]["executors"]
    for name, spec in executors.items():
        resources = spec["container"]["resources"]
        assert resources["resourceCpuLimit"]
        assert resources["resourceMemoryLimit"]
        assert ("accelerator" in resources) == (name in ("exec-caption", "exec-train"))


def test_wiring_is_that_of_the_contract(documents):
    """The component's artifacts are the step's inputs and outputs, lineage beside them."""
    for name, step in STEPS.items():
        component = documents[0]["components"][f"comp-{name}"]
        inputs = set(component.get("inputDefinitions", {}).get("artifacts", {})) - {"previous"}
        outputs = set(component["outputDefinitions"]["artifacts"]) - {"lineage", "metrics", "report"}
        assert inputs == set(step.inputs)
        assert outputs == set(step.outputs)


def test_package_runs_only_when_approved(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    condition = next(t for t in tasks.values() if "triggerPolicy" in t)
    assert "'approved'" in condition["triggerPolicy"]["condition"]
    assert "package" not in tasks


def test_secrets_are_references_only(documents):
    for spec in documents[0]["deploymentSpec"]["executors"].values():
        assert not spec["container"].get("env")


def test_components_are_thin():
    for step in STEPS:
        lines = (COMPONENTS / step / "component.py").read_text().splitlines()
        assert len(lines) < 60
