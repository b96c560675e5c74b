"""No two modules of `ifas` import each other, in however many steps: each can be read after what it builds on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import ifas

ROOT = Path(ifas.__file__).parent.parent


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((root / "ifas").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path], package: str) -> set[str]:
    """Modules of the package that a file imports anywhere, in functions too; imports for type checkers are left out."""

    def nodes(tree: ast.AST) -> Iterator[ast.AST]:
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                for other in node.orelse:
                    yield other
                    yield from nodes(other)
                continue
            yield node
            yield from nodes(node)

    names: set[str] = set()
    for node in nodes(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import module` needs the module; `from module import name` needs what holds the name.
            names |= {one if (one := f"{base}.{alias.name}") in known else base for alias in node.names}
    return names & known.keys()


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {
        name: imported(path, known, name if path.name == "__init__.py" else name.rpartition(".")[0]) - {name}
        for name, path in known.items()
    }


def cycle(imports: dict[str, set[str]]) -> list[str]:
    """The first cycle found, from a module back to itself; empty where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])[::-1]
    return []


#: Modules whose cycles are known and not yet mended. It only gets shorter.
KNOWN: frozenset[str] = frozenset({"ifas.data.video.ingest"})


def test_no_module_imports_itself_by_way_of_others() -> None:
    imports = graph(ROOT)
    assert len(imports) > 200
    assert imports["ifas.captioning.scf"] >= {"ifas.captioning.pictures", "ifas.core.files"}
    assert cycle({name: found for name, found in imports.items() if name not in KNOWN}) == []
    assert all(cycle({n: imports[n] for n in imports if n not in KNOWN - {one}}) for one in KNOWN), "KNOWN is too long"


def test_a_cycle_is_found_wherever_it_hides(tmp_path: Path) -> None:
    room = tmp_path / "ifas" / "room"
    room.mkdir(parents=True)
    (tmp_path / "ifas" / "__init__.py").touch()
    (room / "__init__.py").touch()
    (room / "low.py").write_text("THING = 1\n")

    def found(first: str, second: str) -> list[str]:
        (room / "first.py").write_text(first)
        (room / "second.py").write_text(second)
        return cycle(graph(tmp_path))

    back = "from ifas.room.first import thing\n"
    assert found("from ifas.room import low\n", back) == []
    named = ["ifas.room.first", "ifas.room.second", "ifas.room.first"]
    in_function = "def thing():\n    from ifas.room import second\n    return second\n"
    for first in ("import ifas.room.second\n", "from . import second\n", "from .second import other\n", in_function):
        assert sorted(found(first, back)[1:]) == sorted(named[1:]), first
    checker = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ifas.room.second import other\n"
    assert found(checker, back) == []
    assert found(checker + "else:\n    from ifas.room.second import other\n", back)
