"""What was fixed before the study: worlds, arms, and the configuration of a single run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from ifas.core.config import RunConfig, Section, load
from ifas.core.errors import unknown_key
from ifas.core.files import sha256_json

HERE = Path(__file__).parent
STUDY_FILE, RUN_FILE = HERE / "study.yaml", HERE / "run.yaml"
FULL = "full"


class Arm(Section):
    """One arm: what it changes of the full model's configuration."""

    title: str
    about: str
    kind: Literal["model", "probe"] = "model"
    captions: Literal["caption", "caption_general"] = Field(
        default="caption", description="column of the captioned manifest that is learnt"
    )
    set: tuple[str, ...] = ()


class Study(Section):
    """The whole study. A seed is that of a world of its own (people, places, images) and of the training on it."""

    subjects: int
    seeds: tuple[int, ...]
    domains: tuple[str, ...]
    probe_c: tuple[float, ...] = Field(description="inverse regularisations that source development data choose from")
    arms: dict[str, Arm]
    set: tuple[str, ...] = Field(default=(), description="changes to all arms, for a quick look; the study has none")

    def with_changes(self, changes: Sequence[str]) -> Study:
        """The same study with further changes to the configuration of all arms."""
        return self.model_copy(update={"set": (*self.set, *changes)})


@dataclass(frozen=True, order=True)
class Single:
    """One run."""

    seed: int
    target: str
    arm: str

    @property
    def name(self) -> str:
        """For folders and progress."""
        return f"seed{self.seed}-{self.target}-{self.arm}"


def read_study(path: Path = STUDY_FILE) -> Study:
    """The study in a YAML file."""
    return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def singles(study: Study, *, seeds: list[int], targets: list[str], arms: list[str]) -> list[Single]:
    """The chosen runs in the order in which they are done; an empty list chooses all.

    Raises:
        ConfigError: an arm or target that the study does not have.
    """
    for name in targets:
        if name not in study.domains:
            raise unknown_key("target domain", name, study.domains)
    for name in arms:
        if name not in study.arms:
            raise unknown_key("arm", name, study.arms)
    return [
        Single(seed, target, arm)
        for seed in (seeds or study.seeds)
        for target in (targets or study.domains)
        for arm in (arms or study.arms)
    ]


def config_of(study: Study, one: Single, run_file: Path = RUN_FILE) -> RunConfig:
    """The configuration of a run: all other domains are sources."""
    sources = [domain for domain in study.domains if domain != one.target]
    changes = [
        f"protocol.source_domains=[{', '.join(sources)}]",
        f"protocol.target_domains=[{one.target}]",
        f"train.seed={one.seed}",
        f"caption.seed={one.seed}",
    ]
    return load(str(run_file), [*changes, *study.set, *study.arms[one.arm].set])


def key_of(study: Study, one: Single, run_file: Path = RUN_FILE) -> str:
    """12 hex digits that change with whatever a run's figures depend on, but the code."""
    arm = study.arms[one.arm]
    world = [one.seed, study.subjects, study.domains]
    config = config_of(study, one, run_file).model_dump(mode="json", include={"protocol", "caption", "model", "train"})
    evaluated = config_of(study, one, run_file).evaluate.model_dump(mode="json")
    probe = study.probe_c if arm.kind == "probe" else ()
    return sha256_json([world, one.target, arm.kind, arm.captions, config, evaluated, probe])[:12]
