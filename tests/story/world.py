"""What is photographed for the story: the demo's world without its masks, and deliveries of masks by others.

People and places of a delivery come from another seed, and no person is in two deliveries: a batch is split by its
own subjects, so a person in two of them could be trained on in one and tested in the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifas.core.files import replacing, write_json
from ifas.core.manifest import DATASET_FILE, SAMPLES_FILE
from ifas.simulator.cast import RenderedCast
from ifas.simulator.dataset import RENDERED_SUBJECTS
from ifas.simulator.domains import DOMAINS, SOURCE_DOMAINS
from ifas.simulator.plan import Job, make_plan
from ifas.simulator.staging import stage

Row = dict[str, Any]

DEMO_SEED = 7
MASK = "mask.rigid3d"
#: Of a picture's record, what who delivers it tells. Its label is told by who adds it.
TOLD = ("subject_id", "media_id", "device", "environment", "illumination", "face_box", "synthetic")


@dataclass(frozen=True)
class Delivery:
    """Masks of one domain, a picture a person.

    Args:
        seed: of the people; another one than the demo's.
        people: numbers of the first person and of the one after the last.
    """

    domain: str
    seed: int
    people: tuple[int, int]


def without_masks(out: Path) -> int:
    """The demo's pictures but those of masks, in the `folder` layout; how many they are."""
    others = tuple(name for name in DOMAINS if name not in SOURCE_DOMAINS)
    plan = make_plan(RENDERED_SUBJECTS, DEMO_SEED, SOURCE_DOMAINS, others)
    with replacing(out) as beside:
        rows = _shoot(DEMO_SEED, [job for job in plan if job.kind != "mask"], beside, lambda record: record["path"])
        _list(beside, rows)
        write_json(beside / DATASET_FILE, {"name": "door", "licence": RenderedCast.licence, "synthetic": True})
    return len(rows)


def deliver(delivery: Delivery, out: Path) -> Path:
    """Photographs a delivery as `<subject>/<image>`, with a list beside it that says nothing of labels."""
    people = range(*delivery.people)
    jobs = [
        Job(wearer, MASK, 0, delivery.domain, "train", people[(at + 1) % len(people)])
        for at, wearer in enumerate(people)
    ]
    with replacing(out) as beside:
        rows = _shoot(delivery.seed, jobs, beside, lambda record: f"{record['subject_id']}/{record['media_id']}.jpg")
        _list(beside, [{name: row[name] for name in ("path", *TOLD)} for row in rows])
    return out


def _shoot(seed: int, jobs: list[Job], out: Path, place: Callable[[Row], str]) -> list[Row]:
    """Takes the pictures of people of a seed, each to the path that `place` says; the record of each."""
    cast = RenderedCast(seed)

    def one(job: Job) -> Row:
        jpeg, record = stage(cast, job, seed)
        file = out / place(record)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg)
        return {**record, "path": file.relative_to(out).as_posix()}

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, jobs))


def _list(folder: Path, rows: list[Row]) -> None:
    (folder / SAMPLES_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
