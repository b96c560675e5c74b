"""The RayJob manifest: golden files, the operator's checks, Pod Security, names and quoting."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ifas.core.errors import ConfigError, LaunchError
from ifas.launch.rayjob import MAX_NAME, RAY_VERSION, RayJobSpec, build_rayjob, entrypoint, job_name

GOLDEN = Path(__file__).parent / "golden"
RUN = "20260101-120000-ab12"
STORE = f"s3://ifas/runs/{RUN}"
DIGEST = "sha256:" + "0" * 64

SPECS = {
    "train": RayJobSpec(
        step="train",
        run_id=RUN,
        image=f"registry.example/ifas@{DIGEST}",
        config="large",
        inputs={k: f"{STORE}/{k}" for k in ("dataset", "captions", "validation", "lineage")},
        outputs={"model": f"{STORE}/model", "lineage": f"{STORE}/lineage-train"},
        priority_class="training",
        queue="training",
    ),
    "caption": RayJobSpec(
        step="caption",
        run_id=RUN,
        image=f"registry.example/ifas@{DIGEST}",
        config="base",
        inputs={"dataset": f"{STORE}/dataset", "lineage": f"{STORE}/lineage"},
        outputs={"captions": f"{STORE}/captions", "lineage": f"{STORE}/lineage-caption"},
        submission_mode="SidecarMode",
        workers=1,
    ),
}
TRAIN = SPECS["train"]


def templates(job):
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    found = [cluster["headGroupSpec"]["template"], *(g["template"] for g in cluster["workerGroupSpecs"])]
    return found + ([spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else [])


@pytest.mark.parametrize("name", SPECS)
def test_golden(name):
    rendered = yaml.safe_dump(build_rayjob(SPECS[name]), sort_keys=False, width=120)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("IFAS_REGENERATE"):
        path.write_text(rendered)
    assert rendered == path.read_text(), "set IFAS_REGENERATE=1 to accept the change, then read the diff"


@pytest.mark.parametrize("name", SPECS)
def test_every_pod_is_restricted(name):
    for template in templates(build_rayjob(SPECS[name])):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}


def test_no_two_pods_share_an_object():
    """Aliases would make YAML anchors, and an edit of one pod an edit of all."""
    assert "&id" not in yaml.safe_dump(build_rayjob(TRAIN))


def test_secrets_are_references_only():
    pods = [template["spec"]["containers"][0]["env"] for template in templates(build_rayjob(TRAIN))]
    secrets = [item for env in pods for item in env if item["name"].startswith("AWS_")]
    assert {item["name"] for item in secrets} >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for item in secrets:
        assert set(item) == {"name", "valueFrom"}
        assert item["valueFrom"]["secretKeyRef"]["name"] == "ifas-credentials"


def test_the_submitter_gets_no_credentials():
    submitter = templates(build_rayjob(TRAIN))[-1]["spec"]["containers"][0]
    assert submitter["name"] == "ray-job-submitter"
    assert not [item for item in submitter["env"] if "valueFrom" in item]


def test_ray_resources_match_the_pod():
    worker = build_rayjob(TRAIN)["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert worker["rayStartParams"]["num-gpus"] == limits["nvidia.com/gpu"] == "1"
    assert worker["rayStartParams"]["num-cpus"] == limits["cpu"]
    shm = next(v for v in worker["template"]["spec"]["volumes"] if v["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}
    assert int(worker["rayStartParams"]["object-store-memory"]) < 4 * 2**30
    assert all(isinstance(value, str) for value in worker["rayStartParams"].values())


def test_ray_version_is_the_installed_one():
    assert version("ray") == RAY_VERSION


def test_no_gpu_means_no_gpu_anywhere():
    job = build_rayjob(replace(TRAIN, gpus_per_worker=0))
    worker = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert worker["groupName"] == "cpu"
    assert worker["rayStartParams"]["num-gpus"] == "0"
    pod = worker["template"]["spec"]
    assert "nvidia.com/gpu" not in json.dumps(pod)
    assert "nodeSelector" not in pod


def test_sidecar_mode_leaves_out_what_the_operator_refuses():
    job = build_rayjob(SPECS["caption"])
    assert "submitterConfig" not in job["spec"]
    assert "submitterPodTemplate" not in job["spec"]
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"submission_mode": "Foo"}, "K8sJobMode"),
        ({"submission_mode": "InteractiveMode"}, "SidecarMode"),
        ({"step": "evaluate"}, "caption, train"),
        ({"active_deadline_s": 0}, "active_deadline_s"),
        ({"pre_running_deadline_s": -1}, "pre_running_deadline_s"),
        ({"backoff_limit": -1}, "backoff_limit"),
        ({"ttl_s": -5}, "ttl_s"),
        ({"workers": 0}, "workers"),
        ({"shm_gib": 64}, "counts towards"),
        ({"inputs": {"dataset": "/tmp/dataset"}}, "/tmp/dataset"),
        ({"image": ""}, "image"),
    ],
)
def test_refused_before_anything_is_sent(change, names):
    with pytest.raises((LaunchError, ConfigError), match=re.escape(names)):
        build_rayjob(replace(TRAIN, **change))


@pytest.mark.parametrize("word", ["$(AWS_SECRET_ACCESS_KEY)", "a\nb", "x\0", "a$(id)b"])
def test_words_that_kubernetes_would_replace_are_refused(word):
    with pytest.raises(LaunchError, match="control character"):
        entrypoint(replace(TRAIN, config=word))


@given(st.lists(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))), max_size=5))
def test_a_shell_reads_back_the_same_words(words):
    clean = tuple(word for word in words if "$(" not in word and word.isprintable())
    found = shlex.split(entrypoint(replace(TRAIN, overrides=clean)))
    assert [found[i + 1] for i, word in enumerate(found[:-1]) if word == "--set"][: len(clean)] == list(clean)


def test_a_real_shell_runs_nothing_of_its_own(tmp_path):
    nasty = ("a=b;touch x", "a=`touch y`", "a=*", "a=it's", 'a="$HOME"', "a=[office,street]", "a=b && touch z")
    words = entrypoint(replace(TRAIN, overrides=nasty)).split(" ", 1)[1]
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("a=")] == list(nasty)
    assert list(tmp_path.iterdir()) == []


def test_entrypoint():
    assert entrypoint(SPECS["caption"]) == (
        f"ifas step caption --config base --run-id {RUN} "
        f"--input dataset={STORE}/dataset --input lineage={STORE}/lineage "
        f"--output captions={STORE}/captions --output lineage={STORE}/lineage-caption"
    )


@given(st.sampled_from(["caption", "train"]), st.text(min_size=1, max_size=80))
def test_names_are_dns_labels(step, run_id):
    name = job_name(step, run_id)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= MAX_NAME
    assert name == job_name(step, run_id)


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_different_runs_have_different_names(one, other):
    if one != other:
        assert job_name("train", one) != job_name("train", other)


def test_the_schema_of_the_crd():
    path = os.environ.get("IFAS_RAYJOB_CRD")
    if not path:
        pytest.skip("IFAS_RAYJOB_CRD names no CRD file of KubeRay's RayJob")
    jsonschema = pytest.importorskip("jsonschema")
    crd = yaml.safe_load(Path(path).read_text())
    schema = next(v for v in crd["spec"]["versions"] if v["name"] == "v1")["schema"]["openAPIV3Schema"]
    closed = closed_schema(schema)
    closed["properties"]["metadata"] = {"type": "object"}
    for spec in SPECS.values():
        jsonschema.Draft202012Validator(closed).validate(build_rayjob(spec))


def closed_schema(schema):
    """A CRD's structural schema as JSON Schema that refuses unknown fields, as strict server-side validation does."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        schema["properties"] = {name: closed_schema(child) for name, child in schema["properties"].items()}
        free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
        if not free:
            schema.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        schema[key] = closed_schema(schema[key]) if key in schema else None
    return {key: value for key, value in schema.items() if value is not None}
