"""WMCA (George et al., TIFS 2019, Idiap): 72 identities, 1,679 presentations; the colour channel of the HDF5 files.

    <any>/<dd.mm.yy>/<client>_<session>_<presenter>_<type>_<pai>.hdf5
    *grandtest*.csv            client_id, filepath, group, label

The attack type alone is not the PAI species: a photo (type 3) may be paper or a screen, a disguise (type 1) glasses or
a rigid mask. Species follow from type and PAI number together, as the public leave-one-out lists use them.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ifas.core.errors import DataError
from ifas.core.taxonomy import Split
from ifas.data.readers.sample import RawSample, Refusal, Scan, split_of
from ifas.data.readers.tree import Layout, Parsed, checked_against, paths, scan_tree

LAYOUT = Layout(
    name="wmca",
    expected="<dd.mm.yy>/<client>_<session>_<presenter>_<type 0-4>_<pai>.hdf5, and the grandtest CSV",
    licence="WMCA: Idiap end-user licence agreement, research only; figures only of the files that its lists allow",
    description="WMCA, colour channel",
    side_files=r".*\.(csv|txt|pdf|md)",
)
#: (type, first PAI number, last) -> species. Type 0 is bona fide; all of type 4 are videos on a screen.
RULES: tuple[tuple[int, int, int, str], ...] = (
    (0, 0, 999, "live"),
    (1, 2, 2, "mask.rigid3d"),
    (1, 13, 14, "mask.rigid3d"),
    (1, 1, 1, "mask.glasses"),
    (1, 4, 7, "mask.glasses"),
    (1, 15, 16, "mask.glasses"),
    (2, 1, 7, "mannequin.fake_head"),
    (2, 8, 11, "mask.paper"),
    (2, 12, 17, "mask.rigid3d"),
    (2, 18, 18, "mask.flexible"),
    (2, 80, 99, "mask.flexible"),
    (3, 5, 5, "replay"),
    (3, 10, 10, "replay"),
    (3, 15, 15, "replay"),
    (3, 1, 14, "print"),
    (4, 0, 999, "replay"),
)
GROUPS: dict[str, Split] = {"train": "train", "dev": "dev", "eval": "test", "test": "test"}
_PATH = re.compile(r"(?:.*/)?\d\d\.\d\d\.\d\d/((\d+)_(\d+)_(\d+)_([0-4])_(\d+))\.(?:hdf5|h5)", re.IGNORECASE | re.ASCII)


def species_of(type_: int, pai: int) -> str | None:
    """PAI species of an attack type and PAI number; None where no public list has the pair."""
    return next((species for t, low, high, species in RULES if t == type_ and low <= pai <= high), None)


@dataclass(frozen=True)
class Wmca:
    """Reader of the distributed layout. Without the CSV, splits are cut by client, which is our choice."""

    def scan(self, root: Path) -> Scan:
        """All presentations below `root`; one whose species or split is not known is refused.

        Raises:
            DataError: the layout is another one, or the CSV is unusable.
        """
        listed, coded, notes = _grandtest(root)
        here = (match for source in paths(root) if (match := _PATH.fullmatch(source))) if coded else ()
        live = {match[1]: species_of(int(match[5]), int(match[6])) == "live" for match in here}
        wrong, said = checked_against(coded, live, "the grandtest CSV")
        notes += said

        def parse(source: str) -> Parsed:
            match = _PATH.fullmatch(source)
            if not match:
                return None
            stem, client, session, _, type_, pai = match.groups()
            species = species_of(int(type_), int(pai))
            if species is None:
                return Refusal(source, f"type {type_} with PAI {pai} is no species of the public lists")
            if stem in wrong:
                return Refusal(source, wrong[stem].reason)
            split = split_of(client)
            if listed:
                if stem not in listed:
                    return Refusal(source, "the grandtest CSV does not list it")
                split, live = listed[stem]
                if live is not None and live != (species == "live"):
                    said = "bona fide" if live else "an attack"
                    return Refusal(source, f"the grandtest CSV says {said}, type {type_} says {species}")
            return RawSample(
                path=os.path.join(root, source),
                source=source,
                domain=LAYOUT.name,
                subject_id=client,
                media_id=stem,
                split=split,
                pai_species=species,
                environment=f"session {int(session)}",
                attack=None if species == "live" else {"type": int(type_), "pai": int(pai)},
                container="hdf5",
            )

        return scan_tree(root, LAYOUT, parse, notes=notes)


def _grandtest(root: Path) -> tuple[dict[str, tuple[Split, bool | None]], dict[str, bool | None], list[str]]:
    """Of the grandtest CSV: stem -> split and bona fide or not; stem -> label 1, where labels are 0 and 1; notes."""
    files = sorted(root.rglob("*grandtest*.csv")) if root.is_dir() else []
    if not files:
        return {}, {}, ["no grandtest CSV found: splits are cut by client"]
    coded: dict[str, bool | None] = {}
    unread = 0
    rows: dict[str, tuple[Split, bool | None]] = {}
    try:
        with files[0].open(encoding="utf-8-sig", newline="") as text:
            for number, row in enumerate(csv.DictReader(text), start=2):
                path, group = row.get("filepath"), (row.get("group") or "").strip().lower()
                if not path or group not in GROUPS:
                    raise DataError(f"{files[0]}, line {number}: no filepath, or group {group!r}", "train, dev or eval")
                label = (row.get("label") or "").strip().lower()
                live = True if "bona" in label or label in ("real", "live") else False if "attack" in label else None
                stem = PurePosixPath(path).name.removesuffix(".hdf5").removesuffix(".h5")
                rows[stem] = (GROUPS[group], live)
                if label in ("0", "1"):
                    coded[stem] = label == "1"
                elif live is None:
                    unread += 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{files[0]} can't be read: {error}", "download it again") from error
    return rows, coded, [f"{files[0].name}: {unread} labels are not understood, so not compared"] if unread else []
