"""Walks a distributed dataset: a file is a sample, a known side file, or named as not recognised.

Hidden files, and what archivers and file managers leave behind, are passed over without a word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ifas.core.errors import DataError
from ifas.data.readers.sample import RawSample, Refusal, Scan

#: What a reader makes of one path: a sample, a refusal, or None where the path does not fit its layout.
Parsed = RawSample | Refusal | None

NOT_TEXT = "its name is not UTF-8: rename it"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a dataset is distributed.

    Attributes:
        expected: the layout in words, for errors.
        licence: the terms under which the dataset is given.
        side_files: regular expression of paths that belong to the dataset but hold no sample.
    """

    name: str
    expected: str
    licence: str
    description: str
    side_files: str = r"(?!)"


def scan_tree(
    root: Path,
    layout: Layout,
    parse: Callable[[str], Parsed],
    *,
    notes: Iterable[str] = (),
) -> Scan:
    """Calls `parse` with every path below `root`, relative and with forward slashes.

    Raises:
        DataError: nothing fits the layout; names the first path that did not, and what was expected. Or every file that
            fits is refused; names the first.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", f"point to the root of {layout.name}: {layout.expected}")
    side = re.compile(layout.side_files, re.IGNORECASE | re.ASCII)
    samples: list[RawSample] = []
    bad: list[Refusal] = []
    unrecognised: list[str] = []
    for source in paths(root):
        if not is_text(source):
            bad.append(Refusal(printable(source), NOT_TEXT))
            continue
        found = parse(source)
        if isinstance(found, RawSample):
            samples.append(found)
        elif found is not None:
            bad.append(found)
        elif not side.fullmatch(source):
            unrecognised.append(source)
    if bad and not samples:
        raise DataError(
            f"{root}: all {len(bad)} files of {layout.name} are refused; first: {bad[0].source}: {bad[0].reason}",
            "see whether the lists beside the files belong to them",
        )
    if not samples:
        first = f"first path that did not fit: {unrecognised[0]}" if unrecognised else "it holds no such file"
        raise DataError(
            f"{root} is not {layout.name} as it is distributed; {first}; expected {layout.expected}",
            "point to the folder that holds these paths, or choose another layout",
        )
    return Scan(
        name=layout.name,
        samples=tuple(samples),
        refused=tuple(bad),
        unrecognised=tuple(unrecognised),
        notes=tuple(notes),
        licence=layout.licence,
        description=layout.description,
    )


def paths(root: Path) -> Iterator[str]:
    """Relative POSIX paths of all files below `root`, in order; hidden files and those of archivers are left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        above = below(root, folder)
        for name in sorted(names):
            if not name.startswith(".") and name not in ("Thumbs.db", "desktop.ini"):
                yield above + name


def below(root: Path, folder: str) -> str:
    """What stands before the names of a folder that `os.walk` found below `root`: empty, or ends in a slash."""
    relative = Path(folder).relative_to(root).as_posix()
    return "" if relative == "." else f"{relative}/"


def is_text(source: str) -> bool:
    """Whether a path is UTF-8: others reach Python as lone surrogates, which no manifest or hash can hold."""
    return source.isascii() or not any("\ud800" <= c <= "\udfff" for c in source)


def printable(source: str) -> str:
    """A path with what is not UTF-8 written as escapes."""
    return source.encode("utf-8", "backslashreplace").decode()


def checked_against(
    listed: Mapping[str, bool | None], found: Mapping[str, bool], called: str
) -> tuple[dict[str, Refusal], list[str]]:
    """Compares the labels of a list file with those that the paths say.

    Public lists differ in polarity: some write 1 for bona fide, others 0. A list that is the other way round in every
    row is taken as reversed, which a note says; a row that disagrees with the others is refused.

    Args:
        listed: source -> the list's label read as `1 = attack`; None where it says no label.
        found: source -> bona fide by its path.

    Returns:
        Refusals by source, and notes.
    """
    compared = {s: attack for s, attack in listed.items() if attack is not None and s in found}
    if not compared:
        return {}, []
    agreeing = {s for s, attack in compared.items() if attack != found[s]}
    turned = len(agreeing) * 2 < len(compared)
    wrong = [s for s in compared if (s in agreeing) == turned] if 0 < len(agreeing) < len(compared) else []
    notes = [f"{called} writes 1 for bona fide; its labels were turned round"] if turned else []
    words = {True: "bona fide", False: "an attack"}
    refusals = {s: Refusal(s, f"{called} says {words[not found[s]]}, the path says {words[found[s]]}") for s in wrong}
    return refusals, notes


def read_list(file: Path) -> list[list[str]]:
    """Rows of a text list, split at white space and commas. Raises DataError where the file is no text."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} can't be read as a list: {error}", "download it again") from error
    rows = [re.split(r"[,\s]+", line.strip()) for line in text.splitlines()]
    return [row for row in rows if row != [""]]
