"""ifas imports only public modules of its libraries, as each library names them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = {"ray", "deepspeed", "dvc", "great_expectations", "bentoml", "kfp", "transformers", "peft"}


def imported(source: str) -> Iterator[str]:
    """Dotted names of all that a module imports, and what it reads of an imported library: `import ray; ray._x`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Attribute():
                yield ast.unparse(node)


def private(source: str) -> list[str]:
    """Names of LIBRARIES with a private part."""
    found = {name for name in imported(source) if name.partition(".")[0] in LIBRARIES}
    return sorted(name for name in found if any(part.startswith("_") for part in _plain(name)))


def _plain(name: str) -> list[str]:
    return [part for part in name.split(".")[1:] if not (part.startswith("__") and part.endswith("__"))]


@pytest.mark.parametrize(
    "line",
    [
        "import ray._private.node",
        "from ray.train.v2._internal.execution import context",
        "from ray import _raylet",
        "import ray\nray._private.worker._global_node",
        "def f():\n    from deepspeed.runtime import _x",
    ],
)
def test_a_private_import_is_seen(line: str) -> None:
    assert private(line)


def test_nothing_private_of_a_library_is_used() -> None:
    folders = [ROOT / name for name in ("ifas", "components", "pipelines", "benchmarks", "tests")]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    assert len(files) > 200
    found = {str(path.relative_to(ROOT)): private(path.read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}
