"""Makes the demo data set: a folder of pictures that appears whole or not at all."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.errors import DataError, unknown_key
from ifas.core.files import read_json, replacing, sha256_file, sha256_json, write_json
from ifas.core.manifest import DATASET_FILE, SAMPLES_FILE

if TYPE_CHECKING:
    from ifas.simulator.cast import Cast
    from ifas.simulator.plan import Job

#: Raised whenever the same seed would give other pixels.
RENDERER_VERSION = 2
MADE_BY = "ifas.simulator"
RENDERED_SUBJECTS = 44
ABOUT_RENDERED = (
    "Synthetic people before a simulated camera: bona fide, print, replay and 3-D mask presentations. Rendered, no "
    "real person. For demonstration and tests; figures measured on it say nothing about real attacks."
)
ABOUT_STAGED = (
    "Portraits supplied by the user, and simulated print and replay presentations of them. Attacks are staged by a "
    "renderer; figures measured on them say nothing about real attacks."
)


@dataclass(frozen=True)
class DemoSummary:
    """What a demo data set holds.

    Attributes:
        kinds: pictures per live, print, replay, mask.
        seconds: time it took, 0 if reused.
        skipped: (file, reason) of portraits that could not be read.
        notes: what a reader should know, such as kinds that are missing.
        reused: the folder held the same data set already.
    """

    images: int
    subjects: int
    domains: tuple[str, ...]
    kinds: dict[str, int]
    seconds: float
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    reused: bool = False


def _key(
    seed: int, subjects: int | None, faces: Path | None, limit: int | None, sources: tuple[str, ...] | None
) -> dict[str, Any]:
    digest = None
    if faces is not None:
        from ifas.simulator.cast import portrait_files

        digest = sha256_json([sha256_file(f) for f in portrait_files(faces)])
    return {
        "made_by": MADE_BY,
        "renderer_version": RENDERER_VERSION,
        "seed": seed,
        "subjects_wanted": subjects,
        "faces": digest,
        "limit": limit,
        **({} if sources is None else {"sources": list(sources)}),
    }


def _existing(out: Path, key: dict[str, Any]) -> DemoSummary | None:
    """Summary of the data set in `out` if it is the wanted one. Raises DataError if `out` holds anything else."""
    if not out.exists():
        return None
    marker = out / DATASET_FILE
    try:
        description = read_json(marker) if marker.is_file() else {}
    except ValueError:
        description = {}
    made = description.get("made") if isinstance(description, dict) else None
    made = made if isinstance(made, dict) else {}
    if not out.is_dir() or (made.get("made_by") != MADE_BY and any(out.iterdir())):
        raise DataError(
            f"{out} exists and holds something that the simulator did not make",
            "name a new or an empty folder, or move the old one away",
        )
    listed = out / SAMPLES_FILE
    # Pictures that a user added are on the list, too.
    if made and listed.is_file() and sha256_file(listed) != description.get("samples_sha256"):
        raise DataError(f"{listed} was changed since the simulator made it", "move the folder away, or name a new one")
    foreign = _foreign(out)
    if foreign:
        raise DataError(
            f"{out} holds {foreign}, which the simulator did not make", "move it away, or name a new folder"
        )
    if made != key or not listed.is_file():
        return None
    lines = listed.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    if not all((out / r["path"]).is_file() for r in records):
        return None
    skipped = tuple((str(file), str(reason)) for file, reason in description["skipped"])
    summary = _summary(records, skipped, tuple(description["notes"]), 0.0)
    return replace(summary, reused=True)


def _foreign(out: Path) -> str:
    """A file in `out` that is no part of the data set there and would go with it; an empty text where there is none."""
    own = {SAMPLES_FILE, DATASET_FILE}
    with suppress(OSError, ValueError, KeyError, TypeError):
        lines = (out / SAMPLES_FILE).read_text(encoding="utf-8").splitlines()
        own |= {str(json.loads(line)["path"]) for line in lines}
    found = (path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if not path.is_dir())
    return next((name for name in found if name not in own), "")


def _summary(
    records: list[dict[str, Any]], skipped: tuple[tuple[str, str], ...], notes: tuple[str, ...], seconds: float
) -> DemoSummary:
    return DemoSummary(
        len(records),
        len({r["subject_id"] for r in records}),
        tuple(sorted({r["domain"] for r in records})),
        dict(sorted(Counter(r["spoof_type"] for r in records).items())),
        seconds,
        skipped,
        notes,
    )


def _shoot(
    folder: Path,
    cast: Cast,
    jobs: list[Job],
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    """Takes all pictures into `folder`. Threads suffice: compiled loops, numpy and OpenCV release the GIL."""
    from ifas.simulator.staging import stage

    def one(job: Job) -> dict[str, Any]:
        jpeg, record = stage(cast, job, seed)
        path = folder / record["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg)
        return record

    records = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        try:
            for record in pool.map(one, jobs):
                records.append(record)
                if progress is not None:
                    progress(len(records), len(jobs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return sorted(records, key=lambda r: str(r["path"]))


def check_faces(folder: Path) -> None:
    """Raises DataError unless a folder holds picture files that `make_demo` could stage."""
    from ifas.simulator.cast import portrait_files

    portrait_files(folder)


def make_demo(
    out: Path,
    *,
    seed: int = 7,
    faces: Path | None = None,
    subjects: int | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    limit: int | None = None,
    sources: tuple[str, ...] | None = None,
) -> DemoSummary:
    """Makes the demo data set in `out`, in the `folder` layout with `samples.jsonl` and `dataset.json`.

    The same arguments give the same bytes on the same machine, whatever `workers` is; another processor may round
    otherwise. Where `out` holds that data set (its list is unchanged, every picture on it is there), it is kept.
    Another demo data set is replaced.

    Args:
        seed: of people, places and attacks.
        faces: folder of portraits, one person per JPEG or PNG file, to stage instead of rendered people.
        subjects: how many people, at least 6; with `faces`, at most. None: RENDERED_SUBJECTS, or all of `faces`.
        workers: threads.
        progress: called with (pictures done, pictures in all).
        limit: at most this many pictures of the whole plan, evenly over the kinds.
        sources: domains with train, dev and test subjects; None: `domains.SOURCE_DOMAINS`. The others hold test
            subjects only.

    Raises:
        DataError: `out` is a link, or holds anything that the simulator did not make or a list that was changed since;
            `faces` is not a folder or has too few readable portraits.
        ConfigError: fewer than 6 subjects, or an unknown domain.
    """
    started = time.monotonic()
    rendered = RENDERED_SUBJECTS if subjects is None else subjects
    key = _key(seed, rendered if faces is None else subjects, faces, limit, sources)
    found = _existing(out, key)
    if found is not None:
        return found
    if out.is_symlink():
        raise DataError(f"{out} is a symbolic link to {out.readlink()}", "name the place itself")

    from ifas.simulator.cast import PortraitCast, RenderedCast, load_portraits
    from ifas.simulator.domains import DOMAINS, SOURCE_DOMAINS
    from ifas.simulator.plan import make_plan, thin_out

    cast: Cast
    skipped: list[tuple[str, str]] = []
    notes: list[str] = []
    if faces is None:
        cast, people = RenderedCast(seed), rendered
    else:
        portraits: PortraitCast
        portraits, skipped = load_portraits(faces, subjects)
        cast, people = portraits, len(portraits)
        notes.append("no mask attacks: a flat portrait has no shape to make a mask of")
        notes.append("face boxes assume a head-and-shoulders portrait")
        if skipped:
            notes.append(f"{len(skipped)} portraits skipped: they can't be read")
    chosen = SOURCE_DOMAINS if sources is None else sources
    for name in chosen:
        if name not in DOMAINS:
            raise unknown_key("capture domain", name, DOMAINS)
    jobs = make_plan(people, seed, chosen, tuple(d for d in DOMAINS if d not in chosen), cast.kinds)
    if limit is not None:
        jobs = thin_out(jobs, limit)

    with replacing(out) as folder:
        folder.mkdir()
        records = _shoot(folder, cast, jobs, seed, workers, progress)
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        (folder / SAMPLES_FILE).write_text(lines, encoding="utf-8")
        write_json(
            folder / DATASET_FILE,
            {
                "name": "demo",
                "licence": cast.licence,
                "synthetic": True,
                "description": ABOUT_RENDERED if cast.rendered else ABOUT_STAGED,
                "seed": seed,
                "subjects": people,
                "images": len(records),
                "renderer_version": RENDERER_VERSION,
                "samples_sha256": sha256_file(folder / SAMPLES_FILE),
                "skipped": skipped,
                "notes": notes,
                "made": key,
            },
        )
    return _summary(records, tuple(skipped), tuple(notes), time.monotonic() - started)
