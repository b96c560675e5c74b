"""A build context with the code that serves, and BentoML's build of it, in a process and a store of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ifas.core.errors import IfasError
from ifas.core.files import write_json
from ifas.core.records import LINEAGE_FILE, Lineage
from ifas.serving.card import CARD_FILE
from ifas.serving.settings import ServingSettings

SERVICE = "ifas.serving.service:AntiSpoofing"
#: Rooms of ifas that serving a model needs.
ROOMS = ("core", "faces", "model", "serving")
PYTHON_VERSION = "3.11"
BUILD_TIMEOUT_S = 300


def tag_version(candidate: str) -> str:
    """Version part of a Bento's tag: the candidate's id, in the characters that a tag may have."""
    version = re.sub(r"[^a-z0-9._-]+", "-", candidate.lower()).strip("-._")
    if not version:
        raise IfasError(f"candidate id {candidate!r} makes no Bento tag", "use letters, digits, dots and dashes")
    return version


def stage(
    context: Path,
    settings: ServingSettings,
    card: str,
    lineage: Lineage,
    *,
    name: str,
    requirements: Sequence[str],
    labels: Mapping[str, str],
) -> None:
    """Writes everything but the model into `context`: code, settings, card, lineage, build file."""
    import yaml

    package = Path(__file__).resolve().parents[1]
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
    context.mkdir(parents=True)
    (context / "ifas").mkdir()
    shutil.copyfile(package / "__init__.py", context / "ifas" / "__init__.py")
    for room in ROOMS:
        shutil.copytree(package / room, context / "ifas" / room, ignore=unwanted)
    settings.write(context)
    (context / CARD_FILE).write_text(card, encoding="utf-8")
    write_json(context / LINEAGE_FILE, lineage.model_dump(mode="json"))
    options = {
        "service": SERVICE,
        "name": name,
        # BentoML shows it to whoever reaches the service, in /docs.json; the card is published by `publish_card` only.
        "description": f"Is this photo of a real person? The model card lies in the Bento: src/{CARD_FILE}.",
        "labels": dict(labels),
        "include": ["*"],
        "exclude": ["bentofile.yaml"],
        # The versions are pinned already; to lock them, BentoML would ask a package index.
        "python": {"packages": list(requirements), "lock_packages": False},
        "docker": {"python_version": PYTHON_VERSION, "distro": "debian"},
    }
    (context / "bentofile.yaml").write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")


def bentoml_environment(store: Path) -> dict[str, str]:
    """Environment of a BentoML process: a store of its own, no telemetry, no foreign import path."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "BENTOML_CONFIG")}
    return {
        **kept,
        "BENTOML_HOME": str(store),
        "BENTOML_DO_NOT_TRACK": "True",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def build(context: Path, scratch: Path, *, version: str, created: str) -> Path:
    """The folder of the Bento that BentoML builds from `context`; it lies below `scratch`.

    Args:
        created: time that the Bento's record gets, so that the same inputs give the same bytes.

    Raises:
        IfasError: the build failed; the error carries the end of its log.
    """
    store = scratch / "bentoml"
    command = [sys.executable, "-m", "bentoml", "build", "--version", version, "--output", "tag", "."]
    try:
        done = subprocess.run(
            command,
            cwd=context,
            env=bentoml_environment(store),
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise IfasError(f"bentoml build took longer than {BUILD_TIMEOUT_S} s", "run the step again") from error
    found = [path.parent for path in (store / "bentos").glob(f"*/{version}/bento.yaml")]
    if done.returncode or len(found) != 1:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise IfasError(f"bentoml build failed ({done.returncode}):\n{tail}", "check the installed packages")
    record = found[0] / "bento.yaml"
    text, dates = re.subn(r"(?m)^creation_time:.*$", f"creation_time: '{created}'", record.read_text("utf-8"))
    if dates != 1:
        raise IfasError(f"bento.yaml has {dates} creation times, one is expected", "pin bentoml as pyproject.toml does")
    record.write_text(text, encoding="utf-8")
    return found[0]
