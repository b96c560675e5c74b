import pytest

from ifas.core.config import load, profiles
from ifas.core.errors import ConfigError


@pytest.mark.parametrize("name", profiles())
def test_every_profile_loads(name):
    assert load(name).profile == name


def test_override_is_typed_and_deep():
    config = load("tiny", ["train.steps=3", "protocol.target_domains=[a, b]"])
    assert config.train.steps == 3
    assert config.protocol.target_domains == ("a", "b")


def test_file_extends_its_profile(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("profile: tiny\ntrain: {alpha: 0.5}\n")
    config = load(str(path))
    assert config.train.alpha == 0.5
    assert config.train.steps == load("tiny").train.steps


@pytest.mark.parametrize(
    ("override", "said"),
    [("train.stepz=3", "train.stepz"), ("train.alpha=2", "train.alpha"), ("train", "section.key=value")],
)
def test_wrong_override_names_the_key(override, said):
    with pytest.raises(ConfigError, match=said):
        load("tiny", [override])


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "valid YAML"), ("- 1\n", "mapping"), ("profile: nope\n", "unknown profile")]
)
def test_unusable_file(tmp_path, text, said):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(str(path))


def test_unknown_profile_lists_the_known():
    with pytest.raises(ConfigError, match="laptop"):
        load("desktop")


def test_tiny_fits_a_laptops_kind():
    """Head, workers, submitter and the step's own pod, at the largest moment of a run."""
    cluster = load("tiny").cluster
    for job in (cluster.caption, cluster.train):
        assert job.ray == "job"
        assert job.head_cpus + job.max_workers * job.worker_cpus + 0.25 + 0.25 <= 3
        assert job.head_memory_gib + job.max_workers * job.worker_memory_gib + 0.5 + 0.5 <= 6
    for pod in cluster.steps.values():
        assert pod.cpus <= 3
        assert pod.memory_gib <= 6


def test_a_pod_that_is_not_named_has_the_default_size():
    cluster = load("tiny", ["cluster.steps={evaluate: {gpus: 2, memory_gib: 64}}"]).cluster
    assert cluster.pod("evaluate").gpus == 2
    assert cluster.pod("gate").memory_gib == 8


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cluster.train.min_workers=9", "min_workers 9 is more than max_workers 2"),
        ("cluster.caption={queue: q, min_workers: 1, max_workers: 2}", "set min_workers to 2, or leave out queue"),
        ("cluster.train.shm_gib=8", "leaves a worker no memory"),
        ("cluster.storage_claim=shared", "storage: /shared"),
        ("cluster.storage=ftp://x", "neither s3"),
        ("cluster.train.workers=3", "cluster.train.workers"),
        ("cluster.steps.trein.cpus=3", "cluster.steps.trein"),
    ],
)
def test_what_a_cluster_can_not_give(override, said):
    with pytest.raises(ConfigError, match=said):
        load("tiny", [override])
