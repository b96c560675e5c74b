"""The container files: what the cluster's rules rely on, and hadolint where it is installed."""

from __future__ import annotations

import os
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


def stages(file: Path) -> list[list[str]]:
    found: list[list[str]] = []
    for line in instructions(file):
        found += [[]] if line.startswith("FROM ") else []
        if found:
            found[-1].append(line)
    return found


def test_what_a_step_calls_is_in_the_last_stage():
    """An image of several stages keeps only what is copied: bentoml calls `uv`, and it must be on PATH there."""
    build, last = stages(FILES[0])
    (environment,) = re.findall(r"VIRTUAL_ENV=(\S+)", "\n".join(build))
    assert f"COPY --from=build {environment} {environment}" in last
    (path,) = re.findall(r"\bPATH=(\S+)", "\n".join(last))
    assert path.split(":")[0] == f"{environment}/bin"
    # Installed by uv, that is into VIRTUAL_ENV; the uv of `pip install` is the base image's, which is not copied.
    into = [line for line in build if "uv pip install" in line and not line.startswith("RUN pip install")]
    assert any(re.search(r'"uv==\$\{UV_VERSION\}"', line) for line in into)


#: Runs in the image: from a dataset, which standard input draws, to a Bento that says it is ready. BentoML finds a
#: Bento by an absolute path only; it takes a relative one for a module.
TO_A_SERVED_BENTO = """
python -
ifas data pack folder raw --out packed --name toy
ifas data init --registry registry
ifas data publish packed --registry registry
ifas run --config tiny --set ingest.registry=registry --set ingest.dataset=toy --set gate.ledger=sqlite:///ledger.db
python -m bentoml serve /scratch/runs/latest/bento/bento --host 127.0.0.1 --port 3000 > serve.log 2>&1 &
wget -q --no-proxy -O /dev/null --tries=120 --waitretry=1 --retry-connrefused --retry-on-http-error=503 \
  http://127.0.0.1:3000/readyz || { cat serve.log; exit 1; }
id -u
"""


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_image_builds_and_packages(tmp_path):
    """Where there are an engine and a base image: the build, then a whole chain in it and its Bento served, as pods run
    them: no network, nothing to write to but /tmp and /scratch, and no right that the image's user has not."""
    engine, base = shutil.which("podman") or shutil.which("docker"), os.environ.get("IFAS_TEST_BASE_IMAGE")
    if not engine or not base:
        pytest.skip("no podman or docker, or IFAS_TEST_BASE_IMAGE names no base image")
    tag = f"ifas-test:{os.getpid()}"
    build = [engine, "build", "-q", "--build-arg", f"BASE={base}", "-t", tag, str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr
    try:
        # A volume belongs to whom the image gave the folder; a tmpfs would be root's.
        confined = ["--read-only", "--network=none", "--cap-drop=ALL", "--tmpfs=/tmp", "--volume=/scratch"]
        inside = [engine, "run", "--rm", "-i", *confined, tag, "sh", "-ec", TO_A_SERVED_BENTO]
        draw = (ROOT / "tests" / "toy_dataset.py").read_text() + 'make(Path("raw"))\n'
        ran = subprocess.run(inside, input=draw, capture_output=True, text=True, timeout=1200, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.split()[-1] == str(USER)
    finally:
        subprocess.run([engine, "rmi", "-f", tag], capture_output=True, timeout=300, check=False)


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
