"""Which pictures a demo data set holds: who, what, where, in which split. Pure arithmetic, nothing is drawn here."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ifas.core.errors import ConfigError
from ifas.core.taxonomy import SPLITS

KINDS = ("live", "print", "replay", "mask")
#: Bona fide first, then the PAI species.
SPECIES = ("live", "print.flat", "print.bent", "replay.phone", "replay.tablet", "mask.rigid3d")
LIVE_SHARE = 0.36
#: Pictures per subject and domain. The unseen domain has test subjects only, so it takes more of each.
RATE = {"train": 2.5, "dev": 2.4, "test": 1.6}
TARGET_RATE = 5.2
DEV_SHARE, TEST_SHARE = 0.16, 0.34
#: Two subjects in each split, so that a mask always has a wearer and someone else's face.
MIN_SUBJECTS = 6


@dataclass(frozen=True, order=True)
class Job:
    """One picture.

    Attributes:
        subject: who is before the camera, from 0. For a mask: who wears it.
        species: one of SPECIES.
        index: running number within (subject, kind).
        impersonates: subject whose face a mask shows; -1 otherwise. Always of the same split.
    """

    subject: int
    species: str
    index: int
    domain: str
    split: str
    impersonates: int = -1

    @property
    def kind(self) -> str:
        """live, print, replay or mask."""
        return self.species.partition(".")[0]


def split_subjects(subjects: int, seed: int) -> dict[str, list[int]]:
    """Subjects 0 to `subjects` - 1 dealt to train, dev and test; about half, a sixth and a third.

    Raises:
        ConfigError: fewer than MIN_SUBJECTS.
    """
    if subjects < MIN_SUBJECTS:
        raise ConfigError(
            f"a demo data set of {subjects} subjects can't fill three splits",
            f"use at least {MIN_SUBJECTS} subjects, two in each split",
        )
    order = list(range(subjects))
    random.Random(seed).shuffle(order)  # noqa: S311  (not for security)
    dev, test = max(2, round(DEV_SHARE * subjects)), max(2, round(TEST_SHARE * subjects))
    train = subjects - dev - test
    dealt = order[:train], order[train : train + dev], order[train + dev :]
    return {split: sorted(who) for split, who in zip(SPLITS, dealt, strict=True)}


def make_plan(
    subjects: int,
    seed: int,
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    kinds: tuple[str, ...] = KINDS,
) -> list[Job]:
    """All pictures of a data set, sorted.

    Every species is there in every split of every source domain, and in the test split of every target domain.
    """
    splits = split_subjects(subjects, seed)
    species = [s for s in SPECIES if s.partition(".")[0] in kinds]
    counters: dict[tuple[int, str], int] = {}
    jobs: list[Job] = []
    cells = [(d, s, RATE[s]) for s in SPLITS for d in sources] + [(d, "test", TARGET_RATE) for d in targets]
    turn = 0
    for domain, split, rate in cells:
        pool = splits[split]
        for one in species:
            kind = one.partition(".")[0]
            share = LIVE_SHARE if kind == "live" else (1 - LIVE_SHARE) / (len(species) - 1)
            count = max(1, round(rate * len(pool) * share))
            for k in range(count):
                subject = pool[(turn + k) % len(pool)]
                index = counters.get((subject, kind), 0)
                counters[subject, kind] = index + 1
                other = pool[(turn + k + 1 + index % (len(pool) - 1)) % len(pool)] if kind == "mask" else -1
                jobs.append(Job(subject, one, index, domain, split, other))
            turn += count
    return sorted(jobs)


def thin_out(jobs: list[Job], limit: int) -> list[Job]:
    """At most `limit` jobs, kinds in turn, and species in turn within a kind: for quick looks and tests."""
    kinds = sorted({j.kind for j in jobs}, key=KINDS.index)
    out: list[Job] = []
    for n, kind in enumerate(kinds):
        wanted = limit // len(kinds) + (n < limit % len(kinds))
        of = [[j for j in jobs if j.species == s] for s in SPECIES if s.partition(".")[0] == kind]
        for k, some in enumerate(of):
            few = min(len(some), wanted // len(of) + (k < wanted % len(of)))
            out += [some[i * len(some) // few] for i in range(few)]
    return sorted(out)
