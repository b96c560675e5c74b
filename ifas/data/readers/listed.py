"""Lists of paths and labels that people put beside a dataset: compared with the paths, which decide."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ifas.data.readers.sample import Refusal
from ifas.data.readers.tree import checked_against, paths, read_list


def label_lists(root: Path, *, live: str, attack: str) -> tuple[dict[str, Refusal], list[str]]:
    """Refusals by path, and notes on lists that were the other way round.

    A list is a .txt file at the root or one folder below whose rows end in 0 or 1 and begin with a path.

    Args:
        live: regular expression that finds bona fide paths.
        attack: the same for attacks.
    """
    if not root.is_dir():
        return {}, []
    is_live, is_attack = re.compile(live, re.IGNORECASE | re.ASCII), re.compile(attack, re.IGNORECASE | re.ASCII)
    found = {s: bool(is_live.search(s)) for s in paths(root) if is_live.search(s) or is_attack.search(s)}

    def key(path: str) -> str:
        """The part of a path that begins with the dataset's own folders: lists put other folders before it."""
        stem = _stem(path)
        match = is_live.search(stem) or is_attack.search(stem)
        return stem[match.start() :].lstrip("/") if match else stem

    by_key = {key(source): source for source in found}
    refused: dict[str, Refusal] = {}
    notes: list[str] = []
    for file in sorted({*root.glob("*.txt"), *root.glob("*/*.txt")}):
        rows = [row for row in read_list(file) if len(row) >= 2 and row[-1] in ("0", "1")]
        listed: dict[str, bool | None] = {}
        for row in rows:
            source = by_key.get(key(row[0]))
            if source:
                listed[source] = row[-1] == "1"
        wrong, said = checked_against(listed, found, file.relative_to(root).as_posix())
        refused |= wrong
        notes += said
    return refused, notes


def _stem(path: str) -> str:
    """A path without its ending, with forward slashes."""
    pure = PurePosixPath(path.replace("\\", "/").removeprefix("./"))
    return (pure.with_suffix("") if pure.name else pure).as_posix().lstrip("/")
