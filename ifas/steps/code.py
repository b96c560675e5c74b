"""Which code a step's result depends on: found by reading its imports, not from a list kept by hand."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from ifas.core.files import sha256_file

#: The installed package; what is hashed lies below it.
PACKAGE = Path(__file__).resolve().parents[1]

#: Profiles and policies reach a step as values of its configuration, and are part of the key as such.
VALUES = ("ifas.configs",)

#: Import name -> distribution, where the two differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "botocore": "botocore",
    "cv2": "opencv-contrib-python-headless",
    "kubernetes": "kubernetes",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}

_MODULE_NAME = re.compile(r"ifas(\.\w+)+")


@dataclass(frozen=True)
class Code:
    """Sources and libraries that a module rests on.

    Attributes:
        files: path below the package -> SHA-256, of Python modules and of the data files beside them.
        libraries: distribution -> version, what they need themselves included; and Python's own.
    """

    files: dict[str, str]
    libraries: dict[str, str]


def code_of(module: str, *, without: Iterable[str] = ()) -> Code:
    """What `module` imports from ifas, at its top or within functions, and what that imports in turn.

    A string that is the name of a module of ifas counts as an import, and a package that lists its own modules imports
    all of them. Imports for type checkers count for libraries only: what is typed so is given in, and used.

    Args:
        module: dotted name.
        without: modules that are left out, with everything that only they import.
    """
    found: dict[str, Path] = {}
    roots: set[str] = set()
    left_out = (*VALUES, *without)
    waiting = [module]
    while waiting:
        name = waiting.pop()
        # Importing a module runs the packages that it lies in.
        parent = name.rpartition(".")[0]
        if name in found or any(name == one or name.startswith(f"{one}.") for one in left_out):
            continue
        file = _file(name)
        if file is None:
            continue
        found[name] = file
        seen = file.stat()
        own, foreign, lists = _imports(file, name, seen.st_size, seen.st_mtime_ns)
        roots.update(foreign)
        waiting += [*own, *([parent] if parent else [])]
        if lists:
            waiting += [f"{name}.{one.stem}" for one in file.parent.glob("*.py") if one != file]
            waiting += [f"{name}.{one.parent.name}" for one in file.parent.glob("*/__init__.py")]
    files = {*found.values(), *(data for folder in {f.parent for f in found.values()} for data in _data(folder))}
    return Code(
        files=_hashes(files),
        libraries=_libraries(roots),
    )


def files_in(room: str) -> dict[str, str]:
    """All sources and data files of a room -> SHA-256."""
    return _hashes(file for file in (PACKAGE / room).rglob("*") if _is_source(file))


def _file(name: str) -> Path | None:
    """The source of a module of ifas; None where there is no such module."""
    base = PACKAGE.joinpath(*name.split(".")[1:])
    return next((file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()), None)


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".nbi", ".nbc")


def _data(folder: Path) -> Iterator[Path]:
    """Files of a package that are not modules, also those in its folders that are not packages."""
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".py" and _is_source(path):
            yield path
        elif path.is_dir() and folder != PACKAGE and not (path / "__init__.py").exists():
            yield from (file for file in path.rglob("*") if _is_source(file))


@cache
def _imports(file: Path, name: str, _size: int, _mtime: int) -> tuple[frozenset[str], frozenset[str], bool]:
    """Modules of ifas that a source may import, top-level names of other libraries, and whether a package lists its
    own modules."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(file.read_bytes())
    named: set[str] = set()
    lists = False
    for node in _run_code(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named.update(_named(node, package))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.partition(":")[0]
            if _MODULE_NAME.fullmatch(text):
                named.add(text)
        elif isinstance(node, (ast.Name, ast.Attribute)):
            called = node.id if isinstance(node, ast.Name) else node.attr
            lists |= called in ("iter_modules", "walk_packages") and file.name == "__init__.py"
    own = frozenset(one for one in named if one.partition(".")[0] == "ifas")
    imports = (node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)))
    foreign = {one.partition(".")[0] for node in imports for one in _named(node, package)} - {"ifas"}
    return own, frozenset(foreign - sys.stdlib_module_names), lists


def _named(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Dotted names that an import in a module of `package` may be about."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def _run_code(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _libraries(imported: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions of these modules and of all that they need; what is not installed is left out."""
    found: dict[str, str] = {}
    waiting = [DISTRIBUTIONS.get(name, name) for name in imported]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], needed = _distribution(name)
            waiting += needed
    versions = {name: version for name, version in sorted(found.items()) if version}
    return {"python": ".".join(map(str, sys.version_info[:3])), **versions}


@cache
def _distribution(name: str) -> tuple[str, tuple[str, ...]]:
    """Version of a distribution, empty where it is not installed, and the names of those it needs without extras."""
    from packaging.requirements import Requirement

    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return "", ()
    needed = [Requirement(line) for line in package.requires or [] if "extra ==" not in line]
    return package.version, tuple(one.name for one in needed if one.marker is None or one.marker.evaluate())


@cache
def _hash(file: Path, _size: int, _mtime: int) -> str:
    return sha256_file(file)


def _hashes(files: Iterable[Path]) -> dict[str, str]:
    """Path below the package -> SHA-256. A file is read again only if its size or time has changed."""
    found = {}
    for file in sorted(files):
        seen = file.stat()
        found[file.relative_to(PACKAGE).as_posix()] = _hash(file, seen.st_size, seen.st_mtime_ns)
    return found
