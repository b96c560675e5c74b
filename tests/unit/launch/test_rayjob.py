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
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.config import RayConfig, as_overrides, load, profiles
from ifas.core.errors import ConfigError, LaunchError
from ifas.launch.capacity import check_fits
from ifas.launch.rayjob import MAX_NAME, RAY_VERSION, RayJobSpec, build_rayjob, describe, entrypoint, job_name, kept

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
        size=load(
            "large",
            [
                "cluster.train.priority_class=training",
                "cluster.train.queue=training",
                "cluster.train.spot_tolerations=[{key: example.com/spot}]",
            ],
        ).cluster.train,
    ),
    "caption": RayJobSpec(
        step="caption",
        run_id=RUN,
        image=f"registry.example/ifas@{DIGEST}",
        config="base",
        inputs={"dataset": f"{STORE}/dataset", "lineage": f"{STORE}/lineage"},
        outputs={"captions": f"{STORE}/captions", "lineage": f"{STORE}/lineage-caption"},
        submission_mode="SidecarMode",
        size=load("tiny").cluster.caption,
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


@pytest.mark.parametrize("name", SPECS)
def test_the_service_of_the_head_finds_its_pod(name):
    """KubeRay's <job>-head-svc selects app.kubernetes.io/name: kuberay, and a label of ours would stand in its way."""
    job = build_rayjob(SPECS[name])
    assert job["metadata"]["labels"]["app.kubernetes.io/name"] == "ifas"
    for template in templates(job):
        assert "app.kubernetes.io/name" not in template["metadata"]["labels"]
        assert template["metadata"]["labels"]["ifas.dev/job"] == job["metadata"]["name"], "diagnosis selects by it"


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
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert int(worker["rayStartParams"]["object-store-memory"]) < 16 * 2**30
    assert all(isinstance(value, str) for value in worker["rayStartParams"].values())


def test_ray_version_is_the_installed_one():
    assert version("ray") == RAY_VERSION


def test_no_gpu_means_no_gpu_anywhere():
    job = build_rayjob(replace(TRAIN, size=RayConfig(gpus_per_worker=0)))
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


def test_no_rank_is_placed_on_the_head():
    for spec in SPECS.values():
        assert build_rayjob(spec)["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_spot_nodes_are_tolerated_by_workers_only():
    cluster = build_rayjob(TRAIN)["spec"]["rayClusterSpec"]
    spot = {"key": "example.com/spot", "operator": "Exists", "effect": "NoSchedule"}
    assert spot in cluster["workerGroupSpecs"][0]["template"]["spec"]["tolerations"]
    assert "tolerations" not in cluster["headGroupSpec"]["template"]["spec"]


def test_fewer_workers_than_the_most_means_that_ray_scales():
    cluster = build_rayjob(replace(TRAIN, size=RayConfig(min_workers=1, max_workers=4)))["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["securityContext"]["allowPrivilegeEscalation"] is False
    assert cluster["workerGroupSpecs"][0]["replicas"] == 1
    head, worker = (group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    assert (head["serviceAccountName"], head["automountServiceAccountToken"]) == ("ifas-ray-autoscaler", True)
    assert (worker["serviceAccountName"], worker["automountServiceAccountToken"]) == ("ifas-ray", False)
    assert "enableInTreeAutoscaling" not in build_rayjob(TRAIN)["spec"]["rayClusterSpec"]


def test_a_shared_volume_stands_in_for_the_store():
    config = load("tiny", ["cluster.storage=/shared", "cluster.storage_claim=ifas-shared"])
    paths = {"inputs": {"dataset": "/shared/runs/d"}, "outputs": {"captions": "/shared/runs/c"}}
    job = build_rayjob(describe("caption", config, run_id=RUN, image="i", **paths))
    for template in templates(job):
        (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == "shared"]
        assert volume["persistentVolumeClaim"] == {"claimName": "ifas-shared"}
        mounts = template["spec"]["containers"][0]["volumeMounts"]
        assert {"name": "shared", "mountPath": "/shared"} in mounts


@pytest.mark.parametrize("profile", profiles())
def test_a_shell_and_the_cluster_read_the_same_configuration(profile):
    """What `ifas step` gets in the job is the configuration that was launched, prompts and tables included."""
    wanted = load(
        profile,
        [
            """caption.prompt='Say "what" it is: naïve, it''s 100 %?'""",
            "train.species_weights={paper: 2.5e-05}",
            "model.vision.shape={hidden_size: 8}",
            "train.alpha=0.25",
            "cluster.steps={gate: {cpus: 0.5}}",
        ],
    )
    spec = describe("train", wanted, run_id=RUN, image="i", inputs={}, outputs={})
    words = shlex.split(entrypoint(spec))
    again = load(words[words.index("--config") + 1], [words[i + 1] for i, word in enumerate(words) if word == "--set"])
    assert again == wanted


def test_an_unknown_profile_is_described_by_what_is_different():
    wanted = load("tiny").model_copy(update={"profile": "ours"})
    name, overrides = as_overrides(wanted)
    assert load(name, overrides) == wanted


def test_checkpoints_outlive_the_pod_on_a_shared_volume():
    shared = ["cluster.storage=/shared", "cluster.storage_claim=c"]
    assert kept(load("tiny", shared)).train.storage == "/shared/checkpoints"
    named = load("tiny", [*shared, "train.storage=s3://c", "caption.actors=2"])
    assert kept(named) == named


@pytest.mark.parametrize(
    ("profile", "overrides", "actors"),
    [
        ("base", [], 4),
        ("large", ["cluster.caption.gpus_per_worker=1", "caption.gpus_per_actor=1"], 8),
        ("base", ["caption.actors=3"], 3),
        ("tiny", [], 2),
    ],
)
def test_every_worker_captions(profile, overrides, actors):
    config = kept(load(profile, overrides))
    assert config.caption.actors == actors
    check_fits(config, "caption")


@pytest.mark.parametrize(
    ("step", "overrides", "said", "fix"),
    [
        ("train", ["train.workers=9"], "2 workers with 1 CPUs and 0 GPUs", "cluster.train.max_workers=9"),
        ("train", ["train.gpus_per_worker=1"], "places for 0", "cluster.train.gpus_per_worker=1"),
        (
            "train",
            ["train.workers=8", "train.gpus_per_worker=0.5", "cluster.train.gpus_per_worker=1"],
            "places for 2",
            "cluster.train.max_workers=8, or train.workers=2",
        ),
        ("train", ["train.batch=4096"], "worker_memory_gib", "train.batch="),
        ("train", ["cluster.train.head_memory_gib=1"], "head_memory_gib=1 ", "cluster.train.head_memory_gib=2"),
        ("caption", ["caption.actors=3"], "places for 2", "cluster.caption.max_workers"),
    ],
)
def test_what_the_cluster_can_not_hold_is_refused(step, overrides, said, fix):
    with pytest.raises(ConfigError) as caught:
        check_fits(load("tiny", overrides), step)
    assert said in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.slow
def test_the_head_must_hold_the_model_that_it_measures_at_the_end():
    with pytest.raises(ConfigError, match=r"30\.1 GiB of weights in float32"):
        check_fits(load("large", ["cluster.train.head_memory_gib=40"]), "train")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["caption", "train"])
@pytest.mark.parametrize("profile", ["tiny", "base", "large"])
def test_every_profile_fits_its_own_cluster(profile, step):
    check_fits(load(profile), step)


LAUNCH = ["launch", "render", "train", "--image", "i", "--run-id", "r", "-c", "tiny"]


def test_the_command_line_has_sizes_and_overrides():
    """Sizes follow from the profile, options come on top."""
    plain = CliRunner().invoke(app, LAUNCH)
    job = yaml.safe_load(plain.output)
    worker = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert worker["replicas"] == 2
    assert worker["template"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1.5Gi"}
    options = ["--workers", "3", "--queue", "q", "--namespace", "team", "-s", "train.steps=9"]
    more = yaml.safe_load(CliRunner().invoke(app, [*LAUNCH, *options]).output)
    assert more["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 3
    assert more["metadata"]["namespace"] == "team"
    assert more["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    assert "train.steps=9" in more["spec"]["entrypoint"]


def test_what_does_not_fit_is_not_rendered():
    found = CliRunner().invoke(app, [*LAUNCH, "--workers", "1", "-s", "train.workers=2"])
    assert isinstance(found.exception, ConfigError)
    assert "cluster.train.max_workers=2" in found.exception.fix


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
