"""The container files: what the cluster's rules rely on, and hadolint where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ifas.launch.pods import USER

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "Dockerfile", ROOT / "infra" / "bento.Dockerfile"]


def instructions(file: Path) -> list[str]:
    joined = file.read_text().replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_hadolint(file):
    beside = Path(sys.executable).with_name("hadolint")
    tool = str(beside) if beside.exists() else shutil.which("hadolint")
    if not tool:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([tool, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_user_is_the_one_of_the_pods():
    users = [line.split()[1] for line in instructions(FILES[0]) if line.startswith("USER ")]
    assert users == [f"{USER}:{USER}"]
    assert not [line for line in instructions(FILES[1]) if line.startswith("USER ")], "inherits it"


def test_what_the_pods_need_is_there():
    text = FILES[0].read_text()
    assert re.search(r"apt-get install .*\bwget\b", text), "KubeRay's probes call it"
    assert re.search(r"apt-get install .*\bgit\b", text), "DVC reads the registry with it"
    assert "HEALTHCHECK NONE" in text


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_no_secrets(file):
    assert not re.search(r"(?i)(password|secret|token|access_key)\w*\s*=", file.read_text())


def test_torch_is_the_pinned_one():
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch,) = [line for line in pinned if line.startswith("torch==")]
    assert f"ARG TORCH={torch.split('==')[1]}" in instructions(FILES[0])


def test_only_what_the_image_copies_is_sent_to_the_builder():
    allowed = [line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    copied = {
        word.rstrip("/")
        for line in instructions(FILES[0])
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == set(allowed)


def test_ray_has_its_job_api_in_the_image():
    """`ray job submit` needs ray[default]; both lock files together must satisfy it."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = {}
    for name in ("requirements.lock", "infra/ray-default.lock"):
        for line in (ROOT / name).read_text().splitlines():
            pin = line.split("#")[0].strip()
            if pin:
                package, version = pin.split("==")
                assert canonicalize_name(package) not in locked, f"{package} is pinned twice"
                locked[canonicalize_name(package)] = version
    wanted = [Requirement(line) for line in requires("ray")]
    for needed in wanted:
        if needed.marker is not None and needed.marker.evaluate({"extra": "default"}):
            version = locked.get(canonicalize_name(needed.name))
            assert version, f"{needed.name} is in neither lock file"
            assert needed.specifier.contains(version, prereleases=True)
