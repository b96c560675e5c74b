"""The exact versions a Bento needs: those of the environment in which its model was evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution

from ifas.core.errors import ConfigError

#: What `ifas.serving`, `ifas.model` and `ifas.faces` import. The face detector's networks lie in the model directory.
ROOTS = (
    "bentoml",
    "jinja2",
    "numpy",
    "onnxruntime",
    "opencv-contrib-python-headless",
    "pillow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
#: Kind of vision tower -> packages that hold its architecture.
TOWER_PACKAGES: dict[str, tuple[str, ...]] = {"efficientnet-lite0": ("efficientnet-lite-pytorch",)}


def pinned(roots: Iterable[str]) -> list[str]:
    """`name==version` of the installed packages and all that they need, sorted. No package index is asked.

    Raises:
        ConfigError: a package that is needed is not installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        try:
            package = distribution(name)
        except PackageNotFoundError as error:
            raise ConfigError(f"package {name} is not installed", "install requirements.lock") from error
        # A local version such as 2.13.0+cpu is a build of the same release; the container image decides which one.
        found[name] = package.version.partition("+")[0]
        for line in package.requires or []:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in ("", *wanted.extras)):
                waiting.append(child)
    return [f"{name}=={version}" for name, version in sorted(found.items())]
